// The pool under ThreadSanitizer: several callers at once, exceptions, and many short jobs.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <thread>
#include <vector>

#include "parallel.h"

namespace {

void expect(bool holds, const char* what) {
  if (holds) return;
  std::printf("failed: %s\n", what);
  std::exit(1);
}

// Every task runs once; each worker writes memory of its own, which the caller reads afterwards.
void sum_tasks(int workers, int64_t n_tasks, cfsae::Wake wake) {
  std::vector<int64_t> by_worker(workers, 0), runs(n_tasks, 0);
  cfsae::parallel_for(
      n_tasks, workers,
      [&](int64_t task, int worker) {
        by_worker[worker] += task;
        ++runs[task];
      },
      wake);
  int64_t sum = 0;
  for (const int64_t part : by_worker) sum += part;
  expect(sum == n_tasks * (n_tasks - 1) / 2, "the sum over the tasks");
  for (const int64_t count : runs) expect(count == 1, "each task once");
}

void throw_from_a_task(int workers) {
  std::atomic<int> caught{0};
  try {
    cfsae::parallel_for(100, workers, [](int64_t task, int) {
      if (task == 7) throw std::runtime_error("seven");
    });
  } catch (const std::runtime_error&) {
    ++caught;
  }
  expect(caught == 1, "the exception of a task reaches the caller");
}

// Whether some worker but the caller took part in a job: the first that is shared ends it.
bool shared(int most_jobs, cfsae::Wake wake) {
  std::atomic<bool> others{false};
  for (int job = 0; job < most_jobs && !others; ++job) {
    cfsae::parallel_for(
        20, 2,
        [&](int64_t, int worker) {
          if (worker != 0) others = true;
          std::this_thread::sleep_for(std::chrono::microseconds(50));
        },
        wake);
  }
  return others;
}

// Short work does not wake a pool that sleeps, and shares itself out in a stream of jobs.
void wake_only_in_a_stream() {
  constexpr int kMany = 3000;  // a busy machine may be long in letting a thread run
  expect(shared(kMany, cfsae::Wake::kAlways), "a job that wakes the pool is shared");
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  expect(!shared(1, cfsae::Wake::kIfBusy), "after a pause the caller works alone");
  expect(shared(kMany, cfsae::Wake::kIfBusy), "in a stream workers join");
}

}  // namespace

int main() {
  wake_only_in_a_stream();
  constexpr int kCallers = 4, kJobs = 300;
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller) {
    callers.emplace_back([caller] {
      for (int job = 0; job < kJobs; ++job) {
        const auto wake = job % 5 == 0 ? cfsae::Wake::kIfBusy : cfsae::Wake::kAlways;
        sum_tasks(1 + (job + caller) % 4, job % 40, wake);
        throw_from_a_task(1 + job % 3);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  std::printf("passed\n");
  return 0;
}
