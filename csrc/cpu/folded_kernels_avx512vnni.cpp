// The folded kernels for AVX-512 with VNNI: a gather-sum that multiplies bytes, four rows to a
// lane.
#include <immintrin.h>

#include "cpu/folded_kernels_template.h"

namespace cfsae::cpu {
namespace {

// sums += rows * four, byte by byte in each lane. The intrinsic makes gcc 12 copy every
// accumulator.
inline void multiply_add(__m512i& sums, __m512i rows, __m512i four) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(rows), "v"(four));
}

// Bytes of rows without a sign (plus 128, which the weights' offset takes back): those of the
// columns below `mask`'s end, the others 0.
inline __m512i unsigned_bytes(const int8_t* from, __mmask64 mask) {
  return _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, from), _mm512_set1_epi8(-128));
}

struct Sums {  // of 64 columns; vector v holds columns 16 l + 4 v .. + 3 in its quarter l
  __m512i low[4], high[4];

  explicit Sums(int32_t offset) {
    for (int v = 0; v < 4; ++v) {
      low[v] = _mm512_set1_epi32(offset);
      high[v] = _mm512_setzero_si512();
    }
  }

  void add(const int8_t* const (&rows)[4], const QuadWeights& weights, __mmask64 mask) {
    const __m512i a = unsigned_bytes(rows[0], mask), b = unsigned_bytes(rows[1], mask);
    const __m512i c = unsigned_bytes(rows[2], mask), d = unsigned_bytes(rows[3], mask);
    const __m512i ab[2] = {_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b)};
    const __m512i cd[2] = {_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d)};
    const __m512i lows = _mm512_set1_epi32(weights.low), highs = _mm512_set1_epi32(weights.high);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const __m512i first = _mm512_unpacklo_epi16(ab[half], cd[half]);
      const __m512i second = _mm512_unpackhi_epi16(ab[half], cd[half]);
      multiply_add(low[2 * half], first, lows);
      multiply_add(high[2 * half], first, highs);
      multiply_add(low[2 * half + 1], second, lows);
      multiply_add(high[2 * half + 1], second, highs);
    }
  }

  // The quarters go where their columns are.
  void write(float unit, __mmask64 mask, float* sum) const {
    __m512i all[4];
    for (int v = 0; v < 4; ++v) all[v] = _mm512_add_epi32(low[v], _mm512_slli_epi32(high[v], 7));
    const __m512i front[2] = {_mm512_shuffle_i32x4(all[0], all[1], 0x44),
                              _mm512_shuffle_i32x4(all[2], all[3], 0x44)};
    const __m512i back[2] = {_mm512_shuffle_i32x4(all[0], all[1], 0xee),
                             _mm512_shuffle_i32x4(all[2], all[3], 0xee)};
    const __m512i sorted[4] = {_mm512_shuffle_i32x4(front[0], front[1], 0x88),
                               _mm512_shuffle_i32x4(front[0], front[1], 0xdd),
                               _mm512_shuffle_i32x4(back[0], back[1], 0x88),
                               _mm512_shuffle_i32x4(back[0], back[1], 0xdd)};
    for (int v = 0; v < 4; ++v) {
      const auto its = static_cast<__mmask16>(mask >> (16 * v));
      const __m512 old = _mm512_maskz_loadu_ps(its, sum + 16 * v);
      const __m512 added = _mm512_maskz_cvtepi32_ps(0xffff, sorted[v]);
      _mm512_mask_storeu_ps(sum + 16 * v, its, _mm512_fmadd_ps(added, _mm512_set1_ps(unit), old));
    }
  }
};

void add_quads(const int8_t* const* rows, const QuadWeights* quads, int64_t n, float unit,
               int64_t first, int64_t last, float* sum) {
  fetch_start(rows, 4 * n, first);
  int32_t offset = 0;
  for (int64_t g = 0; g < n; ++g) offset += quads[g].offset;
  for (int64_t c = first; c < last; c += kLine) {
    const __mmask64 mask = last - c < kLine ? (uint64_t{1} << (last - c)) - 1 : ~uint64_t{0};
    Sums sums(offset);
    for (int64_t g = 0; g < n; ++g) {
      const int8_t* const* const its = rows + 4 * g;
      for (int r = 0; r < 4; ++r) __builtin_prefetch(its[r] + c + kAhead, 0, kIntoL2);
      sums.add({its[0] + c, its[1] + c, its[2] + c, its[3] + c}, quads[g], mask);
    }
    sums.write(unit, mask, sum + (c - first));
  }
}

void gather_quads(const int8_t* const* rows, const QuadWeights* quads, int64_t n, float unit,
                  int64_t first, int64_t width, float* sum) {
  for_each_group(4 * n, first, width, [&](int64_t row, int64_t n_rows, int64_t from, int64_t to) {
    add_quads(rows + row, quads + row / 4, n_rows / 4, unit, from, to, sum + (from - first));
  });
}

}  // namespace

const FoldedKernels& folded_kernels_avx512vnni() {
  static constexpr FoldedKernels kKernels{gather_sum<16>, gather_quads, finish<16>, collect<16>};
  return kKernels;
}

}  // namespace cfsae::cpu
