// A matrix in 8 bits beside what its rows lost by it: enough to say which rows a query can exclude.
//
// u . w = (p + r) . (q + s), p and q what 8 bits hold, r and s the rests, so that p . q is off by
// at most |p| |s| + |r| |w| (Cauchy-Schwarz), plus the rounding of fp32 sums. All bounds are
// rounded up.
#pragma once

#include <cstdint>

#include "api.h"
#include "cpu/kernels.h"

namespace cfsae::cpu {

struct ScreenView {  // of memory laid out by make_screen
  bool usable;       // no: some row is not finite, or too long for the bounds to be floats
  int64_t steps;     // of kScreenWidth columns
  const uint8_t* data;
  const float *scale, *norm, *error;  // per row, padded to whole blocks of kScreenBlock

  const uint8_t* block(int64_t row) const { return data + row * steps * kScreenWidth; }
};

ScreenView view_screen(const uint8_t* screen, int64_t n_rows, int64_t dim);

// A panel of `width` queries, of which rows (n_rows <= width, dim) are given; the scan sets floors.
// packed: memory for width * steps * kScreenWidth bytes. usable[q]: the row can be bounded.
ScreenQueries quantise_queries(const Matrix& rows, int width, const Kernels& kernels,
                               int8_t* packed, bool* usable);

}  // namespace cfsae::cpu
