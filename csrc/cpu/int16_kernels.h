// The inner loops of int16_product, compiled once per instruction set where that pays.
#pragma once

#include <cstdint>

#include "api.h"

namespace cfsae::cpu {

// Rows (of left; columns of right) of whole numbers, over up to kInt16Depth terms of the sum, two
// terms to a 32-bit lane. `width` rows make a panel, pair after pair: panel[pair * width + row].
// Missing rows and terms are 0.
inline constexpr int kInt16Left = 8, kInt16Right = 32, kInt16Depth = 256;
inline constexpr int kInt16Group = 32;  // rows that are packed together: whole panels of any width

// Lanes from one panel to the next; those behind a panel keep rows or panels of a power of two out
// of one another's cache sets.
constexpr int64_t int16_panel(int width) { return kInt16Depth / 2 * width + 16; }
constexpr int64_t int16_pairs(int64_t n_terms) { return (n_terms + 31) / 32 * 16; }

struct Int16Left {  // kInt16Left rows, as panels of 1 or one panel
  const int32_t* data;
  int64_t row_step, pair_step;
  const float* scales;
};

struct Int16Kernels {
  // Rows of `of` (n_rows, n_columns <= kInt16Depth) as panels, with groups filled up:
  // row = scale * q + rest, where the q of two rows multiply to less than 2^31.
  void (*pack)(const StridedMatrix& of, int width, int32_t* panels, float* scales);

  // out[r * stride + c] (+)= left scale_r * right scale_c * (q_r . q_c), kInt16Left x kInt16Right.
  void (*tile)(const Int16Left& left, const int32_t* right, const float* right_scales,
               int64_t n_pairs, bool add, float* out, int64_t stride);
};

const Int16Kernels& int16_kernels_baseline();
const Int16Kernels& int16_kernels_avx512vnni();

}  // namespace cfsae::cpu
