// What the workers of a scan could not exclude, for a range of its queries.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/deciding.h"
#include "cpu/kernels.h"
#include "cpu/seen_items.h"
#include "cpu/survivors.h"
#include "cpu/top_scan.h"

namespace cfsae::cpu {

class Sieve {
 public:
  Sieve(const TopScan& scan, int64_t first_query, int64_t n_queries, int64_t k, int workers,
        const Execution& execution);

  // One for each query. A worker asks for its own only.
  std::vector<Survivors>& of_worker(int worker);

  // After rows from first_row on were added for the query: those that it has seen go, the next
  // kScreenRoom get room. Returns the floor that rows must now be above.
  float settle(Survivors& its, int64_t query, int64_t first_row) const;

  // So many looked alike that the query has no answer here.
  bool overflowed(int64_t query) const;

  // What all workers together cannot exclude for the query.
  void merge(int64_t query, Contenders& all);

 private:
  const TopScan& scan_;
  const Kernels& kernels_;
  const int64_t n_queries_, k_;
  std::unique_ptr<SeenItems> seen_;
  std::vector<std::vector<Survivors>> found_;  // by worker and query
};

}  // namespace cfsae::cpu
