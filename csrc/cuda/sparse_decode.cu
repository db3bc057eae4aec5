// out[b] = mean + std * (bias + sum_j values[b, j] * dictionary[indices[b, j]]). Backward: values
// and std share the products grad . atom; the dictionary's gradient is gathered latent by latent.
#include "cuda/gather.h"
#include "cuda/grouped.h"
#include "cuda/reduce.h"

namespace cfsae::cuda {
namespace {

constexpr int kThreads = 128;

// Gradients of mean and std of one row, from the products grad . atom (not yet times std).
__global__ void __launch_bounds__(kThreads)
    stats_grads_kernel(CodeView code, Matrix grad, const float* bias, const float* products,
                       float* grad_mean, float* grad_std) {
  const int64_t b = blockIdx.x;
  const float* const g = grad.data + b * grad.dim;
  double sum = 0.0, along = 0.0;
  for (int64_t c = threadIdx.x; c < grad.dim; c += kThreads) {
    sum += g[c];
    if (bias != nullptr) along += double{g[c]} * bias[c];
  }
  for (int64_t j = threadIdx.x; j < code.k; j += kThreads) {
    along += double{code.values[b * code.k + j]} * products[b * code.k + j];
  }
  sum = block_sum(sum);
  along = block_sum(along);
  if (threadIdx.x != 0) return;
  if (grad_mean != nullptr) grad_mean[b] = static_cast<float>(sum);
  if (grad_std != nullptr) grad_std[b] = static_cast<float>(along);
}

__global__ void __launch_bounds__(kThreads)
    scale_kernel(float* products, const float* scale, int64_t n, int64_t k) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) products[i] *= scale[i / k];
}

struct Plan {
  float* products;
  Grouped by_latent;
  int64_t bytes;
};

Plan plan(void* base, int64_t n_rows, int64_t k, int64_t n_latents) {
  Workspace workspace(base);
  Plan p;
  p.products = workspace.take<float>(n_rows * k);
  p.by_latent = take_grouped(workspace, n_rows * k, n_latents);
  p.bytes = workspace.bytes();
  return p;
}

Status dictionary_grad(const CodeView& code, const Matrix& dictionary, const float* std,
                       const Matrix& grad, const Grouped& by_latent, float* out, void* stream) {
  const Status status = group({code.n_rows * code.k, dictionary.n_rows, nullptr, code.n_rows,
                               code.k, code.indices, code.values, std},
                              by_latent, stream);
  if (status != Status::kOk) return status;
  return gather({grad.data,
                 grad.n_rows,
                 grad.dim,
                 dictionary.n_rows,
                 by_latent.starts,
                 0,
                 by_latent.rows,
                 by_latent.weights,
                 nullptr,
                 {},
                 out},
                stream);
}

}  // namespace

Status sparse_decode(const CodeView& code, const Matrix& dictionary, const float* bias,
                     const StatsView& stats, float* out, const Execution& execution) {
  return gather({dictionary.data, dictionary.n_rows, dictionary.dim, code.n_rows, nullptr, code.k,
                 code.indices, code.values, bias, stats, out},
                execution.stream);
}

int64_t sparse_decode_backward_bytes(int64_t n_rows, int64_t k, int64_t n_latents) {
  return plan(nullptr, n_rows, k, n_latents).bytes;
}

Status sparse_decode_backward(const CodeView& code, const Matrix& dictionary, const float* bias,
                              const StatsView& stats, const Matrix& grad,
                              const SparseDecodeGrads& grads, const Execution& execution) {
  void* const stream = execution.stream;
  const Plan p = plan(execution.workspace, code.n_rows, code.k, dictionary.n_rows);
  float* const to_values = grads.values == nullptr ? p.products : grads.values;
  const bool wants_stats = grads.mean != nullptr || grads.std != nullptr;
  Status status = Status::kOk;
  if (grads.values != nullptr || wants_stats) {
    status = products({dictionary.data, grad.data, dictionary.n_rows, grad.dim, code.n_rows,
                       nullptr, code.k, code.indices, nullptr, to_values},
                      stream);
  }
  if (wants_stats && status == Status::kOk) {
    status = launch(stats_grads_kernel, {code.n_rows, 1, kThreads, 0}, stream, code, grad, bias,
                    to_values, grads.mean, grads.std);
  }
  if (grads.values != nullptr && stats.std != nullptr && status == Status::kOk) {
    const int64_t n = code.n_rows * code.k;
    status = launch(scale_kernel, {divide_up(n, kThreads), 1, kThreads, 0}, stream, grads.values,
                    stats.std, n, code.k);
  }
  if (grads.dictionary != nullptr && status == Status::kOk) {
    status =
        dictionary_grad(code, dictionary, stats.std, grad, p.by_latent, grads.dictionary, stream);
  }
  if (grads.bias == nullptr || status != Status::kOk) return status;
  return column_sums(grad, stats.std, 1.0f, grads.bias, stream);
}

}  // namespace cfsae::cuda
