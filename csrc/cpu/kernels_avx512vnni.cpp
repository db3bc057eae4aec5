// AVX-512 with VNNI: the kernels of AVX-512, and tiles that multiply bytes, four to a lane.
#include <immintrin.h>

#include "cpu/kernels_template.h"

namespace cfsae::cpu {
namespace {

// sums += rows * four, byte by byte in each lane. The intrinsic makes gcc 12 copy every
// accumulator.
inline void multiply_add(__m512i& sums, __m512i rows, __m512i four) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(rows), "v"(four));
}

// Into the sink goes what may be above the floor, sixteen rows at a time.
template <int Groups>
bool judge(const int32_t (&sums)[Groups][kScreenRows], const ScreenQueries& queries, int q,
           const ScreenRows& rows, int first_group, int32_t first_row, ScreenSink* const* sinks) {
  const __m512i offset = _mm512_set1_epi32(queries.offset[q]);
  const __m512 scale = _mm512_set1_ps(queries.scale[q]);
  const __m512 of_norm = _mm512_set1_ps(queries.norm_weight[q]);
  const __m512 of_error = _mm512_set1_ps(queries.error_weight[q]);
  const __m512 floor = _mm512_set1_ps(queries.floor[q]);
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  bool found = false;
  for (int g = 0; g < Groups; ++g) {
    const int at = (first_group + g) * kScreenRows;
    const __m512 dot = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_load_si512(sums[g]), offset));
    const __m512 approximate =
        _mm512_fmadd_ps(dot, _mm512_mul_ps(scale, _mm512_loadu_ps(rows.scale + at)),
                        _mm512_loadu_ps(rows.bias + at));
    const __m512 error = _mm512_fmadd_ps(_mm512_loadu_ps(rows.norm + at), of_norm,
                                         _mm512_fmadd_ps(_mm512_loadu_ps(rows.error + at), of_error,
                                                         _mm512_loadu_ps(rows.slack + at)));
    const __m512 upper = _mm512_add_ps(approximate, error);
    const __mmask16 above = _mm512_cmp_ps_mask(upper, floor, _CMP_GT_OQ);
    if (above == 0) continue;
    ScreenSink& sink = *sinks[q];  // whole vectors are stored: it has room for them
    const __m512i index = _mm512_add_epi32(_mm512_set1_epi32(first_row + at), lanes);
    _mm512_storeu_si512(sink.indices + sink.size, _mm512_maskz_compress_epi32(above, index));
    _mm512_storeu_ps(sink.lowers + sink.size,
                     _mm512_maskz_compress_ps(above, _mm512_sub_ps(approximate, error)));
    _mm512_storeu_ps(sink.uppers + sink.size, _mm512_maskz_compress_ps(above, upper));
    sink.size += __builtin_popcount(above);
    found = true;
  }
  return found;
}

// Queries x Groups accumulators stay in registers over all steps.
template <int Queries, int Groups>
uint32_t screen_tile(const ScreenQueries& queries, const ScreenRows& rows, int64_t steps,
                     int32_t first_row, ScreenSink* const* sinks) {
  constexpr int kBytes = kScreenRows * kScreenWidth;
  // One query waits for its rows. Short groups end before the processor has seen where they lead:
  // of them the next block is fetched, of long ones what comes soon.
  const int64_t ahead = steps <= 64 ? Groups * steps * kBytes : 8 * kBytes;
  uint32_t any = 0;
  for (int first = 0; first < kScreenGroups; first += Groups) {
    const uint8_t* row = rows.data + first * steps * kBytes;
    const int8_t* query = queries.data;
    __m512i dots[Queries][Groups];
#pragma GCC unroll 16
    for (int q = 0; q < Queries; ++q) {
#pragma GCC unroll 4
      for (int g = 0; g < Groups; ++g) dots[q][g] = _mm512_setzero_si512();
    }
    for (int64_t step = 0; step < steps; ++step, row += kBytes, query += Queries * kScreenWidth) {
      __m512i values[Groups];
#pragma GCC unroll 4
      for (int g = 0; g < Groups; ++g) {
        values[g] = _mm512_loadu_si512(row + g * steps * kBytes);
        if constexpr (Queries == 1) __builtin_prefetch(row + g * steps * kBytes + ahead, 0, 2);
      }
#pragma GCC unroll 16
      for (int q = 0; q < Queries; ++q) {
        int32_t four;
        std::memcpy(&four, query + q * kScreenWidth, sizeof four);
        const __m512i broadcast = _mm512_set1_epi32(four);
#pragma GCC unroll 4
        for (int g = 0; g < Groups; ++g) {
          multiply_add(dots[q][g], values[g], broadcast);
        }
      }
    }
    alignas(64) int32_t sums[Queries][Groups][kScreenRows];  // stored once: dots stay in registers
#pragma GCC unroll 16
    for (int q = 0; q < Queries; ++q) {
#pragma GCC unroll 4
      for (int g = 0; g < Groups; ++g) _mm512_store_si512(sums[q][g], dots[q][g]);
    }
    for (int q = 0; q < Queries; ++q) {
      const bool found = judge<Groups>(sums[q], queries, q, rows, first, first_row, sinks);
      any |= static_cast<uint32_t>(found) << q;
    }
  }
  return any;
}

ScreenTile screen_for(int64_t n_queries) {
  if (n_queries <= 1) return {1, screen_tile<1, 4>};
  if (n_queries <= 8) return {4, screen_tile<4, 4>};
  return {kMostScreenQueries, screen_tile<kMostScreenQueries, 2>};
}

}  // namespace

const Kernels& kernels_avx512vnni() {
  static constexpr Kernels kKernels = make_kernels<16, 8, 2>(screen_for);
  return kKernels;
}

}  // namespace cfsae::cpu
