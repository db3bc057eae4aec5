// Gathers over grouped entries, and the column sums that bias gradients need.
#include "cpu/grouped.h"

#include <algorithm>

#include "parallel.h"

namespace cfsae::cpu {

void Grouped::gather(const Matrix& table, float* out, const Execution& execution) const {
  gather(table, false, out, execution);
}

void Grouped::add(const Matrix& table, float* out, const Execution& execution) const {
  gather(table, true, out, execution);
}

void Grouped::gather(const Matrix& table, bool onto, float* out, const Execution& execution) const {
  constexpr int64_t kTargetsPerTask = 64;
  const Kernels& k = kernels(execution.isa);
  const int64_t touched = static_cast<int64_t>(rows_.size());
  const int64_t n_tasks = (n_targets() + kTargetsPerTask - 1) / kTargetsPerTask;
  const int workers = workers_for((touched + n_targets()) * table.dim, execution.threads);
  parallel_for(n_tasks, workers, [&](int64_t task, int) {
    const int64_t last = std::min(n_targets(), (task + 1) * kTargetsPerTask);
    for (int64_t t = task * kTargetsPerTask; t < last; ++t) {
      float* const sum = out + t * table.dim;
      if (!onto) std::fill_n(sum, table.dim, 0.0f);
      k.gather_sum(table.data, table.dim, table.dim, rows_.data() + starts_[t],
                   weights_.data() + starts_[t], starts_[t + 1] - starts_[t], sum);
    }
  });
}

void Grouped::weight_sums(float* out) const {
  for (int64_t t = 0; t < n_targets(); ++t) {
    float sum = 0.0f;
    for (int64_t j = starts_[t]; j < starts_[t + 1]; ++j) sum += weights_[j];
    out[t] = sum;
  }
}

void column_sums(const Matrix& table, const float* weights, float* out,
                 const Execution& execution) {
  constexpr int64_t kColumnsPerTask = 64;
  const Kernels& k = kernels(execution.isa);
  const int64_t n_tasks = (table.dim + kColumnsPerTask - 1) / kColumnsPerTask;
  const int workers = workers_for(table.n_rows * table.dim, execution.threads);
  parallel_for(n_tasks, workers, [&](int64_t task, int) {
    const int64_t first = task * kColumnsPerTask;
    const int64_t width = std::min(kColumnsPerTask, table.dim - first);
    std::fill_n(out + first, width, 0.0f);
    k.gather_sum(table.data + first, table.dim, width, nullptr, weights, table.n_rows, out + first);
  });
}

}  // namespace cfsae::cpu
