// The kernels as templates over gcc vector extensions; included by one .cpp per instruction set.
// Everything has internal linkage and calls no library template, so that code compiled for one
// instruction set can never be linked into another's path.
#pragma once

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstring>

#include "cpu/kernels.h"

namespace cfsae::cpu {
namespace {

template <int Lanes>
struct VectorOf {
  typedef float type __attribute__((vector_size(Lanes * sizeof(float))));
  typedef int32_t mask __attribute__((vector_size(Lanes * sizeof(float))));
};

template <int Lanes>
typename VectorOf<Lanes>::type load(const float* from) {
  typename VectorOf<Lanes>::type v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <typename Vector>
void store(float* to, const Vector& v) {
  std::memcpy(to, &v, sizeof v);
}

template <int Lanes>
float lane_sum(const typename VectorOf<Lanes>::type& v) {
  if constexpr (Lanes == 1) {
    return v[0];
  } else {
    typename VectorOf<Lanes / 2>::type halves[2];
    std::memcpy(halves, &v, sizeof v);
    return lane_sum<Lanes / 2>(halves[0] + halves[1]);
  }
}

template <typename Mask>
bool any(const Mask& mask) {
  uint64_t words[sizeof(Mask) / 8], all = 0;
  std::memcpy(words, &mask, sizeof mask);
  for (const uint64_t word : words) all |= word;
  return all != 0;
}

template <int Width>
void interleave(const float* rows, int64_t n_rows, int64_t dim, float* packed) {
  constexpr int64_t kStrip = 16;  // columns at a time: each row gives one cache line
  for (int64_t first = 0; first < dim; first += kStrip) {
    const int64_t last = first + kStrip < dim ? first + kStrip : dim;
    for (int64_t r = 0; r < Width; ++r) {
      if (r < n_rows) {
        for (int64_t i = first; i < last; ++i) packed[i * Width + r] = rows[r * dim + i];
      } else {
        for (int64_t i = first; i < last; ++i) packed[i * Width + r] = 0.0f;
      }
    }
  }
}

// Rows x (Lanes * Vectors) accumulators stay in registers over the whole dimension; the floors
// are compared there too, and nearly every tile ends without a store.
template <int Lanes, int Rows, int Vectors>
uint32_t tile(const float* queries, const float* rows, int64_t dim, const float* bias,
              const float* floors, float* out) {
  using Vector = typename VectorOf<Lanes>::type;
  Vector acc[Rows][Vectors] = {};
  for (int64_t i = 0; i < dim; ++i, queries += Lanes * Vectors, rows += Rows) {
    Vector query[Vectors];
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) query[v] = load<Lanes>(queries + v * Lanes);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < Vectors; ++v) acc[r][v] += query[v] * rows[r];
    }
  }
  uint32_t hits = 0;
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
    typename VectorOf<Lanes>::mask above = {};
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) {
      acc[r][v] += bias[r];
      above |= acc[r][v] > load<Lanes>(floors + v * Lanes);
    }
    hits |= static_cast<uint32_t>(any(above)) << r;
  }
  if (hits == 0) return 0;
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) store(out + (r * Vectors + v) * Lanes, acc[r][v]);
  }
  return hits;
}

template <int Lanes, int Queries, int Rows>
void dot_block(const float* const (&queries)[Queries], const float* const (&rows)[Rows],
               int64_t dim, float (&out)[Queries][Rows]) {
  typename VectorOf<Lanes>::type acc[Queries][Rows] = {};
  int64_t i = 0;
  for (; i + Lanes <= dim; i += Lanes) {
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      const auto row = load<Lanes>(rows[r] + i);
#pragma GCC unroll 4
      for (int q = 0; q < Queries; ++q) acc[q][r] += load<Lanes>(queries[q] + i) * row;
    }
  }
