// The kernels of folded_kernels.h over gcc vector extensions; internal linkage, no library
// templates, as in kernels_template.h.
#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstring>

#include "cpu/folded_kernels.h"

namespace cfsae::cpu {
namespace {

template <int Lanes>
struct VectorsOf {
  typedef float floats __attribute__((vector_size(Lanes * sizeof(float))));
};

// The one place for intrinsics: gcc 12 turns __builtin_convertvector of bytes into scalar code.
template <int Lanes>
typename VectorsOf<Lanes>::floats widen(const int8_t* from) {
  using Floats = typename VectorsOf<Lanes>::floats;
#if defined(__AVX512F__)
  if constexpr (Lanes == 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    // all lanes are kept; without the masks gcc 12 warns inside its own header
    return (Floats)_mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, bytes));
  }
#elif defined(__AVX2__)
  if constexpr (Lanes == 8) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
  }
#endif
  Floats wide;
  for (int lane = 0; lane < Lanes; ++lane) wide[lane] = static_cast<float>(from[lane]);
  return wide;
}

template <int Lanes>
typename VectorsOf<Lanes>::floats load(const float* from) {
  typename VectorsOf<Lanes>::floats v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

constexpr int64_t kLine = 64;          // bytes that the cache holds together
constexpr int64_t kAhead = 8 * kLine;  // what is fetched before it is read
constexpr int kIntoL2 = 2;             // into L1 it would push out what is not read yet
constexpr int64_t kRowsAtOnce = 32;    // read side by side: more than the hardware would follow
constexpr int64_t kSumsAtOnce = 4096;  // stay in L1

// What a loop over columns does not come to fetch: its first lines.
inline void fetch_start(const int8_t* const* rows, int64_t n, int64_t first) {
  for (int64_t at = first; at < first + kAhead; at += kLine) {
    for (int64_t r = 0; r < n; ++r) __builtin_prefetch(rows[r] + at, 0, kIntoL2);
  }
}

template <int Lanes>
void add_rows(const int8_t* const* rows, const float* weights, int64_t n, int64_t first,
              int64_t last, float* sum) {
  using Floats = typename VectorsOf<Lanes>::floats;
  constexpr int kAtOnce = 4;  // vectors of sums that stay in registers
  fetch_start(rows, n, first);
  int64_t c = first;
  for (; c + kLine <= last; c += kLine) {
    for (int64_t r = 0; r < n; ++r) __builtin_prefetch(rows[r] + c + kAhead, 0, kIntoL2);
    for (int64_t at = c; at < c + kLine; at += kAtOnce * Lanes) {
      float* const to = sum + (at - first);
      Floats sums[kAtOnce];
      for (int v = 0; v < kAtOnce; ++v) sums[v] = load<Lanes>(to + v * Lanes);
      for (int64_t r = 0; r < n; ++r) {
        for (int v = 0; v < kAtOnce; ++v) {
          sums[v] += widen<Lanes>(rows[r] + at + v * Lanes) * weights[r];
        }
      }
      std::memcpy(to, sums, sizeof sums);
    }
  }
  for (; c < last; ++c) {
    for (int64_t r = 0; r < n; ++r) {
      sum[c - first] += weights[r] * static_cast<float>(rows[r][c]);
    }
  }
}

// Some rows and columns at a time: run(row, n_rows, first, last).
template <typename Run>
void for_each_group(int64_t n, int64_t first, int64_t width, const Run& run) {
  const int64_t end = first + width;
  for (int64_t from = first; from < end; from += kSumsAtOnce) {
    const int64_t to = end - from < kSumsAtOnce ? end : from + kSumsAtOnce;
    for (int64_t row = 0; row < n; row += kRowsAtOnce) {
      run(row, n - row < kRowsAtOnce ? n - row : kRowsAtOnce, from, to);
    }
  }
}

template <int Lanes>
void gather_sum(const int8_t* const* rows, const float* weights, int64_t n, int64_t first,
                int64_t width, float* sum) {
  for_each_group(n, first, width, [&](int64_t row, int64_t n_rows, int64_t from, int64_t to) {
    add_rows<Lanes>(rows + row, weights + row, n_rows, from, to, sum + (from - first));
  });
}

template <int Lanes>
float largest_lane(typename VectorsOf<Lanes>::floats v) {
  if constexpr (Lanes == 1) {
    return v[0];
  } else {
    typename VectorsOf<Lanes / 2>::floats halves[2];
    std::memcpy(halves, &v, sizeof halves);
    return largest_lane<Lanes / 2>(halves[0] > halves[1] ? halves[0] : halves[1]);
  }
}

template <int Lanes>
int64_t collect(const float* values, int64_t n, float line, int32_t* places, float* kept) {
  int64_t held = 0, c = 0;
#if defined(__AVX512F__)
  if constexpr (Lanes == 16) {  // whole vectors are stored, never beyond what was read
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (; c + Lanes <= n; c += Lanes) {
      const __m512 value = _mm512_loadu_ps(values + c);
      const __mmask16 above = _mm512_cmp_ps_mask(value, _mm512_set1_ps(line), _CMP_GE_OQ);
      const __m512i place = _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int>(c)));
      _mm512_storeu_ps(kept + held, _mm512_maskz_compress_ps(above, value));
      _mm512_storeu_si512(places + held, _mm512_maskz_compress_epi32(above, place));
      held += __builtin_popcount(above);
    }
  }
