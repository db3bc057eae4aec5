// A weighted sum of a folded table's rows, prepared once and then added by ranges of columns.
#pragma once

#include <cstdint>
#include <vector>

#include "api.h"
#include "cpu/folded_kernels.h"

namespace cfsae::cpu {

class RowSum {
 public:
  explicit RowSum(const FoldedKernels& kernels) : kernels_(kernels) {}

  // sum_j weights[j] * row ids[j]; negative ids count nothing, weights null: all 1.
  void set(const FoldedTable& table, const int32_t* ids, const float* weights, int64_t n);

  // The same with weights rounded to 15 bits, where the machine gains by it. Returns by how much
  // any sum may be off for it.
  double set_rounded(const FoldedTable& table, const int32_t* ids, const float* weights, int64_t n);

  // sum[c] += column first + c, c < width.
  void add(int64_t first, int64_t width, float* sum) const;

 private:
  const FoldedKernels& kernels_;
  std::vector<const int8_t*> rows_;
  std::vector<float> weights_;
  std::vector<QuadWeights> quads_;  // empty: weights_ count
  float unit_ = 0.0f;
};

}  // namespace cfsae::cpu
