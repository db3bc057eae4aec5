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

// sum[first .. last) += sum_r weights[r] * rows[r]; meanwhile the same columns of `next` come into
// the cache, which hides what a row that was not read for long would cost.
template <int Lanes, int Rows>
void add_rows(const int8_t* const (&rows)[Rows], const float (&weights)[Rows],
              const int8_t* const* next, int n_next, int64_t first, int64_t last, float* sum) {
  constexpr int64_t kLine = 64;
  int64_t c = first;
  for (; c + kLine <= last; c += kLine) {
    for (int r = 0; r < n_next; ++r) __builtin_prefetch(next[r] + c);
    for (int64_t at = c; at < c + kLine; at += Lanes) {
      auto acc = load<Lanes>(sum + at);
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) acc += widen<Lanes>(rows[r] + at) * weights[r];
      std::memcpy(sum + at, &acc, sizeof acc);
    }
  }
  for (; c < last; ++c) {
    for (int r = 0; r < Rows; ++r) sum[c] += weights[r] * static_cast<float>(rows[r][c]);
  }
}

template <int Lanes>
void gather_sum(const int8_t* table, int64_t stride, int64_t width, const int32_t* ids,
                const float* weights, int64_t n, float* sum) {
  constexpr int64_t kStrip = 4096;  // columns whose sums stay in L1
  constexpr int kRows = 8;
  struct Group {
    const int8_t* rows[kRows];
    float weights[kRows];
    int held;
  };
  const auto fill = [&](int64_t& j) {
    Group group;
    for (group.held = 0; j < n && group.held < kRows; ++j) {
      if (ids[j] < 0) continue;
      group.rows[group.held] = table + ids[j] * stride;
      group.weights[group.held++] = weights[j];
    }
    return group;
  };
  for (int64_t first = 0; first < width; first += kStrip) {
    const int64_t last = first + kStrip < width ? first + kStrip : width;
    int64_t j = 0;
    Group group = fill(j);
    while (group.held > 0) {
      const Group next = fill(j);
      if (group.held == kRows) {
        add_rows<Lanes, kRows>(group.rows, group.weights, next.rows, next.held, first, last, sum);
      } else {
        for (int r = 0; r < group.held; ++r) {
          const int8_t* const one[1] = {group.rows[r]};
          const float its[1] = {group.weights[r]};
          add_rows<Lanes, 1>(one, its, nullptr, 0, first, last, sum);
        }
      }
      group = next;
    }
  }
}

template <int Lanes>
void finish(float* values, int64_t n, float scale, const Term (&terms)[3], float* maxima) {
  using Floats = typename VectorsOf<Lanes>::floats;
  constexpr float kNothing = -__builtin_inff();
  for (int64_t first = 0; first < n; first += kFoldedBlock) {
    const int64_t last = first + kFoldedBlock < n ? first + kFoldedBlock : n;
    Floats most = Floats{} + kNothing;
    int64_t c = first;
    for (; c + Lanes <= last; c += Lanes) {
      Floats value = load<Lanes>(values + c) * scale;
      for (const Term& term : terms) {
        if (term.vector != nullptr) value += load<Lanes>(term.vector + c) * term.factor;
      }
      std::memcpy(values + c, &value, sizeof value);
      most = value > most ? value : most;
    }
    float best = kNothing;
    for (int lane = 0; lane < Lanes; ++lane) best = most[lane] > best ? most[lane] : best;
    for (; c < last; ++c) {
      float value = values[c] * scale;
      for (const Term& term : terms) {
        if (term.vector != nullptr) value += term.vector[c] * term.factor;
      }
      values[c] = value;
      best = value > best ? value : best;
    }
    maxima[first / kFoldedBlock] = best;
  }
}

template <int Lanes>
constexpr FoldedKernels make_folded_kernels() {
  return {gather_sum<Lanes>, finish<Lanes>};
}

}  // namespace
}  // namespace cfsae::cpu
