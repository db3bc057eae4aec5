// The pool under ThreadSanitizer: several callers at once, exceptions, and many short jobs.
#include <atomic>
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
void sum_tasks(int workers, int64_t n_tasks) {
  std::vector<int64_t> by_worker(workers, 0), runs(n_tasks, 0);
  cfsae::parallel_for(n_tasks, workers, [&](int64_t task, int worker) {
    by_worker[worker] += task;
    ++runs[task];
  });
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

}  // namespace

int main() {
  constexpr int kCallers = 4, kJobs = 300;
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller) {
    callers.emplace_back([caller] {
      for (int job = 0; job < kJobs; ++job) {
        sum_tasks(1 + (job + caller) % 4, job % 40);
        throw_from_a_task(1 + job % 3);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  std::printf("passed\n");
  return 0;
}
