// out[t] = mean + std * (bias + sum_j weight_j * table[id_j]): the one shape behind encode_rows,
// sparse_decode and every backward pass, which gathers where others scatter.
#pragma once

#include "cuda/platform.h"

namespace cfsae::cuda {

struct Gather {
  const float* table;  // (n_table, dim)
  int64_t n_table, dim, n_out;
  const int64_t* offsets;  // entries of t: offsets[t] .. offsets[t + 1]; null: t * width and width
  int64_t width;
  const int32_t* ids;    // one that is no row of the table is skipped
  const float* weights;  // null: all 1
  const float* bias;     // null: 0
  StatsView stats;       // null: mean 0, std 1
  float* out;            // (n_out, dim)
};

// Whether `id` is a row of a table; kPadding is none.
__device__ __forceinline__ bool is_row(int64_t id, int64_t n_table) {
  return static_cast<uint64_t>(id) < static_cast<uint64_t>(n_table);
}

Status gather(const Gather& gather, void* stream);

// products[j] = scale * (table[id_j] . query of j's row), entries as in Gather; 0 for padding.
struct Products {
  const float *table, *queries;  // (n_table, dim), (n_rows, dim)
  int64_t n_table, dim, n_rows;
  const int64_t* offsets;
  int64_t width;
  const int32_t* ids;
  const float* scale;  // per row; null: 1
  float* out;
};

Status products(const Products& products, void* stream);

// out[c] = scale * sum_b weights[b] * table[b][c], in the order of b; null weights are 1.
Status column_sums(const Matrix& table, const float* weights, float scale, float* out,
                   void* stream);

}  // namespace cfsae::cuda
