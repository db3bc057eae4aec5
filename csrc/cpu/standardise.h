// What stands before the encoder: a row's stats, and the row standardised and centred. One copy, so
// that the folded path rescoring a latent sees the same floats as topk_encode.
#pragma once

#include <cmath>
#include <cstdint>

#include "api.h"

namespace cfsae::cpu {

struct RowStats {
  double mean, deviation;  // the unbiased one, without epsilon; of one dimension: 1 - epsilon
};

inline RowStats row_stats(const float* x, int64_t dim) {
  double sum = 0.0, squares = 0.0;
  for (int64_t c = 0; c < dim; ++c) sum += x[c];
  const double mean = sum / static_cast<double>(dim);
  if (dim == 1) return {mean, 1.0 - kStdEpsilon};
  for (int64_t c = 0; c < dim; ++c) squares += (x[c] - mean) * (x[c] - mean);
  return {mean, std::sqrt(squares / static_cast<double>(dim - 1))};
}

// to = (x - mean) / std - centre
inline void centre_row(const float* x, float mean, float std, const float* centre, int64_t dim,
                       float* to) {
  for (int64_t c = 0; c < dim; ++c) to[c] = (x[c] - mean) / std - centre[c];
}

}  // namespace cfsae::cpu