#endif
  for (; c < n; ++c) {
    if (!(values[c] >= line)) continue;
    places[held] = static_cast<int32_t>(c);
    kept[held++] = values[c];
  }
  return held;
}

template <int Lanes, int Terms>
void finish_with(float* values, int64_t n, float scale, const Term* terms, float* maxima) {
  using Floats = typename VectorsOf<Lanes>::floats;
  constexpr float kNothing = -__builtin_inff();
  for (int64_t first = 0; first < n; first += kFoldedBlock) {
    const int64_t last = first + kFoldedBlock < n ? first + kFoldedBlock : n;
    Floats most = Floats{} + kNothing;
    int64_t c = first;
    for (; c + Lanes <= last; c += Lanes) {
      Floats value = load<Lanes>(values + c) * scale;
#pragma GCC unroll 4
      for (int t = 0; t < Terms; ++t) value += load<Lanes>(terms[t].vector + c) * terms[t].factor;
      std::memcpy(values + c, &value, sizeof value);
      most = value > most ? value : most;
    }
    float best = largest_lane<Lanes>(most);
    for (; c < last; ++c) {
      float value = values[c] * scale;
      for (int t = 0; t < Terms; ++t) value += terms[t].vector[c] * terms[t].factor;
      values[c] = value;
      best = value > best ? value : best;
    }
    maxima[first / kFoldedBlock] = best;
  }
}

template <int Lanes>
void finish(float* values, int64_t n, float scale, const Term (&terms)[kTerms], float* maxima) {
  Term given[kTerms];
  int count = 0;
  for (const Term& term : terms) {
    if (term.vector != nullptr) given[count++] = term;
  }
  if (count == 0) finish_with<Lanes, 0>(values, n, scale, given, maxima);
  if (count == 1) finish_with<Lanes, 1>(values, n, scale, given, maxima);
  if (count == 2) finish_with<Lanes, 2>(values, n, scale, given, maxima);
  if (count == 3) finish_with<Lanes, 3>(values, n, scale, given, maxima);
  if (count == 4) finish_with<Lanes, 4>(values, n, scale, given, maxima);
}

template <int Lanes>
constexpr FoldedKernels make_folded_kernels() {
  return {gather_sum<Lanes>, nullptr, finish<Lanes>, collect<Lanes>};
}

}  // namespace
}  // namespace cfsae::cpu
