// Packing of int16_product, in gcc's vectors; included by one .cpp file per instruction set. As in
// kernels_template.h, nothing here has external linkage or calls a library template.
#pragma once

#include "cpu/int16_kernels.h"
#include "cpu/kernels_template.h"

namespace cfsae::cpu {
namespace {

constexpr int kLanes = 16;
using Floats = VectorOf<kLanes>::type;
using Ints = VectorOf<kLanes>::mask;
typedef int16_t Shorts __attribute__((vector_size(2 * kLanes)));

// Rows begin far apart, where the processor's own prefetchers do not look.
constexpr int kRowsAhead = 4, kTermsAhead = 32;

// With both rows at most this long, no partial sum of their product leaves 32 bits:
// (46300 + 9)^2 < 2^31, where 9 is more than rounding adds to the length of kInt16Depth terms.
constexpr float kLongest = 46300.0f;
constexpr float kLargest = 32767.0f;

struct Extent {  // of a row, or of kLanes rows side by side
  Floats squares = {}, largest = {};
  void meet(const Floats& x) {
    const Floats size = x < 0.0f ? -x : x;
    squares += x * x;
    largest = size > largest ? size : largest;
  }
};

// What 1 stands for in a row of this squared length and largest magnitude. NaN and infinity go on
// to the product: their rows get a step that no number survives.
float step_of(float squares, float largest) {
  const float by_length = __builtin_sqrtf(squares) / kLongest, by_size = largest / kLargest;
  return by_length < by_size ? by_size : by_length;
}

float inverse(float step) { return step == 0.0f ? 0.0f : 1.0f / step; }

// x to the nearest whole number, in the low 16 bits of each lane (|x| < 2^15): 1 is what the last
// bit of the sum is worth.
Ints whole(const Floats& x) {
  const Floats sum = x + 12582912.0f;  // 1.5 * 2^23
  Ints bits;
  std::memcpy(&bits, &sum, sizeof bits);
  return bits;
}

float lane_max(const Floats& v) {
  float most = v[0];
  for (int lane = 1; lane < kLanes; ++lane) most = v[lane] > most ? v[lane] : most;
  return most;
}

// A row whose terms lie together, as pairs. Returns its step.
float pack_row(const float* x, int64_t n, int32_t* pairs) {
  const int64_t whole_vectors = n / kLanes * kLanes, padded = 2 * int16_pairs(n);
  float rest[2 * kLanes] = {};  // the last terms, filled up with zeros
  std::memcpy(rest, x + whole_vectors, (n - whole_vectors) * sizeof(float));
  const auto at = [&](int64_t k) { return k < whole_vectors ? x + k : rest + (k - whole_vectors); };
  Extent extent;
  for (int64_t k = 0; k < padded; k += kLanes) extent.meet(load<kLanes>(at(k)));
  const float step = step_of(lane_sum<kLanes>(extent.squares), lane_max(extent.largest));
  const float times = inverse(step);
  for (int64_t k = 0; k < padded; k += kLanes) {
    const Shorts q = __builtin_convertvector(whole(load<kLanes>(at(k)) * times), Shorts);
    std::memcpy(pairs + k / 2, &q, sizeof q);
  }
  return step;
}

// kInt16Group rows side by side, whose terms lie `stride` apart.
template <int Width>
void pack_group(const float* x, int64_t stride, int64_t n, int32_t* panels, float* scales) {
  constexpr int kVectors = kInt16Group / kLanes, kPiece = Width < kLanes ? Width : kLanes;
  Extent extent[kVectors];
  for (int64_t k = 0; k < n; ++k) {
    const float* const ahead = x + (k + kTermsAhead < n ? k + kTermsAhead : k) * stride;
    for (int v = 0; v < kVectors; ++v) {
      __builtin_prefetch(ahead + v * kLanes);
      extent[v].meet(load<kLanes>(x + k * stride + v * kLanes));
    }
  }
  Floats times[kVectors];
  for (int row = 0; row < kInt16Group; ++row) {
    const int v = row / kLanes, lane = row % kLanes;
    scales[row] = step_of(extent[v].squares[lane], extent[v].largest[lane]);
    times[v][lane] = inverse(scales[row]);
  }
  const float nothing[kInt16Group] = {};
  for (int64_t pair = 0; pair < int16_pairs(n); ++pair) {
    const float* const first = 2 * pair < n ? x + 2 * pair * stride : nothing;
    const float* const second = 2 * pair + 1 < n ? x + (2 * pair + 1) * stride : nothing;
    for (int v = 0; v < kVectors; ++v) {
      const Ints low = whole(load<kLanes>(first + v * kLanes) * times[v]);
      const Ints high = whole(load<kLanes>(second + v * kLanes) * times[v]);
      const Ints both = (low & 0xffff) | (high << 16);
      int32_t lanes[kLanes];
      std::memcpy(lanes, &both, sizeof lanes);
      for (int piece = 0; piece < kLanes; piece += kPiece) {
        const int row = v * kLanes + piece;
        int32_t* const panel = panels + row / Width * int16_panel(Width);
        std::memcpy(panel + pair * Width + row % Width, lanes + piece, kPiece * sizeof(int32_t));
      }
    }
  }
}

// Up to kInt16Group rows whose terms lie together.
void pack_rows(const StridedMatrix& of, int width, int32_t* panels, float* scales) {
  const float nothing[kInt16Depth] = {};
  for (int64_t r = 0; r < kInt16Group; ++r) {
    const float* const x = r < of.n_rows ? of.data + r * of.row_step : nothing;
    const float* const ahead = r + kRowsAhead < of.n_rows ? x + kRowsAhead * of.row_step : nothing;
    for (int64_t k = 0; k < of.n_columns; k += kLanes) __builtin_prefetch(ahead + k);
    int32_t* const panel = panels + r / width * int16_panel(width) + r % width;
    if (width == 1) {
      scales[r] = pack_row(x, of.n_columns, panel);
      continue;
    }
    int32_t pairs[kInt16Depth / 2];
    scales[r] = pack_row(x, of.n_columns, pairs);
    for (int64_t pair = 0; pair < int16_pairs(of.n_columns); ++pair) {
      panel[pair * width] = pairs[pair];
    }
  }
}

// Up to kInt16Group rows side by side.
void pack_columns(const StridedMatrix& of, int width, int32_t* panels, float* scales) {
  const float* x = of.data;
  int64_t stride = of.column_step;
  float copied[kInt16Depth * kInt16Group];
  if (of.n_rows < kInt16Group) {  // filled up
    std::memset(copied, 0, of.n_columns * kInt16Group * sizeof(float));
    for (int64_t k = 0; k < of.n_columns; ++k) {
      std::memcpy(copied + k * kInt16Group, x + k * stride, of.n_rows * sizeof(float));
    }
    x = copied;
    stride = kInt16Group;
  }
  (width == kInt16Right ? pack_group<kInt16Right> : pack_group<kInt16Left>)(x, stride, of.n_columns,
                                                                            panels, scales);
}

void pack(const StridedMatrix& of, int width, int32_t* panels, float* scales) {
  for (int64_t first = 0; first < of.n_rows; first += kInt16Group) {
    const int64_t left = of.n_rows - first;
    const StridedMatrix group = {of.data + first * of.row_step,
                                 left < kInt16Group ? left : kInt16Group, of.n_columns, of.row_step,
                                 of.column_step};
    int32_t* const to = panels + first / width * int16_panel(width);
    (of.column_step == 1 ? pack_rows : pack_columns)(group, width, to, scales + first);
  }
}

}  // namespace
}  // namespace cfsae::cpu
