// Gather: a block per output row and 512 columns; threads stride over columns, so that each table
// row is read in full lines, four floats a thread where alignment allows.
#include "cuda/gather.h"
#include "cuda/reduce.h"

namespace cfsae::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kProductThreads = 256;
constexpr int kSumColumns = 32, kSumRows = 8;  // a block of column_sums

template <int kVector>
struct Vector {
  float at[kVector];
};

template <int kVector>
__device__ __forceinline__ Vector<kVector> load(const float* from) {
  if constexpr (kVector == 4) {
    const float4 four = load4(from);
    return {{four.x, four.y, four.z, four.w}};
  } else {
    return {{*from}};
  }
}

template <int kVector>
__device__ __forceinline__ void store(float* to, const Vector<kVector>& value) {
  if constexpr (kVector == 4) {
    store4(to, make_float4(value.at[0], value.at[1], value.at[2], value.at[3]));
  } else {
    *to = value.at[0];
  }
}

template <int kVector>
__global__ void __launch_bounds__(kThreads) gather_kernel(Gather g) {
  const int64_t t = blockIdx.x;
  const int64_t column = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * kVector;
  if (column >= g.dim) return;
  const int64_t first = g.offsets == nullptr ? t * g.width : g.offsets[t];
  const int64_t last = g.offsets == nullptr ? first + g.width : g.offsets[t + 1];
  Vector<kVector> sum{};
  if (g.bias != nullptr) {
    for (int v = 0; v < kVector; ++v) sum.at[v] = g.bias[column + v];
  }
#pragma unroll 4
  for (int64_t j = first; j < last; ++j) {
    const int64_t id = g.ids[j];
    if (!is_row(id, g.n_table)) continue;
    const float weight = g.weights == nullptr ? 1.0f : g.weights[j];
    const Vector<kVector> row = load<kVector>(g.table + id * g.dim + column);
    for (int v = 0; v < kVector; ++v) sum.at[v] += weight * row.at[v];
  }
  if (g.stats.std != nullptr) {
    const float mean = g.stats.mean[t], std = g.stats.std[t];
    for (int v = 0; v < kVector; ++v) sum.at[v] = mean + std * sum.at[v];
  }
  store<kVector>(g.out + t * g.dim + column, sum);
}

__global__ void __launch_bounds__(kProductThreads) products_kernel(Products p) {
  const int64_t b = blockIdx.x;
  const int64_t first = p.offsets == nullptr ? b * p.width : p.offsets[b];
  const int64_t last = p.offsets == nullptr ? first + p.width : p.offsets[b + 1];
  const int lane = threadIdx.x % kWarpSize;
  for (int64_t j = first + threadIdx.x / kWarpSize; j < last; j += kProductThreads / kWarpSize) {
    const int64_t id = p.ids[j];  // the same for the whole warp
    const float scale = p.scale == nullptr ? 1.0f : p.scale[b];
    const float dot =
        is_row(id, p.n_table) ? warp_dot(p.table + id * p.dim, p.queries + b * p.dim, p.dim) : 0.0f;
    if (lane == 0) p.out[j] = scale * dot;
  }
}

struct ColumnSums {
  float of[kSumRows][kSumColumns];
};

// Row r of the block's threads sums table rows r, r + 8, ...; the eight sums are added in order.
__global__ void __launch_bounds__(kSumColumns* kSumRows)
    column_sums_kernel(Matrix table, const float* weights, float scale, float* out) {
  ColumnSums& sums = block_shared<ColumnSums>();
  const int c = threadIdx.x % kSumColumns, r = threadIdx.x / kSumColumns;
  const int64_t column = int64_t{blockIdx.x} * kSumColumns + c;
  float sum = 0.0f;
  if (column < table.dim) {
    for (int64_t b = r; b < table.n_rows; b += kSumRows) {
      sum += (weights == nullptr ? 1.0f : weights[b]) * table.data[b * table.dim + column];
    }
  }
  sums.of[r][c] = sum;
  __syncthreads();
  if (r != 0 || column >= table.dim) return;
  for (int other = 1; other < kSumRows; ++other) sum += sums.of[other][c];
  out[column] = scale * sum;
}

}  // namespace

Status gather(const Gather& g, void* stream) {
  const bool vectors = is_vectorizable(g.table, g.dim) && is_vectorizable(g.out, g.dim);
  const int64_t tiles = divide_up(g.dim, kThreads * (vectors ? 4 : 1));
  return launch(vectors ? gather_kernel<4> : gather_kernel<1>, {g.n_out, tiles, kThreads, 0},
                stream, g);
}

Status products(const Products& p, void* stream) {
  return launch(products_kernel, {p.n_rows, 1, kProductThreads, 0}, stream, p);
}

Status column_sums(const Matrix& table, const float* weights, float scale, float* out,
                   void* stream) {
  return launch(column_sums_kernel,
                {divide_up(table.dim, kSumColumns), 1, kSumColumns * kSumRows, 0}, stream, table,
                weights, scale, out);
}

}  // namespace cfsae::cuda
