// int16_product with VNNI: 32 products and their sums an instruction, twice as many as in fp32.
#include <immintrin.h>

#include "cpu/int16_kernels_template.h"

namespace cfsae::cpu {
namespace {

// sums += pairs * two, both terms of each lane. As in kernels_avx512vnni.cpp, no intrinsic.
inline void multiply_add(__m512i& sums, __m512i pairs, __m512i two) {
  asm("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(pairs), "v"(two));
}

template <int64_t RowStep, int64_t PairStep>
void multiply_steps(const Int16Left& left, const int32_t* right, const float* right_scales,
                    int64_t n_pairs, bool add, float* out, int64_t stride) {
  constexpr int kVectors = kInt16Right / 16;
  const int32_t* two = left.data;
  __m512i sums[kInt16Left][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kInt16Left; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      __builtin_prefetch(out + r * stride + 16 * v, 1);
      sums[r][v] = _mm512_setzero_si512();
    }
  }
  for (int64_t pair = 0; pair < n_pairs; ++pair, two += PairStep, right += kInt16Right) {
    __m512i values[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) values[v] = _mm512_loadu_si512(right + 16 * v);
#pragma GCC unroll 8
    for (int r = 0; r < kInt16Left; ++r) {
      const __m512i broadcast = _mm512_set1_epi32(two[r * RowStep]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) multiply_add(sums[r][v], values[v], broadcast);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kInt16Left; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      float* const to = out + r * stride + 16 * v;
      const __m512 scale =
          _mm512_mul_ps(_mm512_set1_ps(left.scales[r]), _mm512_loadu_ps(right_scales + 16 * v));
      const __m512 there = add ? _mm512_loadu_ps(to) : _mm512_setzero_ps();
      _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][v]), scale, there));
    }
  }
}

void multiply(const Int16Left& left, const int32_t* right, const float* right_scales,
              int64_t n_pairs, bool add, float* out, int64_t stride) {
  const auto run =
      left.row_step == 1 ? multiply_steps<1, kInt16Left> : multiply_steps<int16_panel(1), 1>;
  run(left, right, right_scales, n_pairs, add, out, stride);
}

}  // namespace

const Int16Kernels& int16_kernels_avx512vnni() {
  static constexpr Int16Kernels kKernels = {pack, multiply};
  return kKernels;
}

}  // namespace cfsae::cpu
