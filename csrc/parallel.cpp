// A pool whose workers join a job while it is open: the caller starts at once, and when no task is
// left it waits for those who joined, never for a thread that the system has not woken yet.
#include "parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

namespace cfsae {
namespace {

// About 40 us of one core's arithmetic; waking a sleeping thread costs 5 to 50 us.
constexpr int64_t kOperationsPerWorker = 1 << 20;

using Job = std::function<void(int worker)>;

class Pool {
 public:
  void run(int workers, const Job& job) {
    if (workers <= 1 || busy_.exchange(true, std::memory_order_acquire)) return job(0);
    open(workers - 1, job);
    job(0);
    close();
    busy_.store(false, std::memory_order_release);
  }

 private:
  void open(int helpers, const Job& job) {
    const std::lock_guard<std::mutex> lock(mutex_);
    while (n_threads_ < helpers && spawn()) ++n_threads_;
    job_ = &job;
    vacancies_ = std::min(helpers, n_threads_);
    next_worker_ = 1;
    wake_.notify_all();
  }

  void close() {
    std::unique_lock<std::mutex> lock(mutex_);
    vacancies_ = 0;
    done_.wait(lock, [this] { return active_ == 0; });
  }

  bool spawn() {
    try {
      std::thread([this] { serve(); }).detach();
      return true;
    } catch (const std::system_error&) {
      return false;  // the system is out of threads: those that exist finish the work
    }
  }

  [[noreturn]] void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return vacancies_ > 0; });
      --vacancies_;
      ++active_;
      const int worker = next_worker_++;
      const Job* const job = job_;
      lock.unlock();
      (*job)(worker);
      lock.lock();
      if (--active_ == 0) done_.notify_one();
    }
  }

  std::atomic<bool> busy_{false};
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  const Job* job_ = nullptr;
  int n_threads_ = 0, vacancies_ = 0, active_ = 0, next_worker_ = 1;
};

std::atomic<Pool*> current_pool{nullptr};

// Never destroyed: its threads may still wait when the process ends. A child of fork() has none of
// the threads, so it forgets the pool and makes its own.
Pool& pool() {
  static const int registered =
      pthread_atfork(nullptr, nullptr, [] { current_pool.store(nullptr); });
  (void)registered;
  Pool* found = current_pool.load();
  if (found != nullptr) return *found;
  Pool* const fresh = new Pool;
  if (current_pool.compare_exchange_strong(found, fresh)) return *fresh;
  delete fresh;
  return *found;
}

}  // namespace

int workers_for(int64_t operations, int threads) {
  const int64_t useful = 1 + operations / kOperationsPerWorker;
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, useful)));
}

void parallel_for(int64_t n_tasks, int workers,
                  const std::function<void(int64_t task, int worker)>& body) {
  std::atomic<int64_t> next{0};
  std::mutex failure_mutex;
  std::exception_ptr failure;
  const Job work = [&](int worker) {
    try {
      for (int64_t task; (task = next.fetch_add(1)) < n_tasks;) body(task, worker);
    } catch (...) {
      next.store(n_tasks);
      const std::lock_guard<std::mutex> lock(failure_mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  pool().run(static_cast<int>(std::min<int64_t>(workers, n_tasks)), work);
  if (failure) std::rethrow_exception(failure);
}

}  // namespace cfsae
