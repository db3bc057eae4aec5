// Standardise, subtract the centre, multiply, ReLU and top-k; (B, L) pre-activations never exist.
// Backward reads and writes the kept latents only, and goes through values, mean and std.
#include "cuda/gather.h"
#include "cuda/grouped.h"
#include "cuda/reduce.h"
#include "cuda/standardise.h"
#include "cuda/top_scan.h"

namespace cfsae::cuda {
namespace {

constexpr int kThreads = 256;

struct RowStats {
  double mean, deviation;  // the unbiased one, without epsilon; of one dimension: 1 - epsilon
};

// Sums in double: a mean far from zero must not drown the deviation.
__device__ RowStats row_stats(const float* x, int64_t dim) {
  double sum = 0.0, squares = 0.0;
  for (int64_t c = threadIdx.x; c < dim; c += kThreads) sum += x[c];
  const double mean = block_sum(sum) / static_cast<double>(dim);
  if (dim == 1) return {mean, 1.0 - kStdEpsilon};
  for (int64_t c = threadIdx.x; c < dim; c += kThreads) squares += (x[c] - mean) * (x[c] - mean);
  return {mean, sqrt(block_sum(squares) / static_cast<double>(dim - 1))};
}

__global__ void __launch_bounds__(kThreads)
    standardize_kernel(Matrix embedding, float* mean, float* std) {
  const RowStats stats = row_stats(embedding.data + blockIdx.x * embedding.dim, embedding.dim);
  if (threadIdx.x != 0) return;
  mean[blockIdx.x] = static_cast<float>(stats.mean);
  std[blockIdx.x] = static_cast<float>(stats.deviation + kStdEpsilon);
}

// centred = (x - mean) / std - centre
__global__ void __launch_bounds__(kThreads)
    centre_kernel(Matrix embedding, StatsView stats, const float* centre, float* centred) {
  const int64_t b = blockIdx.x, dim = embedding.dim;
  const int64_t c = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  if (c >= dim) return;
  const float mean = stats.mean == nullptr ? 0.0f : stats.mean[b];
  const float std = stats.std == nullptr ? 1.0f : stats.std[b];
  centred[b * dim + c] = (embedding.data[b * dim + c] - mean) / std - centre[c];
}

// du becomes dx, through u = (x - mean) / std and through mean and std themselves.
__global__ void __launch_bounds__(kThreads, 4)
    through_stats_kernel(Matrix embedding, StatsView stats, const float* grad_mean,
                         const float* grad_std, float* du) {
  const int64_t b = blockIdx.x, dim = embedding.dim;
  const float* const x = embedding.data + b * dim;
  const float mean = stats.mean[b], std = stats.std[b];
  double sum = 0.0, along = 0.0;  // sum du, sum du * u
  for (int64_t c = threadIdx.x; c < dim; c += kThreads) {
    sum += du[b * dim + c];
    along += double{du[b * dim + c]} * ((x[c] - mean) / std);
  }
  sum = block_sum(sum);
  along = block_sum(along);
  const double from_mean = grad_mean == nullptr ? 0.0 : grad_mean[b];
  const double from_std = grad_std == nullptr ? 0.0 : grad_std[b];
  const double to_mean = (from_mean - sum / std) / static_cast<double>(dim);
  double to_std = 0.0;  // a constant row's deviation has no slope; one dimension has none to have
  if (dim > 1) {
    const double deviation = row_stats(x, dim).deviation;
    const double n = static_cast<double>(dim - 1);
    if (deviation > 0.0) to_std = (from_std - along / std) / (n * deviation);
  }
  for (int64_t c = threadIdx.x; c < dim; c += kThreads) {
    float& of = du[b * dim + c];
    of = static_cast<float>(of / std + to_mean + to_std * (x[c] - mean));
  }
}

Status centre_rows(const Matrix& embedding, const StatsView& stats, const float* centre,
                   float* centred, void* stream) {
  return launch(centre_kernel, {embedding.n_rows, divide_up(embedding.dim, kThreads), kThreads, 0},
                stream, embedding, stats, centre, centred);
}

struct BackwardPlan {
  float *centred, *du;
  Grouped by_latent;
  int64_t bytes;
};

BackwardPlan backward_plan(void* base, int64_t n_rows, int64_t dim, int64_t n_latents, int64_t k) {
  Workspace workspace(base);
  BackwardPlan plan;
  plan.centred = workspace.take<float>(n_rows * dim);
  plan.du = workspace.take<float>(n_rows * dim);
  plan.by_latent = take_grouped(workspace, n_rows * k, n_latents);
  plan.bytes = workspace.bytes();
  return plan;
}

Status encoder_grads(const Matrix& embedding, const Matrix& encoder, const float* centre,
                     const CodeView& code, const StatsView& stats, const TopkEncodeGrads& grads,
                     const BackwardPlan& plan, void* stream) {
  Status status = group({code.n_rows * code.k, encoder.n_rows, nullptr, code.n_rows, code.k,
                         code.indices, grads.values, nullptr},
                        plan.by_latent, stream);
  if (grads.bias != nullptr && status == Status::kOk) {
    status = weight_sums(plan.by_latent, encoder.n_rows, grads.bias, stream);
  }
  if (grads.encoder == nullptr || status != Status::kOk) return status;
  status = centre_rows(embedding, stats, centre, plan.centred, stream);
  if (status != Status::kOk) return status;
  return gather({plan.centred,
                 embedding.n_rows,
                 encoder.dim,
                 encoder.n_rows,
                 plan.by_latent.starts,
                 0,
                 plan.by_latent.rows,
                 plan.by_latent.weights,
                 nullptr,
                 {},
                 grads.encoder},
                stream);
}

}  // namespace

Status standardise(const Matrix& embedding, const float* centre, float* mean, float* std,
                   float* centred, void* stream) {
  if (mean != nullptr) {
    const Status status = launch(standardize_kernel, {embedding.n_rows, 1, kThreads, 0}, stream,
                                 embedding, mean, std);
    if (status != Status::kOk) return status;
  }
  return centre_rows(embedding, {mean, std}, centre, centred, stream);
}

int64_t topk_encode_bytes(int64_t n_rows, int64_t dim, int64_t n_latents, int64_t k,
                          Precision precision) {
  Workspace workspace(nullptr);
  workspace.take<float>(n_rows * dim);
  take_top_scan(workspace, n_rows, dim, n_latents, k, precision);
  return workspace.bytes();
}

Status topk_encode(const Matrix& embedding, const Matrix& encoder, const float* bias,
                   const float* centre, const CodeOut& code, float* mean, float* std,
                   Precision precision, const Execution& execution) {
  void* const stream = execution.stream;
  Workspace workspace(execution.workspace);
  float* const centred = workspace.take<float>(embedding.n_rows * embedding.dim);
  const Status status = standardise(embedding, centre, mean, std, centred, stream);
  if (status != Status::kOk) return status;
  const Matrix queries{centred, embedding.n_rows, embedding.dim};
  return top_scan({queries, encoder, bias, nullptr, nullptr, nullptr, 0.0f, 0.0f}, code, precision,
                  workspace, stream);
}

int64_t topk_encode_backward_bytes(int64_t n_rows, int64_t dim, int64_t n_latents, int64_t k) {
  return backward_plan(nullptr, n_rows, dim, n_latents, k).bytes;
}

Status topk_encode_backward(const Matrix& embedding, const Matrix& encoder, const float* centre,
                            const CodeView& code, const StatsView& stats,
                            const TopkEncodeGrads& grads, const Execution& execution) {
  void* const stream = execution.stream;
  const int64_t n = embedding.n_rows, dim = embedding.dim;
  const BackwardPlan plan = backward_plan(execution.workspace, n, dim, encoder.n_rows, code.k);
  float* const du = grads.embedding == nullptr ? plan.du : grads.embedding;
  Status status = Status::kOk;
  if (grads.embedding != nullptr || grads.centre != nullptr) {
    status = gather({encoder.data,
                     encoder.n_rows,
                     dim,
                     n,
                     nullptr,
                     code.k,
                     code.indices,
                     grads.values,
                     nullptr,
                     {},
                     du},
                    stream);
  }
  if ((grads.encoder != nullptr || grads.bias != nullptr) && status == Status::kOk) {
    status = encoder_grads(embedding, encoder, centre, code, stats, grads, plan, stream);
  }
  if (grads.centre != nullptr && status == Status::kOk) {
    status = column_sums({du, n, dim}, nullptr, -1.0f, grads.centre, stream);
  }
  if (grads.embedding == nullptr || stats.std == nullptr || status != Status::kOk) return status;
  return launch(through_stats_kernel, {n, 1, kThreads, 0}, stream, embedding, stats, grads.mean,
                grads.std, du);
}

}  // namespace cfsae::cuda
