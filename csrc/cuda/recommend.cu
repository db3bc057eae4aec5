// Top-N of embedding @ items.T + bias without seen and disallowed items, by tiles.
#include <cmath>

#include "cuda/top_scan.h"

namespace cfsae::cuda {

int64_t recommend_bytes(int64_t n_rows, int64_t dim, int64_t n_items, int64_t n,
                        Precision precision) {
  Workspace workspace(nullptr);
  take_top_scan(workspace, n_rows, dim, n_items, n, precision);
  return workspace.bytes();
}

Status recommend(const Matrix& embedding, const Matrix& items, const float* bias,
                 const RowsView* seen, const uint8_t* allowed, const CodeOut& out,
                 Precision precision, const Execution& execution) {
  Workspace workspace(execution.workspace);
  const TopScan scan{embedding,
                     items,
                     bias,
                     allowed,
                     seen == nullptr ? nullptr : seen->offsets,
                     seen == nullptr ? nullptr : seen->items,
                     -HUGE_VALF,
                     -HUGE_VALF};
  return top_scan(scan, out, precision, workspace, execution.stream);
}

}  // namespace cfsae::cuda