#pragma GCC unroll 4
  for (int q = 0; q < Queries; ++q) {
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      float sum = lane_sum<Lanes>(acc[q][r]);
      for (int64_t j = i; j < dim; ++j) sum += queries[q][j] * rows[r][j];
      out[q][r] = sum;
    }
  }
}

template <int Lanes, int Queries>
void dots_of(const float* queries, const float* rows, int64_t n_rows, int64_t dim, float* out) {
  const float* query[Queries];
  for (int q = 0; q < Queries; ++q) query[q] = queries + q * dim;
  int64_t r = 0;
  for (; r + 4 <= n_rows; r += 4) {
    const float* const row[4] = {rows + r * dim, rows + (r + 1) * dim, rows + (r + 2) * dim,
                                 rows + (r + 3) * dim};
    float block[Queries][4];
    dot_block<Lanes>(query, row, dim, block);
    for (int q = 0; q < Queries; ++q) std::memcpy(out + q * n_rows + r, block[q], sizeof block[q]);
  }
  for (; r < n_rows; ++r) {
    const float* const row[1] = {rows + r * dim};
    float block[Queries][1];
    dot_block<Lanes>(query, row, dim, block);
    for (int q = 0; q < Queries; ++q) out[q * n_rows + r] = block[q][0];
  }
}

template <int Lanes>
void dots(const float* queries, int64_t n_queries, const float* rows, int64_t n_rows, int64_t dim,
          float* out) {
  int64_t q = 0;
  for (; q + 4 <= n_queries; q += 4) {
    dots_of<Lanes, 4>(queries + q * dim, rows, n_rows, dim, out + q * n_rows);
  }
  for (; q < n_queries; ++q) {
    dots_of<Lanes, 1>(queries + q * dim, rows, n_rows, dim, out + q * n_rows);
  }
}

template <int Lanes, int Rows>
void add_rows(const float* const (&rows)[Rows], const float (&weights)[Rows], int64_t width,
              float* sum) {
  int64_t c = 0;
  for (; c + Lanes <= width; c += Lanes) {
    auto acc = load<Lanes>(sum + c);
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) acc += load<Lanes>(rows[r] + c) * weights[r];
    store(sum + c, acc);
  }
  for (; c < width; ++c) {
    float acc = sum[c];
    for (int r = 0; r < Rows; ++r) acc += rows[r][c] * weights[r];
    sum[c] = acc;
  }
}

template <int Lanes>
void gather_sum(const float* table, int64_t stride, int64_t width, const int32_t* ids,
                const float* weights, int64_t n, float* sum) {
  const float* row[4];
  float weight[4];
  int held = 0;
  for (int64_t j = 0; j < n; ++j) {
    const int64_t id = ids == nullptr ? j : ids[j];
    if (id < 0) continue;
    row[held] = table + id * stride;
    weight[held] = weights == nullptr ? 1.0f : weights[j];
    if (++held == 4) {
      add_rows<Lanes>(row, weight, width, sum);
      held = 0;
    }
  }
  for (int j = 0; j < held; ++j) {
    const float* const one[1] = {row[j]};
    const float its[1] = {weight[j]};
    add_rows<Lanes>(one, its, width, sum);
  }
}

template <int Lanes>
void gather_dots(const float* table, int64_t dim, const int32_t* ids, int64_t n,
                 const float* vector, float* out) {
  const float* const query[1] = {vector};
  int64_t j = 0;
  for (; j + 1 < n; j += 4) {  // four chains of additions at a time; each is that of one row
    const int64_t here = n - j < 4 ? n - j : 4;
    const float* row[4] = {vector, vector, vector, vector};
    for (int64_t r = 0; r < here; ++r) {
      if (ids[j + r] >= 0) row[r] = table + ids[j + r] * dim;
    }
    float block[1][4];
    dot_block<Lanes>(query, {row[0], row[1], row[2], row[3]}, dim, block);
    for (int64_t r = 0; r < here; ++r) out[j + r] = ids[j + r] < 0 ? 0.0f : block[0][r];
  }
  for (; j < n; ++j) {
    float block[1][1] = {{0.0f}};
    if (ids[j] >= 0) {
      const float* const row[1] = {table + ids[j] * dim};
      dot_block<Lanes>(query, row, dim, block);
    }
    out[j] = block[0][0];
  }
}

