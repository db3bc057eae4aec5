// grad[r] -= (grad[r] . rows[r]) rows[r]: each row is read once, and stays in L1 between the
// product and the sum.
#include <algorithm>

#include "api.h"
#include "cpu/kernels.h"
#include "cpu/scratch.h"
#include "parallel.h"

namespace cfsae::cpu {

Status tangent_rows(const Matrix& rows, float* grad, const Execution& execution) {
  constexpr int64_t kRowsPerTask = 64;
  return guarded([&] {
    const Kernels& k = kernels(execution.isa);
    const int64_t dim = rows.dim, n_tasks = (rows.n_rows + kRowsPerTask - 1) / kRowsPerTask;
    const int workers = workers_for(2 * rows.n_rows * dim, execution.threads);
    parallel_for(n_tasks, workers, [&](int64_t task, int) {
      const int64_t last = std::min(rows.n_rows, (task + 1) * kRowsPerTask);
      for (int64_t r = task * kRowsPerTask; r < last; ++r) {
        float* const its = grad + r * dim;
        const float* const row = rows.row(r);
        const int32_t only = 0;
        float along;
        k.gather_dots(row, dim, &only, 1, its, &along);
        const float weight = -along;
        k.gather_sum(row, dim, dim, &only, &weight, 1, its);
      }
    });
  });
}

}  // namespace cfsae::cpu
