// The engine's loops on the thread pool of the runtime: these functions stand in for parallel.cpp,
// which the linker leaves out because nothing else in the archive needs it.
#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>

#include "onnxruntime/door.h"

namespace cfsae {
namespace {

constexpr int64_t kOperationsPerWorker = 1 << 20;  // as in parallel.cpp: what waking a thread costs

thread_local OrtApiTable session_api = nullptr;
thread_local const OrtKernelContext* session_context = nullptr;

struct Loop {
  Loop(const std::function<void(int64_t, int)>& what, int64_t n) : body(what), n_tasks(n) {}

  const std::function<void(int64_t, int)>& body;
  int64_t n_tasks;
  std::atomic<int64_t> next{0};
  std::mutex failure_mutex;
  std::exception_ptr failure;

  void work(int worker) {
    try {
      for (int64_t task; (task = next.fetch_add(1)) < n_tasks;) body(task, worker);
    } catch (...) {
      next.store(n_tasks);
      const std::lock_guard<std::mutex> lock(failure_mutex);
      if (!failure) failure = std::current_exception();
    }
  }
};

}  // namespace

int workers_for(int64_t operations, int threads) {
  const int64_t useful = 1 + operations / kOperationsPerWorker;
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, useful)));
}

void parallel_for(int64_t n_tasks, int workers,
                  const std::function<void(int64_t task, int worker)>& body, Wake) {
  Loop loop(body, n_tasks);
  const size_t n = static_cast<size_t>(std::max<int64_t>(1, std::min<int64_t>(workers, n_tasks)));
  if (n == 1 || session_context == nullptr) {
    loop.work(0);
  } else {
    void (*const work)(void*, size_t) = [](void* data, size_t worker) {
      static_cast<Loop*>(data)->work(static_cast<int>(worker));
    };
    ort::require(session_api,
                 ort::call<ort::Slot::KernelContext_ParallelFor, OrtStatus*>(
                     session_api, session_context, work, n, size_t{0}, static_cast<void*>(&loop)),
                 "sharing work out");
  }
  if (loop.failure) std::rethrow_exception(loop.failure);
}

namespace ort {

PoolScope::PoolScope(OrtApiTable api, OrtKernelContext* context) {
  session_api = api;
  session_context = context;
}

PoolScope::~PoolScope() { session_context = nullptr; }

}  // namespace ort
}  // namespace cfsae
