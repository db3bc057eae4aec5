// The last step of a screened scan: of the rows that were not excluded, the k best, in fp32.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/top_scan.h"

namespace cfsae::cpu {

struct Contender {  // its value is at most upper, and probably near middle
  int32_t index;
  float middle, upper;
};

// The contenders of some queries of a scan; `query` of a range starts at first_query.
class Deciding {
 public:
  Deciding(const TopScan& scan, const Kernels& kernels, int64_t first_query, int64_t n_queries,
           int64_t k);

  // The query will be answered, from contenders to be filled in: rising indices, the k best among
  // them.
  std::vector<Contender>& answer(int64_t query) {
    answered_[query] = true;
    return contenders_[query];
  }

  // Writes the answers (n_queries, k) of the queries that will be.
  void run(int32_t* indices, float* values);

 private:
  void choose_first(int64_t query);
  void exclude_rest(int64_t query);
  struct Pair {
    int64_t query;
    int32_t index;
  };
  void compute();  // what is wanted
  void compute(const std::vector<Pair>& pairs);
  void write(int64_t query, int32_t* indices, float* values) const;

  const TopScan& scan_;
  const Kernels& kernels_;
  const int64_t first_query_, k_;
  std::vector<bool> answered_;
  std::vector<std::vector<Contender>> contenders_;
  std::vector<std::vector<int32_t>> wanted_;    // to compute now, rising
  std::vector<std::vector<uint64_t>> decided_;  // keys of what was computed
};

}  // namespace cfsae::cpu
