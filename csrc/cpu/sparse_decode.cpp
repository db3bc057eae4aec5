// out[b] = mean + std * (bias + sum_j values[b, j] * dictionary[indices[b, j]]), one row at a time.
// Backward: values and std share the products grad . atom; the dictionary's gradient is gathered
// latent by latent.
#include <algorithm>
#include <cstring>

#include "api.h"
#include "cpu/grouped.h"
#include "cpu/scratch.h"
#include "parallel.h"

namespace cfsae::cpu {
namespace {

constexpr int64_t kRowsPerTask = 16;

template <typename Body>
void for_each_row(const CodeView& code, int64_t dim, int threads, const Body& body) {
  const int64_t n_tasks = (code.n_rows + kRowsPerTask - 1) / kRowsPerTask;
  const int workers = workers_for(code.n_rows * (code.k + 1) * dim, threads);
  parallel_for(n_tasks, workers, [&](int64_t task, int) {
    const int64_t last = std::min(code.n_rows, (task + 1) * kRowsPerTask);
    for (int64_t b = task * kRowsPerTask; b < last; ++b) body(b);
  });
}

// From the products grad . atom of one row, already in `values` or a scratch row.
void finish_row(const CodeView& code, int64_t b, const float* bias, const StatsView& stats,
                const Matrix& grad, const SparseDecodeGrads& grads, float* products) {
  const float* const g = grad.row(b);
  const float* const value = code.values + b * code.k;
  if (grads.mean != nullptr) {
    double sum = 0.0;
    for (int64_t c = 0; c < grad.dim; ++c) sum += g[c];
    grads.mean[b] = static_cast<float>(sum);
  }
  if (grads.std != nullptr) {
    double sum = 0.0;
    if (bias != nullptr) {
      for (int64_t c = 0; c < grad.dim; ++c) sum += double{g[c]} * bias[c];
    }
    for (int64_t j = 0; j < code.k; ++j) sum += double{value[j]} * products[j];
    grads.std[b] = static_cast<float>(sum);
  }
  if (stats.std == nullptr) return;
  for (int64_t j = 0; j < code.k; ++j) products[j] *= stats.std[b];
}

}  // namespace

Status sparse_decode(const CodeView& code, const Matrix& dictionary, const float* bias,
                     const StatsView& stats, float* out, const Execution& execution) {
  return guarded([&] {
    const Kernels& k = kernels(execution.isa);
    const int64_t dim = dictionary.dim;
    for_each_row(code, dim, execution.threads, [&](int64_t b) {
      float* const sum = out + b * dim;
      if (bias == nullptr) {
        std::fill_n(sum, dim, 0.0f);
      } else {
        std::memcpy(sum, bias, dim * sizeof(float));
      }
      k.gather_sum(dictionary.data, dim, dim, code.indices + b * code.k, code.values + b * code.k,
                   code.k, sum);
      if (stats.std == nullptr) return;
      const float mean = stats.mean[b], std = stats.std[b];
      for (int64_t c = 0; c < dim; ++c) sum[c] = mean + std * sum[c];
    });
  });
}

Status sparse_decode_backward(const CodeView& code, const Matrix& dictionary, const float* bias,
                              const StatsView& stats, const Matrix& grad,
                              const SparseDecodeGrads& grads, const Execution& execution) {
  return guarded([&] {
    const Kernels& k = kernels(execution.isa);
    const Scratch<float> own(grads.values == nullptr ? code.n_rows * code.k : 0);
    float* const products = grads.values == nullptr ? own.data() : grads.values;
    for_each_row(code, dictionary.dim, execution.threads, [&](int64_t b) {
      float* const row = products + b * code.k;
      k.gather_dots(dictionary.data, dictionary.dim, code.indices + b * code.k, code.k, grad.row(b),
                    row);
      finish_row(code, b, bias, stats, grad, grads, row);
    });
    if (grads.dictionary != nullptr) {
      const auto entry = [&](int64_t j) {
        const int64_t b = j / code.k;
        const float std = stats.std == nullptr ? 1.0f : stats.std[b];
        return Entry{b, code.indices[j], code.values[j] * std};
      };
      Grouped(dictionary.n_rows, code.n_rows * code.k, entry)
          .gather(grad, grads.dictionary, execution);
    }
    if (grads.bias != nullptr) column_sums(grad, stats.std, grads.bias, execution);
  });
}

}  // namespace cfsae::cpu
