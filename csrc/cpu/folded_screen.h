// One row's approximate values and what a bound on their error cannot exclude, rescored in fp32.
#pragma once

#include <cstdint>
#include <vector>

#include "api.h"
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

// value[c] = scale * sum_j weights[j] * row ids[j] of the table, + terms; -inf where c is excluded.
struct ScreenSum {
  const FoldedTable& table;
  const int32_t* ids;    // negative ones count nothing
  const float* weights;  // null: all 1
  int64_t n;
  float scale;
  Term terms[kTerms];
  const int32_t* excluded = nullptr;
  int64_t n_excluded = 0;
  const uint8_t* allowed = nullptr;  // null: all
};

struct Found {  // of one row: columns that may be among its best, by rising column
  std::vector<int32_t> ids;
  std::vector<float> values;
  double slack = 0.0;     // what the values are off by for rounded weights
  bool too_many = false;  // looked alike: nothing is kept
};

class Screen {
 public:
  Screen(int64_t n_columns, int64_t columns_at_once, const Execution& execution);

  // Computes columns first .. last - 1 of the row, at most columns_at_once, and adds to `found`
  // what may be among its k best, given that no value is further than `bound` from the tail's, but
  // for the weights' rounding. Ranges come in rising order.
  void add(const ScreenSum& sum, int64_t first, int64_t last, double bound, float floor, int64_t k,
           Found& found);

  // After all columns: writes the k best of the tail's values, and leaves `found` empty. False, and
  // nothing is written, where the bound left too many.
  bool decide(const ExactTail& tail, double bound, int64_t k, Found& found, int32_t* indices,
              float* values) const;

  // Both, for all columns at once.
  bool top(const ScreenSum& sum, const ExactTail& tail, double bound, int64_t k, int32_t* indices,
           float* values);

 private:
  void compute(const ScreenSum& sum, int64_t first, int64_t last);
  void compute_range(const ScreenSum& sum, int64_t first, int64_t last, float* values,
                     float* maxima) const;
  void gather(int64_t first, int64_t n, double bound, float floor, int64_t k, Found& found);
  double reached_by(int64_t k, const std::vector<float>& values) const;

  const int64_t n_columns_;
  const Execution execution_;
  const FoldedKernels& folded_;
  const Scratch<float> values_, maxima_;  // of the columns at once
  RowSum rows_;
  std::vector<float> reached_;
  Found own_;
};

// Over the ids that are not negative.
Weighed weigh(const FoldedTable& table, const int32_t* ids, const float* weights, int64_t n);

double length_of(const float* x, int64_t n);

}  // namespace cfsae::cpu
