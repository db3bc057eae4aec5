// To nearest even; NaN and infinity stay what they are.
#include "cuda/rounded.h"
#include "cuda/tiles.h"

namespace cfsae::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kColumns = 2 * kSlice;  // bf16 of a slice

__global__ void __launch_bounds__(kThreads) round_kernel(Matrix from, Bf16* to, int64_t width) {
  const int64_t row = blockIdx.x, column = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  if (column >= width) return;
  const float value = column < from.dim ? from.data[row * from.dim + column] : 0.0f;
  to[row * width + column] = __float2bfloat16_rn(value);
}

}  // namespace

Matrix take_rounded(Workspace& workspace, int64_t n_rows, int64_t dim) {
  const int64_t floats = divide_up(dim, kColumns) * kSlice;
  return {workspace.take<float>(n_rows * floats), n_rows, floats};
}

Status round_matrix(const Matrix& from, const Matrix& to, void* stream) {
  const int64_t width = 2 * to.dim;
  return launch(round_kernel, {from.n_rows, divide_up(width, kThreads), kThreads, 0}, stream, from,
                reinterpret_cast<Bf16*>(const_cast<float*>(to.data)), width);
}

}  // namespace cfsae::cuda
