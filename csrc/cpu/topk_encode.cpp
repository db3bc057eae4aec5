// Standardise, subtract the centre, multiply, ReLU and top-k in one pass over tiles of the encoder.
// Backward reads and writes the kept latents only, and goes through values, mean and std.
#include <algorithm>

#include "api.h"
#include "cpu/grouped.h"
#include "cpu/scratch.h"
#include "cpu/standardise.h"
#include "cpu/top_scan.h"
#include "parallel.h"

namespace cfsae::cpu {
namespace {

constexpr int64_t kRowsPerTask = 16;

template <typename Body>
void for_each_row(int64_t n_rows, int64_t operations_per_row, int threads, const Body& body) {
  const int64_t n_tasks = (n_rows + kRowsPerTask - 1) / kRowsPerTask;
  const int workers = workers_for(n_rows * operations_per_row, threads);
  parallel_for(n_tasks, workers, [&](int64_t task, int) {
    const int64_t last = std::min(n_rows, (task + 1) * kRowsPerTask);
    for (int64_t b = task * kRowsPerTask; b < last; ++b) body(b);
  });
}

// du becomes dx, through u = (x - mean) / std and through mean and std themselves.
void through_stats(const float* x, float mean, float std, float grad_mean, float grad_std,
                   int64_t dim, float* du) {
  double sum = 0.0, along = 0.0;  // sum du, sum du * u
  for (int64_t c = 0; c < dim; ++c) {
    sum += du[c];
    along += double{du[c]} * ((x[c] - mean) / std);
  }
  const double to_mean = (grad_mean - sum / std) / static_cast<double>(dim);
  double to_std = 0.0;  // a constant row's deviation has no slope; one dimension has none to have
  if (dim > 1) {
    const double deviation = row_stats(x, dim).deviation;
    const double n = static_cast<double>(dim - 1);
    if (deviation > 0.0) to_std = (grad_std - along / std) / (n * deviation);
  }
  for (int64_t c = 0; c < dim; ++c) {
    du[c] = static_cast<float>(du[c] / std + to_mean + to_std * (x[c] - mean));
  }
}

void encoder_grads(const Matrix& centred, const Matrix& encoder, const CodeView& code,
                   const TopkEncodeGrads& grads, const Execution& execution) {
  const Grouped kept(encoder.n_rows, code.n_rows * code.k, [&](int64_t j) {
    return Entry{j / code.k, code.indices[j], grads.values[j]};
  });
  if (grads.encoder != nullptr) kept.gather(centred, grads.encoder, execution);
  if (grads.bias != nullptr) kept.weight_sums(grads.bias);
}

}  // namespace

Status topk_encode(const Matrix& embedding, const Matrix& encoder, const float* bias,
                   const float* centre, const CodeOut& code, float* mean, float* std,
                   const Execution& execution) {
  return guarded([&] {
    const int64_t dim = embedding.dim;
    const Scratch<float> centred(embedding.n_rows * dim);
    for_each_row(embedding.n_rows, 4 * dim, execution.threads, [&](int64_t b) {
      if (mean != nullptr) {
        const RowStats stats = row_stats(embedding.row(b), dim);
        mean[b] = static_cast<float>(stats.mean);
        std[b] = static_cast<float>(stats.deviation + kStdEpsilon);
      }
      centre_row(embedding.row(b), mean == nullptr ? 0.0f : mean[b],
                 mean == nullptr ? 1.0f : std[b], centre, dim, centred.data() + b * dim);
    });
    const Matrix queries{centred.data(), embedding.n_rows, dim};
    top_scan({queries, encoder, bias, nullptr, nullptr, 0.0f, 0.0f}, code, execution);
  });
}

Status topk_encode_backward(const Matrix& embedding, const Matrix& encoder, const float* centre,
                            const CodeView& code, const StatsView& stats,
                            const TopkEncodeGrads& grads, const Execution& execution) {
  return guarded([&] {
    const Kernels& k = kernels(execution.isa);
    const int64_t dim = embedding.dim, n = embedding.n_rows;
    const bool standardised = stats.std != nullptr;
    const Scratch<float> centred(n * dim), own(grads.embedding == nullptr ? n * dim : 0);
    float* const du = grads.embedding == nullptr ? own.data() : grads.embedding;
    for_each_row(n, (code.k + 4) * dim, execution.threads, [&](int64_t b) {
      centre_row(embedding.row(b), standardised ? stats.mean[b] : 0.0f,
                 standardised ? stats.std[b] : 1.0f, centre, dim, centred.data() + b * dim);
      std::fill_n(du + b * dim, dim, 0.0f);
      k.gather_sum(encoder.data, dim, dim, code.indices + b * code.k, grads.values + b * code.k,
                   code.k, du + b * dim);
    });
    encoder_grads({centred.data(), n, dim}, encoder, code, grads, execution);
    if (grads.centre != nullptr) {
      column_sums({du, n, dim}, nullptr, grads.centre, execution);
      for (int64_t c = 0; c < dim; ++c) grads.centre[c] = -grads.centre[c];
    }
    if (grads.embedding == nullptr || !standardised) return;
    for_each_row(n, 8 * dim, execution.threads, [&](int64_t b) {
      through_stats(embedding.row(b), stats.mean[b], stats.std[b],
                    grads.mean == nullptr ? 0.0f : grads.mean[b],
                    grads.std == nullptr ? 0.0f : grads.std[b], dim, du + b * dim);
    });
  });
}

}  // namespace cfsae::cpu
