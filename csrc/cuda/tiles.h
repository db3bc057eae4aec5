// Products of a tile of queries with a tile of 128 rows, in shared memory: slices of 16 columns
// arrive by asynchronous copies, three deep; fp32 on the cores, tf32 or bf16 on the tensor cores.
// Rows of bf16 are copied two to a float: their slices hold 32 columns.
#pragma once

#include "cuda/platform.h"

namespace cfsae::cuda {

inline constexpr int kTileThreads = 256;
inline constexpr int kTileRows = 128;
inline constexpr int kSlice = 16, kSlicePitch = kSlice + 4;  // padded: no two lanes share a bank
inline constexpr int kStages = 3;
inline constexpr int kProductPitch = kTileRows + 4;

template <int kQueries>
constexpr int64_t tile_bytes() {  // the products take the place of the slices
  constexpr int64_t slices = int64_t{kStages} * (kQueries + kTileRows) * kSlicePitch;
  constexpr int64_t products = int64_t{kQueries} * kProductPitch;
  return most(slices, products) * static_cast<int64_t>(sizeof(float));
}

struct Tile {  // of queries and rows; beyond the matrices zeros are read
  Matrix queries, rows;
  int64_t first_query, first_row;
  bool vectors;  // 16 bytes a copy
};

template <int kChunk>
__device__ __forceinline__ void copy_rows(const Matrix& from, int64_t first, int n_rows,
                                          int64_t column, float* to) {
  constexpr int kPerRow = kSlice / kChunk;
  for (int i = threadIdx.x; i < n_rows * kPerRow; i += kTileThreads) {
    const int r = i / kPerRow, c = i % kPerRow * kChunk;
    const bool outside = first + r >= from.n_rows || column + c >= from.dim;
    const float* const source =
        outside ? from.data : from.data + (first + r) * from.dim + column + c;
    copy_async(to + r * kSlicePitch + c, source, kChunk * 4, outside);
  }
}

// Queues the copies of slice s into its stage; a slice beyond the last one is an empty group.
template <int kQueries>
__device__ __forceinline__ void copy_slice(const Tile& tile, int64_t s, float* stages) {
  float* const stage = stages + s % kStages * (kQueries + kTileRows) * kSlicePitch;
  const int64_t column = s * kSlice;
  float* const rows = stage + kQueries * kSlicePitch;
  if (column < tile.rows.dim) {
    if (tile.vectors) {
      copy_rows<4>(tile.queries, tile.first_query, kQueries, column, stage);
      copy_rows<4>(tile.rows, tile.first_row, kTileRows, column, rows);
    } else {
      copy_rows<1>(tile.queries, tile.first_query, kQueries, column, stage);
      copy_rows<1>(tile.rows, tile.first_row, kTileRows, column, rows);
    }
  }
  commit_copies();
}

// fp32 on the cores: thread (y, x) of 16 x 16 has queries y, y + 16, ... and rows x, x + 16, ...
template <int kQueries>
struct Fp32Product {
  static constexpr int kOwnQueries = kQueries / 16, kOwnRows = kTileRows / 16;
  float sums[kOwnQueries][kOwnRows];

  __device__ void clear() {
    for (auto& of_query : sums) {
      for (float& sum : of_query) sum = 0.0f;
    }
  }
  __device__ void add(const float* queries, const float* rows) {
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll 1  // four columns at a time; more would spill
    for (int c = 0; c < kSlice; c += 4) {
      float4 q[kOwnQueries];
#pragma unroll
      for (int i = 0; i < kOwnQueries; ++i) q[i] = load4(queries + (y + 16 * i) * kSlicePitch + c);
#pragma unroll
      for (int j = 0; j < kOwnRows; ++j) {
        const float4 r = load4(rows + (x + 16 * j) * kSlicePitch + c);
#pragma unroll
        for (int i = 0; i < kOwnQueries; ++i) {
          sums[i][j] += q[i].x * r.x;
          sums[i][j] += q[i].y * r.y;
          sums[i][j] += q[i].z * r.z;
          sums[i][j] += q[i].w * r.w;
        }
      }
    }
  }
  __device__ void store(float* products) const {
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < kOwnQueries; ++i) {
#pragma unroll
      for (int j = 0; j < kOwnRows; ++j) {
        products[(y + 16 * i) * kProductPitch + x + 16 * j] = sums[i][j];
      }
    }
  }
};

