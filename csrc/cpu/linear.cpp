// x @ weight.T + bias, a block of the weight at a time for all rows of x. Each product is added up
// as dots does it, whatever the block and the batch: a row's result does not depend on the others.
#include <algorithm>

#include "api.h"
#include "cpu/kernels.h"
#include "cpu/scratch.h"
#include "parallel.h"

namespace cfsae::cpu {
namespace {

constexpr int64_t kBlockBytes = 128 << 10;  // of the weight: stays in L2 while x goes by
constexpr int64_t kQueries = 64;            // rows of x at a time

}  // namespace

Status linear(const Matrix& x, const Matrix& weight, const float* bias, float* out,
              const Execution& execution) {
  return guarded([&] {
    const Kernels& k = kernels(execution.isa);
    const int64_t row_bytes = std::max<int64_t>(1, weight.dim) * int64_t{sizeof(float)};
    const int64_t block = std::max<int64_t>(4, kBlockBytes / row_bytes / 4 * 4);
    const Crew crew =
        x.n_rows == 1
            ? crew_for_reading(weight.n_rows * row_bytes, execution.threads)
            : Crew{workers_for(x.n_rows * weight.n_rows * x.dim, execution.threads), Wake::kAlways};
    const auto multiply = [&](int64_t task, int) {
      const int64_t first = task * block, n = std::min(block, weight.n_rows - first);
      const Scratch<float> products(kQueries * n);
      for (int64_t b = 0; b < x.n_rows; b += kQueries) {
        const int64_t rows = std::min(kQueries, x.n_rows - b);
        k.dots(x.row(b), rows, weight.row(first), n, x.dim, products.data());
        for (int64_t r = 0; r < rows; ++r) {
          float* const to = out + (b + r) * weight.n_rows + first;
          for (int64_t c = 0; c < n; ++c) to[c] = products[r * n + c] + bias[first + c];
        }
      }
    };
    parallel_for((weight.n_rows + block - 1) / block, crew.workers, multiply, crew.wake);
  });
}

}  // namespace cfsae::cpu
