// The inner loops over int8 tables, compiled once per instruction set. What they give is only a
// screen: their rounding is inside the bound, and may differ between instruction sets.
#pragma once

#include <cstdint>

#include "api.h"

namespace cfsae::cpu {

inline constexpr int64_t kFoldedBlock = 64;  // columns that share a maximum

inline constexpr int kTerms = 4;

struct Term {
  const float* vector;  // null: nothing
  float factor;
};

struct QuadWeights {  // of four rows: 128 * high + low each, a byte of each to a row
  int32_t low, high;
  int32_t offset;  // -128 times the sum of the four
};
inline constexpr float kMostWeight = 127 * 128 + 127;

struct FoldedKernels {
  // sum[c] += sum_j weights[j] * rows[j][first + c], c < width.
  void (*gather_sum)(const int8_t* const* rows, const float* weights, int64_t n, int64_t first,
                     int64_t width, float* sum);

  // The same of 4 * n rows, weights as multiples of a unit. Null where the machine cannot multiply
  // bytes.
  void (*gather_quads)(const int8_t* const* rows, const QuadWeights* quads, int64_t n, float unit,
                       int64_t first, int64_t width, float* sum);

  // values[c] = scale * values[c] + sum of the terms; maxima[b] = the largest of block b.
  void (*finish)(float* values, int64_t n, float scale, const Term (&terms)[kTerms], float* maxima);

  // Of a block's n values those at or above the line, and their places: returns how many. There is
  // room for kFoldedBlock of each.
  int64_t (*collect)(const float* values, int64_t n, float line, int32_t* places, float* kept);
};

const FoldedKernels& folded_kernels(Isa isa);

const FoldedKernels& folded_kernels_baseline();
const FoldedKernels& folded_kernels_avx2();
const FoldedKernels& folded_kernels_avx512();
const FoldedKernels& folded_kernels_avx512vnni();

}  // namespace cfsae::cpu
