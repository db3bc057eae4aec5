// A sparse matrix turned round: for every target, the rows that name it, in rising order. Turns a
// scatter-add into a gather per target: deterministic, and only touched targets are read.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels.h"

namespace cfsae::cpu {

struct Entry {
  int64_t row;
  int32_t target;  // negative: skipped
  float weight;
};

class Grouped {
 public:
  // entry(j) gives the j-th of n entries; they are grouped by counting, in the order of j.
  template <typename EntryOf>
  Grouped(int64_t n_targets, int64_t n, const EntryOf& entry)
      : starts_(n_targets + 1), rows_(n), weights_(n) {
    for (int64_t j = 0; j < n; ++j) {
      const Entry e = entry(j);
      if (e.target >= 0) ++starts_[e.target + 1];
    }
    for (int64_t t = 0; t < n_targets; ++t) starts_[t + 1] += starts_[t];
    std::vector<int64_t> next(starts_.begin(), starts_.end() - 1);
    for (int64_t j = 0; j < n; ++j) {
      const Entry e = entry(j);
      if (e.target < 0) continue;
      const int64_t at = next[e.target]++;
      rows_[at] = static_cast<int32_t>(e.row);
      weights_[at] = e.weight;
    }
  }

  // out[t] = sum over the entries of target t of weight * table[row]; zero where there are none.
  void gather(const Matrix& table, float* out, const Execution& execution) const;

  // out[t] += the same; targets without entries are not read.
  void add(const Matrix& table, float* out, const Execution& execution) const;

  // out[t] = sum of the weights of target t.
  void weight_sums(float* out) const;

 private:
  void gather(const Matrix& table, bool onto, float* out, const Execution& execution) const;
  int64_t n_targets() const { return static_cast<int64_t>(starts_.size()) - 1; }

  std::vector<int64_t> starts_;
  std::vector<int32_t> rows_;
  std::vector<float> weights_;
};

// out[c] = sum_b weights[b] * table[b][c], in the order of b; null weights are 1.
void column_sums(const Matrix& table, const float* weights, float* out, const Execution& execution);

}  // namespace cfsae::cpu
