// Approximate values of a row by a gather-sum over the int8 rows of a table.
#pragma once

#include "cuda/gather.h"
#include "cuda/ordered.h"

namespace cfsae::cuda {

// value[c] = scale * sum_j weight_j * row id_j of the table + sums, shifts and bias at c. Encoding:
// scale 1 / std, -mean / std sums, 1 shifts. Decoding: scale std, mean sums, std shifts.
struct Folded {
  FoldedTable table;
  const int64_t* offsets;  // entries of row b: offsets[b] .. offsets[b + 1]; null: b * width, width
  int64_t width;
  const int32_t* ids;
  const float* weights;  // null: all 1
  StatsView stats;
  const float *sums, *shifts, *bias;  // null: 0
  bool encodes;
};

struct Entries {
  int64_t first, last;
};

__device__ inline Entries entries_of(const Folded& f, int64_t b) {
  if (f.offsets == nullptr) return {b * f.width, (b + 1) * f.width};
  return {f.offsets[b], f.offsets[b + 1]};
}

template <int kVector>
struct Values {
  float at[kVector];
};

// Whether the table's rows can be read four columns at a time.
inline bool reads_four(const FoldedTable& table) {
  return table.dim % 4 == 0 && reinterpret_cast<uintptr_t>(table.values) % 4 == 0;
}

// values.at[v] for a v that is not known when compiling, without a detour through memory.
template <int kVector>
__device__ __forceinline__ float pick(const Values<kVector>& values, int v) {
  float picked = values.at[0];
#pragma unroll
  for (int i = 1; i < kVector; ++i) picked = i == v ? values.at[i] : picked;
  return picked;
}

template <int kVector>
__device__ __forceinline__ void add_row(const int8_t* row, float weight, Values<kVector>& sum) {
  if constexpr (kVector == 4) {
    const unsigned four = *reinterpret_cast<const unsigned*>(row);
    for (int v = 0; v < kVector; ++v) {
      sum.at[v] += weight * static_cast<float>(static_cast<int8_t>(four >> 8 * v));
    }
  } else {
    sum.at[0] += weight * static_cast<float>(*row);
  }
}

// Lanes read an entry each and hand them round; a lane sums the columns from `column` on.
template <int kVector>
__device__ Values<kVector> gather_sum(const Folded& f, int64_t b, int64_t column) {
  const Entries entries = entries_of(f, b);
  Values<kVector> sum{};
  for (int64_t first = entries.first; first < entries.last; first += kWarpSize) {
    const int64_t j = first + Warp::thread();
    int32_t id = kPadding;
    float weight = 0.0f;
    if (j < entries.last && is_row(f.ids[j], f.table.n_rows)) {
      id = f.ids[j];
      weight = (f.weights == nullptr ? 1.0f : f.weights[j]) * f.table.scales[id];
    }
    const int n = static_cast<int>(least<int64_t>(kWarpSize, entries.last - first));
#pragma unroll 4
    for (int i = 0; i < n; ++i) {
      const int64_t row = __shfl_sync(kAllLanes, id, i);
      const float of_row = __shfl_sync(kAllLanes, weight, i);
      if (row < 0 || column >= f.table.dim) continue;
      add_row<kVector>(f.table.values + row * f.table.dim + column, of_row, sum);
    }
  }
  return sum;
}

// -inf where a column is none, or may not be returned.
template <int kVector>
__device__ Values<kVector> approximate(const Folded& f, const uint8_t* allowed, int64_t b,
                                       int64_t column) {
  const float mean = f.stats.mean == nullptr ? 0.0f : f.stats.mean[b];
  const float std = f.stats.std == nullptr ? 1.0f : f.stats.std[b];
  Values<kVector> values = gather_sum<kVector>(f, b, column);
  for (int v = 0; v < kVector; ++v) {
    const int64_t c = column + v;
    if (c >= f.table.dim || (allowed != nullptr && allowed[c] == 0)) {
      values.at[v] = __uint_as_float(0xff800000u);
      continue;
    }
    float value = values.at[v] * (f.encodes ? 1.0f / std : std);
    value += f.sums[c] * (f.encodes ? -mean / std : mean);
    value += f.shifts[c] * (f.encodes ? 1.0f : std);
    values.at[v] = f.bias == nullptr ? value : value + f.bias[c];
  }
  return values;
}

}  // namespace cfsae::cuda