struct Tf32Form {  // how a tensor core takes its operands
  using Stored = float;
  using Element = nvcuda::wmma::precision::tf32;
  static constexpr int kDepth = 8, kColumns = kSlice;
  template <typename Operand>
  __device__ __forceinline__ static void round(Operand& operand) {
#pragma unroll
    for (int e = 0; e < Operand::num_elements; ++e) {
      operand.x[e] = nvcuda::wmma::__float_to_tf32(operand.x[e]);
    }
  }
};

struct Bf16Form {  // rounded when the copy was made
  using Stored = Bf16;
  using Element = Bf16;
  static constexpr int kDepth = 16, kColumns = 2 * kSlice;
  template <typename Operand>
  __device__ __forceinline__ static void round(Operand&) {}
};

// On the tensor cores: eight warps of 32 x 32 products, two by two tiles of 16.
template <int kQueries, typename Form>
struct TensorProduct {
  static constexpr int kPart = 32, kAcross = kTileRows / kPart, kDepth = Form::kDepth;
  static constexpr int kPitch = kSlicePitch * Form::kColumns / kSlice;  // in stored elements
  static_assert(kQueries / kPart * kAcross == kTileThreads / kWarpSize, "a part for every warp");
  using Sum = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, kDepth, float>;
  using Query = nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, kDepth,
                                       typename Form::Element, nvcuda::wmma::row_major>;
  using Row = nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, kDepth, typename Form::Element,
                                     nvcuda::wmma::col_major>;
  Sum sums[2][2];

  __device__ static int first_query() { return threadIdx.x / kWarpSize / kAcross * kPart; }
  __device__ static int first_row() { return threadIdx.x / kWarpSize % kAcross * kPart; }

  __device__ void clear() {
    for (auto& of_query : sums) {
      for (Sum& sum : of_query) nvcuda::wmma::fill_fragment(sum, 0.0f);
    }
  }
  template <typename Operand>
  __device__ static void load(Operand& operand, const float* slice, int first, int column) {
    const auto* const stored = reinterpret_cast<const typename Form::Stored*>(slice);
    nvcuda::wmma::load_matrix_sync(operand, stored + first * kPitch + column, kPitch);
    Form::round(operand);
  }
  __device__ void add(const float* queries, const float* rows) {
#pragma unroll
    for (int c = 0; c < Form::kColumns; c += kDepth) {
      Query q[2];
      Row r[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        load(q[i], queries, first_query() + 16 * i, c);
        load(r[i], rows, first_row() + 16 * i, c);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < 2; ++j) nvcuda::wmma::mma_sync(sums[i][j], q[i], r[j], sums[i][j]);
      }
    }
  }
  __device__ void store(float* products) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        nvcuda::wmma::store_matrix_sync(
            products + (first_query() + 16 * i) * kProductPitch + first_row() + 16 * j, sums[i][j],
            kProductPitch, nvcuda::wmma::mem_row_major);
      }
    }
  }
};

template <int kQueries>
struct Tf32Product : TensorProduct<kQueries, Tf32Form> {};
template <int kQueries>
struct Bf16Product : TensorProduct<kQueries, Bf16Form> {};

// Leaves products[query][row] (pitch kProductPitch) where the slices were. Ends with a barrier.
template <int kQueries, typename Product>
__device__ __forceinline__ void multiply_tile(const Tile& tile, float* shared) {
  const int64_t n_slices = divide_up(tile.rows.dim, kSlice);
  Product product;
  product.clear();
  for (int s = 0; s < kStages - 1; ++s) copy_slice<kQueries>(tile, s, shared);
  for (int64_t s = 0; s < n_slices; ++s) {
    wait_for_copies<kStages - 2>();
    __syncthreads();  // slice s is here for all, and all are done with slice s - 1
    copy_slice<kQueries>(tile, s + kStages - 1, shared);
    const float* const stage = shared + s % kStages * (kQueries + kTileRows) * kSlicePitch;
    product.add(stage, stage + kQueries * kSlicePitch);
  }
  __syncthreads();  // all slices have been waited for, and now all threads are done with them
  product.store(shared);
  __syncthreads();
}

}  // namespace cfsae::cuda
