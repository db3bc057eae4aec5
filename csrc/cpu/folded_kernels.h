// The inner loops over int8 tables, compiled once per instruction set. What they give is only a
// screen: their rounding is inside the bound, and may differ between instruction sets.
#pragma once

#include <cstdint>

#include "api.h"

namespace cfsae::cpu {

inline constexpr int64_t kFoldedBlock = 64;  // columns that share a maximum

struct Term {
  const float* vector;  // null: nothing
  float factor;
};

struct FoldedKernels {
  // sum[c] += sum_j weights[j] * table[ids[j] * stride + c], c < width; negative ids are skipped.
  void (*gather_sum)(const int8_t* table, int64_t stride, int64_t width, const int32_t* ids,
                     const float* weights, int64_t n, float* sum);

  // values[c] = scale * values[c] + sum of the terms; maxima[b] = the largest of block b.
  void (*finish)(float* values, int64_t n, float scale, const Term (&terms)[3], float* maxima);
};

const FoldedKernels& folded_kernels(Isa isa);

const FoldedKernels& folded_kernels_baseline();
const FoldedKernels& folded_kernels_avx2();
const FoldedKernels& folded_kernels_avx512();

}  // namespace cfsae::cpu
