// What the door of ONNX Runtime needs beside the ops: memory and copies in stream order, the
// threshold of a code, and ids as wide as the graph has them.
#include "cuda/platform.h"

namespace cfsae::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    keep_above_kernel(int32_t* indices, float* values, int64_t n, float threshold) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= n || values[i] > threshold) return;
  indices[i] = kPadding;
  values[i] = 0.0f;
}

__global__ void __launch_bounds__(kThreads)
    widen_kernel(const int32_t* ids, int64_t n, int64_t* out) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) out[i] = ids[i];
}

}  // namespace

Status allocate(int64_t bytes, void** memory, const Execution& execution) {
  return allocate_on(execution.stream, memory, static_cast<size_t>(bytes));
}

Status release(void* memory, const Execution& execution) {
  return release_on(execution.stream, memory);
}

Status copy_in(void* to, const void* from, int64_t bytes, const Execution& execution) {
  return copy_on(execution.stream, to, from, static_cast<size_t>(bytes));
}

Status copy_out(void* to, const void* from, int64_t bytes, const Execution& execution) {
  const Status status = copy_on(execution.stream, to, from, static_cast<size_t>(bytes));
  return status == Status::kOk ? wait_for(execution.stream) : status;
}

Status keep_above(const CodeOut& code, float threshold, const Execution& execution) {
  const int64_t n = code.n_rows * code.k;
  return launch(keep_above_kernel, {divide_up(n, kThreads), 1, kThreads, 0}, execution.stream,
                code.indices, code.values, n, threshold);
}

Status widen(const int32_t* ids, int64_t n, int64_t* out, const Execution& execution) {
  return launch(widen_kernel, {divide_up(n, kThreads), 1, kThreads, 0}, execution.stream, ids, n,
                out);
}

}  // namespace cfsae::cuda
