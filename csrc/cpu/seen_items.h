// The seen items of a range of queries, sorted within each, so that one is found by bisection.
#pragma once

#include <algorithm>
#include <cstdint>

#include "api.h"
#include "cpu/scratch.h"
#include "parallel.h"

namespace cfsae::cpu {

class SeenItems {
 public:
  SeenItems(const RowsView& seen, int64_t first_query, int64_t n_queries, int threads)
      : offsets_(seen.offsets + first_query), items_(offsets_[n_queries] - offsets_[0]) {
    std::copy_n(seen.items + offsets_[0], offsets_[n_queries] - offsets_[0], items_.data());
    const int64_t total = offsets_[n_queries] - offsets_[0];
    parallel_for(n_queries, workers_for(16 * total, threads), [&](int64_t query, int) {
      if (!std::is_sorted(begin(query), end(query))) std::sort(begin(query), end(query));
    });
  }
  bool has(int64_t query, int32_t item) const {
    return std::binary_search(begin(query), end(query), item);
  }

 private:
  int32_t* begin(int64_t query) const { return items_.data() + (offsets_[query] - offsets_[0]); }
  int32_t* end(int64_t query) const { return begin(query + 1); }

  const int64_t* offsets_;
  Scratch<int32_t> items_;
};

}  // namespace cfsae::cpu
