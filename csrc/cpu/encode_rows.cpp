// out[b] = bias + sum_j value_j * weight[item_j]: the first layer of every CFAE as a gather-sum, so
// that a dense (B, I) input never exists. Backward gathers too, item by item.
#include <algorithm>
#include <cstring>

#include "api.h"
#include "cpu/grouped.h"
#include "cpu/scratch.h"
#include "parallel.h"

namespace cfsae::cpu {
namespace {

constexpr int64_t kRowsPerTask = 16;
constexpr int64_t kColumnsPerTask = 256;  // of one row alone

int64_t n_entries(const RowsView& rows) { return rows.offsets[rows.n_rows] - rows.offsets[0]; }

template <typename Body>
void for_each_row(const RowsView& rows, int64_t dim, int threads, const Body& body) {
  const int64_t n_tasks = (rows.n_rows + kRowsPerTask - 1) / kRowsPerTask;
  const int workers = workers_for((n_entries(rows) + rows.n_rows) * dim, threads);
  parallel_for(n_tasks, workers, [&](int64_t task, int) {
    const int64_t last = std::min(rows.n_rows, (task + 1) * kRowsPerTask);
    for (int64_t b = task * kRowsPerTask; b < last; ++b) {
      body(b, rows.offsets[b], rows.offsets[b + 1] - rows.offsets[b]);
    }
  });
}

Grouped group_by_item(const RowsView& rows, int64_t n_items) {
  int64_t row = 0;
  const int64_t first = rows.offsets[0];
  return Grouped(n_items, n_entries(rows), [&](int64_t j) {
    if (j == 0) row = 0;  // entries are visited in order, twice
    while (first + j >= rows.offsets[row + 1]) ++row;
    const float value = rows.values == nullptr ? 1.0f : rows.values[first + j];
    return Entry{row, rows.items[first + j], value};
  });
}

}  // namespace

Status encode_rows(const RowsView& rows, const Matrix& weight, const float* bias, float* out,
                   const Execution& execution) {
  const Kernels& k = kernels(execution.isa);
  const int64_t dim = weight.dim;
  const auto add_columns = [&](int64_t b, int64_t from, int64_t width) {
    const int64_t first = rows.offsets[b], n = rows.offsets[b + 1] - first;
    float* const sum = out + b * dim + from;
    if (bias == nullptr) {
      std::fill_n(sum, width, 0.0f);
    } else {
      std::memcpy(sum, bias + from, width * sizeof(float));
    }
    const float* const values = rows.values == nullptr ? nullptr : rows.values + first;
    k.gather_sum(weight.data + from, dim, width, rows.items + first, values, n, sum);
  };
  return guarded([&] {
    if (rows.n_rows == 1) {
      const int64_t bytes = n_entries(rows) * dim * static_cast<int64_t>(sizeof(float));
      const Crew crew = crew_for_reading(bytes, execution.threads);
      parallel_for((dim + kColumnsPerTask - 1) / kColumnsPerTask, crew.workers,
                   [&](int64_t task, int) {
                     const int64_t from = task * kColumnsPerTask;
                     add_columns(0, from, std::min(kColumnsPerTask, dim - from));
                   },
                   crew.wake);
      return;
    }
    for_each_row(rows, dim, execution.threads,
                 [&](int64_t b, int64_t, int64_t) { add_columns(b, 0, dim); });
  });
}

Status encode_rows_backward(const RowsView& rows, const Matrix& weight, const Matrix& grad,
                            float* grad_weight, float* grad_bias, float* grad_values,
                            const Execution& execution) {
  return guarded([&] {
    if (grad_weight != nullptr) {
      group_by_item(rows, weight.n_rows).gather(grad, grad_weight, execution);
    }
    if (grad_bias != nullptr) column_sums(grad, nullptr, grad_bias, execution);
    if (grad_values == nullptr) return;
    const Kernels& k = kernels(execution.isa);
    for_each_row(rows, weight.dim, execution.threads, [&](int64_t b, int64_t first, int64_t n) {
      k.gather_dots(weight.data, weight.dim, rows.items + first, n, grad.row(b),
                    grad_values + first);
    });
  });
}

Status add_item_grads(const RowsView& rows, const Matrix& grad, int64_t n_items, float* grad_weight,
                      const Execution& execution) {
  return guarded([&] { group_by_item(rows, n_items).add(grad, grad_weight, execution); });
}

}  // namespace cfsae::cpu
