// out[b] = bias + sum_j value_j * weight[item_j]: the first layer of every CFAE as a gather-sum.
// Backward sorts the entries by item and gathers too, so that no float is added in random order.
#include "cuda/gather.h"
#include "cuda/grouped.h"

namespace cfsae::cuda {

Status encode_rows(const RowsView& rows, const Matrix& weight, const float* bias, float* out,
                   const Execution& execution) {
  return gather({weight.data,
                 weight.n_rows,
                 weight.dim,
                 rows.n_rows,
                 rows.offsets,
                 0,
                 rows.items,
                 rows.values,
                 bias,
                 {},
                 out},
                execution.stream);
}

int64_t encode_rows_backward_bytes(int64_t n_entries, int64_t n_items) {
  Workspace workspace(nullptr);
  take_grouped(workspace, n_entries, n_items);
  return workspace.bytes();
}

Status encode_rows_backward(const RowsView& rows, int64_t n_entries, const Matrix& weight,
                            const Matrix& grad, float* grad_weight, float* grad_bias,
                            float* grad_values, const Execution& execution) {
  void* const stream = execution.stream;
  Status status = Status::kOk;
  if (grad_weight != nullptr) {
    Workspace workspace(execution.workspace);
    const Grouped by_item = take_grouped(workspace, n_entries, weight.n_rows);
    status = group(
        {n_entries, weight.n_rows, rows.offsets, rows.n_rows, 0, rows.items, rows.values, nullptr},
        by_item, stream);
    if (status != Status::kOk) return status;
    status = gather({grad.data,
                     grad.n_rows,
                     grad.dim,
                     weight.n_rows,
                     by_item.starts,
                     0,
                     by_item.rows,
                     by_item.weights,
                     nullptr,
                     {},
                     grad_weight},
                    stream);
  }
  if (grad_bias != nullptr && status == Status::kOk) {
    status = column_sums(grad, nullptr, 1.0f, grad_bias, stream);
  }
  if (grad_values == nullptr || status != Status::kOk) return status;
  return products({weight.data, grad.data, weight.n_rows, grad.dim, rows.n_rows, rows.offsets, 0,
                   rows.items, nullptr, grad_values},
                  stream);
}

}  // namespace cfsae::cuda
