// out (B, I) = code @ products: what a live profile keeps of its code. A block per row and 128 or
// 512 columns.
#include "cuda/folded_sums.h"

namespace cfsae::cuda {
namespace {

constexpr int kThreads = 128;

template <int kVector>
__global__ void __launch_bounds__(kThreads) scores_kernel(Folded f, float* out) {
  const int64_t b = blockIdx.x, n = f.table.dim;
  const int64_t column = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * kVector;
  const Values<kVector> sum = gather_sum<kVector>(f, b, column);  // the whole warp
  if (column >= n) return;
  if constexpr (kVector == 4) {
    store4(out + b * n + column, make_float4(sum.at[0], sum.at[1], sum.at[2], sum.at[3]));
  } else {
    out[b * n + column] = sum.at[0];
  }
}

}  // namespace

Status folded_scores(const CodeView& code, const FoldedTable& products, float* out,
                     const Execution& execution) {
  const Folded f{products, nullptr, code.k,  code.indices, code.values,
                 {},       nullptr, nullptr, nullptr,      false};
  const bool vectors = reads_four(products) && is_vectorizable(out, products.dim);
  const int64_t columns = kThreads * (vectors ? 4 : 1);
  return launch(vectors ? scores_kernel<4> : scores_kernel<1>,
                {code.n_rows, divide_up(products.dim, columns), kThreads, 0}, execution.stream, f,
                out);
}

}  // namespace cfsae::cuda
