// One row's approximate values and what a bound on their error cannot exclude, rescored in fp32.
#pragma once

#include <cstdint>
#include <vector>

#include "api.h"
#include "cpu/folded_kernels.h"
#include "cpu/scratch.h"

namespace cfsae::cpu {

inline constexpr double kUnit = 1.0 / (1 << 24);  // relative rounding error of one fp32 operation

struct ExactTail {  // value = query . row + bias, as top_scan computes it for few queries
  Matrix rows;
  const float* bias;  // null: 0
  const float* query;
  float floor, empty;  // only values above the floor are kept
};

class Screen {
 public:
  Screen(int64_t n, const Execution& execution);

  // The sums start as factor * start (null: 0).
  void begin(const float* start, float factor);
  void add(const FoldedTable& table, const int32_t* ids, const float* weights, int64_t n);
  void exclude(const int32_t* ids, int64_t n);
  void exclude_disallowed(const uint8_t* allowed);
  void finish(float scale, const Term (&terms)[3]);

  // Writes the k best of the tail's values, given that no finished value is further than `bound`
  // from it. False, and nothing is written, where the bound leaves too many.
  bool top(const ExactTail& tail, double bound, int64_t k, int32_t* indices, float* values);

 private:
  bool gather_survivors(double bound, double floor, int64_t k);
  double kth_largest(int64_t k, const float* values, int64_t n);

  const int64_t n_;
  const Execution execution_;
  const FoldedKernels& folded_;
  const Scratch<float> values_, maxima_;
  std::vector<float> weights_, ranked_;
  std::vector<int32_t> found_;
};

// sum_j |weight_j| and sum_j |weight_j| * errors[id_j], over the ids that are not negative.
struct Weighed {
  double total = 0.0, error = 0.0;
};
Weighed weigh(const FoldedTable& table, const int32_t* ids, const float* weights, int64_t n);

double length_of(const float* x, int64_t n);

}  // namespace cfsae::cpu
