// A pool whose workers join a job while it is open: the caller starts at once, and when no task is
// left it waits for those who joined, never for a thread that the system has not woken yet. Who
// waits looks for news for a moment before it sleeps: to be woken costs as much as a request.
#include "parallel.h"

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

namespace cfsae {
namespace {

// About 40 us of one core's arithmetic; waking a sleeping thread costs 5 to 50 us.
constexpr int64_t kOperationsPerWorker = 1 << 20;

// A stream of steered requests comes back to the engine within this time.
constexpr std::chrono::microseconds kWatch{300};
constexpr int64_t kStream = 4;  // as many jobs, each soon after the one before
using Clock = std::chrono::steady_clock;

using Job = std::function<void(int worker)>;

void breathe() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Whether `news` came true while watching for it; never watches on a machine with one processor.
template <typename News>
bool watch(const News& news) {
  static const bool alone = std::thread::hardware_concurrency() < 2;
  const auto end = Clock::now() + kWatch;
  do {
    for (int i = 0; i < 32; ++i) {
      if (news()) return true;
      breathe();
    }
  } while (!alone && Clock::now() < end);
  return news();
}

class Pool {
 public:
  void run(int workers, const Job& job, Wake wake) {
    if (workers <= 1 || busy_.exchange(true, std::memory_order_acquire)) return job(0);
    streak_ = Clock::now() - ended_ < kWatch ? streak_ + 1 : 0;
    open(workers - 1, job, wake == Wake::kAlways || streak_ >= kStream);
    job(0);
    close();
    ended_ = Clock::now();
    busy_.store(false, std::memory_order_release);
  }

 private:
  void open(int helpers, const Job& job, bool wake) {
    const std::lock_guard<std::mutex> lock(mutex_);
    while (wake && n_threads_ < helpers && spawn()) ++n_threads_;
    job_ = &job;
    next_worker_ = 1;
    vacancies_.store(std::min(helpers, n_threads_), std::memory_order_release);
    if (!wake || sleepers_ == 0) return;
    ++calls_;
    wake_.notify_all();
  }

  void close() {
    std::unique_lock<std::mutex> lock(mutex_);
    vacancies_.store(0, std::memory_order_relaxed);
    if (active_.load(std::memory_order_acquire) == 0) return;
    lock.unlock();
    watch([this] { return active_.load(std::memory_order_acquire) == 0; });
    lock.lock();
    done_.wait(lock, [this] { return active_.load(std::memory_order_relaxed) == 0; });
  }

  bool spawn() {
    try {
      std::thread([this] { serve(); }).detach();
      return true;
    } catch (const std::system_error&) {
      return false;  // the system is out of threads: those that exist finish the work
    }
  }

  bool vacant() const { return vacancies_.load(std::memory_order_acquire) > 0; }

  // Watching as well as working: a thread that woke too late for the job that called it is there
  // for the next one of the stream.
  [[noreturn]] void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      const int64_t answered = calls_;
      ++sleepers_;
      wake_.wait(lock, [&] { return vacant() || calls_ != answered; });
      --sleepers_;
      do {
        if (vacant()) join(lock);
        lock.unlock();
        watch([this] { return vacant(); });
        lock.lock();
      } while (vacant());
    }
  }

  void join(std::unique_lock<std::mutex>& lock) {
    vacancies_.fetch_sub(1, std::memory_order_relaxed);
    active_.fetch_add(1, std::memory_order_relaxed);
    const int worker = next_worker_++;
    const Job* const job = job_;
    lock.unlock();
    (*job)(worker);
    lock.lock();
    if (active_.fetch_sub(1, std::memory_order_release) == 1) done_.notify_one();
  }

  std::atomic<bool> busy_{false};
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  const Job* job_ = nullptr;
  std::atomic<int> vacancies_{0}, active_{0};  // changed under the mutex, watched without
  int n_threads_ = 0, sleepers_ = 0, next_worker_ = 1;
  int64_t calls_ = 0;          // how often sleepers were called
  Clock::time_point ended_{};  // the last job; this and streak_ are of who holds busy_
  int64_t streak_ = 0;         // jobs, each soon after the one before
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

thread_local bool on_openmp = false;
std::atomic<bool> forked{false};  // OpenMP's threads are gone, and it waits for them

// The two functions that a parallel region of gcc calls.
struct OpenMp {
  void (*region)(void (*body)(void*), void* data, unsigned threads, unsigned flags);
  int (*most_threads)();
};

const OpenMp& openmp() {
  static const OpenMp found = [] {
    OpenMp out;
    out.region = reinterpret_cast<decltype(out.region)>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    out.most_threads =
        reinterpret_cast<decltype(out.most_threads)>(dlsym(RTLD_DEFAULT, "omp_get_max_threads"));
    pthread_atfork(nullptr, nullptr, [] { forked.store(true); });
    return out;
  }();
  return found;
}

bool has_openmp() { return openmp().region != nullptr && openmp().most_threads != nullptr; }

// With as many threads as always, since OpenMP ends those that a region leaves out.
void run_on_openmp(int workers, const Job& job) {
  struct Team {
    const Job& job;
    int workers;
    std::atomic<int> arrived{0};
  } team{job, workers};
  openmp().region(
      [](void* data) {
        Team& its = *static_cast<Team*>(data);
        const int worker = its.arrived.fetch_add(1);
        if (worker < its.workers) its.job(worker);
      },
      &team, static_cast<unsigned>(std::max(workers, openmp().most_threads())), 0);
}

}  // namespace

bool use_openmp(bool wanted) {
  const bool before = on_openmp;
  on_openmp = wanted && has_openmp();
  return before;
}

int workers_for(int64_t operations, int threads) {
  const int64_t useful = 1 + operations / kOperationsPerWorker;
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, useful)));
}

void parallel_for(int64_t n_tasks, int workers,
                  const std::function<void(int64_t task, int worker)>& body, Wake wake) {
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
  const int useful = static_cast<int>(std::min<int64_t>(workers, n_tasks));
  if (on_openmp && useful > 1 && !forked.load()) {
    run_on_openmp(useful, work);
  } else {
    pool().run(useful, work, wake);
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace cfsae