// Meanwhile the lines of the next rights come in: they lie anywhere, and no hardware foresees them.
template <int Lanes, int Pairs, bool Ahead>
void pair_block(const float* const* lefts, const float* const* rights, int64_t dim, float* out) {
  typename VectorOf<Lanes>::type acc[Pairs] = {};
  int64_t i = 0;
  for (; i + Lanes <= dim; i += Lanes) {
#pragma GCC unroll 4
    for (int p = 0; p < Pairs; ++p) {
      if constexpr (Ahead) __builtin_prefetch(rights[Pairs + p] + i);
      acc[p] += load<Lanes>(lefts[p] + i) * load<Lanes>(rights[p] + i);
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < Pairs; ++p) {
    float sum = lane_sum<Lanes>(acc[p]);
    for (int64_t j = i; j < dim; ++j) sum += lefts[p][j] * rights[p][j];
    out[p] = sum;
  }
}

template <int Lanes>
void pair_dots(const float* const* lefts, const float* const* rights, int64_t n, int64_t dim,
               float* out) {
  int64_t j = 0;
  for (; j + 8 <= n; j += 4) pair_block<Lanes, 4, true>(lefts + j, rights + j, dim, out + j);
  for (; j + 4 <= n; j += 4) pair_block<Lanes, 4, false>(lefts + j, rights + j, dim, out + j);
  for (; j < n; ++j) pair_block<Lanes, 1, false>(lefts + j, rights + j, dim, out + j);
}

// Bits of non-negative floats rise with their values, and integers have a maximum that vectorises.
inline float largest_magnitude(const float* x, int64_t n) {
  int32_t highest = 0;
  for (int64_t i = 0; i < n; ++i) {
    int32_t bits;
    std::memcpy(&bits, x + i, sizeof bits);
    bits &= 0x7fffffff;
    highest = bits > highest ? bits : highest;
  }
  float largest;
  std::memcpy(&largest, &highest, sizeof largest);
  return largest;
}

// The lowest byte of each lane. gcc 12 makes scalar code of the loop.
template <int Lanes>
void narrow(typename VectorOf<Lanes>::mask bits, int8_t* to) {
#if defined(__AVX512F__)
  if constexpr (Lanes == 16) {
    const __m128i bytes = _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)bits);
    std::memcpy(to, &bytes, sizeof bytes);
    return;
  }
#endif
  for (int lane = 0; lane < Lanes; ++lane) to[lane] = static_cast<int8_t>(bits[lane]);
}

template <int Lanes>
Quantised quantise(const float* x, int64_t dim, int64_t padded, int8_t* to) {
  using Vector = typename VectorOf<Lanes>::type;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to integers
  const float largest = largest_magnitude(x, dim);
  const bool tiny = !(largest > kLeastQuantised);
  const float scale = tiny ? 0.0f : largest / 127.0f, inverse = tiny ? 0.0f : 127.0f / largest;
  Vector squares = {}, errors = {};
  float last_squares = 0.0f, last_errors = 0.0f;
  int64_t i = 0;
  for (; i + Lanes <= dim; i += Lanes) {
    const Vector value = load<Lanes>(x + i), shifted = value * inverse + kRound;
    const Vector rest = value - (shifted - kRound) * scale;
    squares += value * value;
    errors += rest * rest;
    typename VectorOf<Lanes>::mask bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    narrow<Lanes>(bits, to + i);
  }
  for (; i < dim; ++i) {
    const float shifted = x[i] * inverse + kRound, rest = x[i] - (shifted - kRound) * scale;
    last_squares += x[i] * x[i];
    last_errors += rest * rest;
    int32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    to[i] = static_cast<int8_t>(bits);
  }
  for (; i < padded; ++i) to[i] = 0;
  return {scale, lane_sum<Lanes>(squares) + last_squares, lane_sum<Lanes>(errors) + last_errors,
          largest};
}

