// The inner loops, compiled once per instruction set and chosen at run time.
#pragma once

#include <cstdint>

#include "api.h"

namespace cfsae::cpu {

struct Kernels {
  // A tile is block rows of a matrix against panel queries, both packed by interleaving:
  // packed[i * width + r] = rows[r * dim + i], missing rows 0.
  int panel, block;
  void (*pack_queries)(const float* rows, int64_t n_rows, int64_t dim, float* packed);
  void (*pack_rows)(const float* rows, int64_t n_rows, int64_t dim, float* packed);

  // out[r * panel + q] = bias[r] + row r . query q. Returns a bit per row that holds a value above
  // its query's floor; where no bit is set, out is not written. NaN is above nothing.
  uint32_t (*tile)(const float* queries, const float* rows, int64_t dim, const float* bias,
                   const float* floors, float* out);

  // out[q * n_rows + r] = query q . row r, for few queries: no packing.
  void (*dots)(const float* queries, int64_t n_queries, const float* rows, int64_t n_rows,
               int64_t dim, float* out);

  // sum[c] += sum_j weights[j] * table[ids[j] * stride + c], c < width, in the order of j. Negative
  // ids are skipped; null ids count 0, 1, 2 ...; null weights are 1.
  void (*gather_sum)(const float* table, int64_t stride, int64_t width, const int32_t* ids,
                     const float* weights, int64_t n, float* sum);

  // out[j] = vector . table[ids[j]], 0 where the id is negative.
  void (*gather_dots)(const float* table, int64_t dim, const int32_t* ids, int64_t n,
                      const float* vector, float* out);
};

const Kernels& kernels(Isa isa);  // kBest: the best that this machine supports

const Kernels& kernels_baseline();
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();

}  // namespace cfsae::cpu
