// The inner loops, compiled once per instruction set and chosen at run time.
#pragma once

#include <cstdint>

#include "api.h"

namespace cfsae::cpu {

// A row in 8 bits: row = scale * q + rest. squares and errors are the squared lengths of row and
// rest; a row below kLeastQuantised everywhere has scale 0 and is all rest.
inline constexpr float kLeastQuantised = 1e-10f;
struct Quantised {
  float scale, squares, errors, largest;
};

// One panel of quantised queries against kScreenGroups groups of kScreenRows quantised rows. The
// value of a query and a row lies within error of approximate:
//   approximate = scale_q * scale_r * (q . r) + bias_r
//   error = (norm_r * norm_weight_q + error_r * error_weight_q) + slack_r
inline constexpr int kScreenRows = 16, kScreenWidth = 4;  // rows and columns interleaved
inline constexpr int kScreenGroups = 4, kMostScreenQueries = 12;
inline constexpr int kScreenBlock = kScreenRows * kScreenGroups;

struct ScreenRows {     // of one block; slack bounds the rounding of approximate + bias
  const uint8_t* data;  // group after group: [step][row][column], each byte q + 128
  const float *scale, *norm, *error, *bias, *slack;
};

struct ScreenQueries {  // of one panel
  const int8_t* data;   // [step][query][column]
  float scale[kMostScreenQueries], norm_weight[kMostScreenQueries],
      error_weight[kMostScreenQueries], floor[kMostScreenQueries];
  int32_t offset[kMostScreenQueries];  // 128 * the sum of its q
};

struct ScreenSink {  // of one query: rows that may be above its floor, and their value's bounds
  int32_t* indices;
  float *lowers, *uppers;
  int64_t size;
};
inline constexpr int64_t kScreenRoom = kScreenBlock + kScreenRows;  // behind size, before a tile

struct ScreenTile {
  int queries;  // of a panel
  // Appends to each query's sink. Returns a bit per query that found something.
  uint32_t (*run)(const ScreenQueries& queries, const ScreenRows& rows, int64_t steps,
                  int32_t first_row, ScreenSink* const* sinks);
};

struct Kernels {
  // A tile is block rows of a matrix against panel queries, both packed by interleaving:
  // packed[i * width + r] = rows[r * dim + i], missing rows 0.
  int panel, block;
  void (*pack_queries)(const float* rows, int64_t n_rows, int64_t dim, float* packed);
  void (*pack_rows)(const float* rows, int64_t n_rows, int64_t dim, float* packed);

  // out[r * panel + q] = bias[r] + row r . query q. Returns a bit per row that holds a value above
  // its query's floor; where no bit is set, out is not written. NaN is above nothing.
  uint32_t (*tile)(const float* queries, const float* rows, int64_t dim, const float* bias,
                   const float* floors, float* out);

  // out[q * n_rows + r] = query q . row r, for few queries: no packing.
  void (*dots)(const float* queries, int64_t n_queries, const float* rows, int64_t n_rows,
               int64_t dim, float* out);

  // sum[c] += sum_j weights[j] * table[ids[j] * stride + c], c < width, in the order of j. Negative
  // ids are skipped; null ids count 0, 1, 2 ...; null weights are 1.
  void (*gather_sum)(const float* table, int64_t stride, int64_t width, const int32_t* ids,
                     const float* weights, int64_t n, float* sum);

  // out[j] = vector . table[ids[j]], 0 where the id is negative.
  void (*gather_dots)(const float* table, int64_t dim, const int32_t* ids, int64_t n,
                      const float* vector, float* out);

  // out[j] = lefts[j] . rights[j], each as gather_dots adds it up.
  void (*pair_dots)(const float* const* lefts, const float* const* rights, int64_t n, int64_t dim,
                    float* out);

  // to[0 .. padded) = x in 8 bits, 0 from dim on.
  Quantised (*quantise)(const float* x, int64_t dim, int64_t padded, int8_t* to);

  // A number that at least k of the values reach, close to the largest such; -inf where fewer than
  // k are above -inf.
  float (*reached_by)(int64_t k, const float* values, int64_t n);

  // Drops from the sink what is not above the floor; the others keep their order.
  void (*keep_above)(float floor, ScreenSink* sink);

  // The tile that suits so many queries; null where the machine cannot multiply bytes.
  ScreenTile (*screen)(int64_t n_queries);
};

const Kernels& kernels(Isa isa);  // kBest: the best that this machine supports

const Kernels& kernels_baseline();
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
const Kernels& kernels_avx512vnni();

}  // namespace cfsae::cpu
