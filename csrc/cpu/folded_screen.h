// One row's approximate values and what a bound on their error cannot exclude, rescored in fp32.
#pragma once

#include <cstdint>
#include <vector>

#include "api.h"
#include "cpu/candidates.h"
#include "cpu/folded_kernels.h"
#include "cpu/row_sum.h"
#include "cpu/scratch.h"
#include "folded_bounds.h"

namespace cfsae::cpu {

struct ExactTail {  // value = query . row + bias, as top_scan computes it for few queries
  Matrix rows;
  const float* bias;  // null: 0
  const float* query;
  float floor, empty;  // only values above the floor are kept
};

// value[c] = scale * (factor * start[c] + sum_j weights[j] * row ids[j] of the table) + terms; -inf
// where c is excluded.
struct ScreenSum {
  const FoldedTable& table;
  const int32_t* ids;    // negative ones count nothing
  const float* weights;  // null: all 1
  int64_t n;
  float scale;
  Term terms[3];
  const float* start = nullptr;  // null: 0
  float factor = 0.0f;
  const int32_t* excluded = nullptr;
  int64_t n_excluded = 0;
  const uint8_t* allowed = nullptr;  // null: all
};

class Screen {
 public:
  Screen(int64_t n, const Execution& execution);

  // Computes the approximate values, a range of columns after the other.
  void compute(const ScreenSum& sum);

  // Writes the k best of the tail's values, given that no finished value is further than `bound`
  // from it, but for the weights' rounding. False, and nothing is written, where the bound leaves
  // too many.
  bool top(const ExactTail& tail, double bound, int64_t k, int32_t* indices, float* values);

 private:
  void compute_range(const ScreenSum& sum, int64_t first, int64_t last);
  bool gather_survivors(double bound, double floor, int64_t k);
  void keep_above(float line);  // of what was found
  void rescore(const ExactTail& tail, const int32_t* ids, int64_t n, std::vector<Key>& keys) const;
  double reached_by(int64_t k, const float* values, int64_t n) const;

  const int64_t n_;
  const Execution execution_;
  const FoldedKernels& folded_;
  const Scratch<float> values_, maxima_;
  RowSum rows_;
  double slack_ = 0.0;  // what the values are off by for rounded weights
  std::vector<float> kept_;
  std::vector<int32_t> found_;
};

// Over the ids that are not negative.
Weighed weigh(const FoldedTable& table, const int32_t* ids, const float* weights, int64_t n);

double length_of(const float* x, int64_t n);

}  // namespace cfsae::cpu
