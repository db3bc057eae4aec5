// What no bound has excluded, for some queries of a scan, and of it the k best of each, in fp32.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/candidates.h"
#include "cpu/kernels.h"
#include "cpu/top_scan.h"

namespace cfsae::cpu {

struct Contenders {  // of one query: rows whose value is at most upper, and probably near middle
  std::vector<int32_t> ids;
  std::vector<float> middles, uppers;
};

// `query` of a range starts at first_query.
class Deciding {
 public:
  Deciding(const TopScan& scan, int64_t first_query, int64_t n_queries, int64_t k,
           const Execution& execution);

  // The query will be answered, from contenders to be filled in, the k best among them. Several
  // threads may ask for queries of their own.
  Contenders& answer(int64_t query) {
    queries_[query].answered = true;
    return queries_[query].left;
  }
  bool answers(int64_t query) const { return queries_[query].answered; }

  // Writes the answers (n_queries, k) of the queries that will be.
  void run(int32_t* indices, float* values);

 private:
  struct Query {
    bool answered = false;
    Contenders left;              // neither computed nor excluded
    std::vector<int32_t> wanted;  // to compute now
    std::vector<float> products;  // of what is wanted
    std::vector<Key> decided;     // of what was computed
  };
  struct Pair {
    int32_t query, place;  // of a wanted row
  };

  template <typename Body>
  void for_each_query(const Body& body);
  void choose_first(Query& its) const;
  void exclude_rest(Query& its) const;
  void compute();
  void compute_one(Query& its);
  std::vector<Pair> by_ranges(int64_t rows_at_once, std::vector<int64_t>& starts) const;
  void multiply(const Pair* pairs, int64_t n);
  void collect(Query& its) const;
  void write(Query& its, int32_t* indices, float* values) const;

  const TopScan& scan_;
  const Execution execution_;
  const Kernels& kernels_;
  const int64_t first_query_, k_;
  std::vector<Query> queries_;
};

}  // namespace cfsae::cpu