// By halving: counting needs no order, so that it runs at the speed of the vector units.
template <int Lanes>
float reached_by(int64_t k, const float* values, int64_t n) {
  using Vector = typename VectorOf<Lanes>::type;
  constexpr float kNothing = -__builtin_inff();
  constexpr int kMostHalvings = 24;
  const auto reaching = [values, n](float line) {
    int32_t count = 0;
    for (int64_t j = 0; j < n; ++j) count += values[j] >= line ? 1 : 0;
    return count;
  };
  Vector lows = Vector{} - kNothing, highs = Vector{} + kNothing;
  float low = -kNothing, high = kNothing;
  int64_t j = 0;
  for (; j + Lanes <= n; j += Lanes) {
    const Vector some = load<Lanes>(values + j), finite = some > kNothing ? some : lows;
    lows = finite < lows ? finite : lows;
    highs = some > highs ? some : highs;
  }
  for (; j < n; ++j) {
    low = values[j] > kNothing && values[j] < low ? values[j] : low;
    high = values[j] > high ? values[j] : high;
  }
  for (int lane = 0; lane < Lanes; ++lane) {
    low = lows[lane] < low ? lows[lane] : low;
    high = highs[lane] > high ? highs[lane] : high;
  }
  if (!(low <= high) || reaching(low) < k) return kNothing;
  for (int halving = 0; halving < kMostHalvings; ++halving) {
    const float middle = low + 0.5f * (high - low);
    if (!(low < middle)) break;
    const int32_t count = reaching(middle);
    (count >= k ? low : high) = middle;
    if (k <= count && count <= k + k / 8) break;
  }
  return low;
}

template <int Lanes>
void keep_above(float floor, ScreenSink* sink) {
  int64_t to = 0, j = 0;
#if defined(__AVX512F__)
  if constexpr (Lanes == 16) {  // whole vectors are stored, never beyond what was read
    for (; j + Lanes <= sink->size; j += Lanes) {
      const __m512 upper = _mm512_loadu_ps(sink->uppers + j);
      const __m512 below = _mm512_loadu_ps(sink->lowers + j);
      const __m512i index = _mm512_loadu_si512(sink->indices + j);
      const __mmask16 kept = _mm512_cmp_ps_mask(upper, _mm512_set1_ps(floor), _CMP_GT_OQ);
      _mm512_storeu_ps(sink->uppers + to, _mm512_maskz_compress_ps(kept, upper));
      _mm512_storeu_ps(sink->lowers + to, _mm512_maskz_compress_ps(kept, below));
      _mm512_storeu_si512(sink->indices + to, _mm512_maskz_compress_epi32(kept, index));
      to += __builtin_popcount(kept);
    }
  }
#endif
  for (; j < sink->size; ++j) {
    if (!(sink->uppers[j] > floor)) continue;
    sink->indices[to] = sink->indices[j];
    sink->lowers[to] = sink->lowers[j];
    sink->uppers[to++] = sink->uppers[j];
  }
  sink->size = to;
}

template <int Lanes, int Rows, int Vectors>
constexpr Kernels make_kernels(ScreenTile (*screen)(int64_t n_queries) = nullptr) {
  static_assert(Rows <= 32, "tile returns a bit per row");
  return {Lanes * Vectors,
          Rows,
          interleave<Lanes * Vectors>,
          interleave<Rows>,
          tile<Lanes, Rows, Vectors>,
          dots<Lanes>,
          gather_sum<Lanes>,
          gather_dots<Lanes>,
          pair_dots<Lanes>,
          quantise<Lanes>,
          reached_by<Lanes>,
          keep_above<Lanes>,
          screen};
}

}  // namespace
}  // namespace cfsae::cpu
