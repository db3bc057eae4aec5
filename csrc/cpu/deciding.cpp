// The k that look best are computed first. The least of their values has no slack, and excludes
// most of the other contenders before they cost anything.
#include "cpu/deciding.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "parallel.h"

namespace cfsae::cpu {
namespace {

constexpr int64_t kBytesAtOnce = 768 << 10;  // of the matrix, shared by the queries
constexpr int64_t kQueriesPerTask = 32, kPairsPerTask = 16;
constexpr int64_t kOperationsPerQuery = 1 << 13;  // what its choices cost, in multiply-adds

}  // namespace

Deciding::Deciding(const TopScan& scan, int64_t first_query, int64_t n_queries, int64_t k,
                   const Execution& execution)
    : scan_(scan),
      execution_(execution),
      kernels_(kernels(execution.isa)),
      first_query_(first_query),
      k_(k),
      queries_(n_queries) {}

void Deciding::run(int32_t* indices, float* values) {
  for_each_query([&](int64_t q) {
    choose_first(queries_[q]);
    queries_[q].products.resize(queries_[q].wanted.size());
  });
  compute();
  for_each_query([&](int64_t q) {
    collect(queries_[q]);
    exclude_rest(queries_[q]);
    queries_[q].products.resize(queries_[q].wanted.size());
  });
  compute();
  for_each_query([&](int64_t q) {
    collect(queries_[q]);
    if (queries_[q].answered) write(queries_[q], indices + q * k_, values + q * k_);
  });
}

template <typename Body>
void Deciding::for_each_query(const Body& body) {
  const int64_t n = static_cast<int64_t>(queries_.size());
  const int workers = workers_for(n * kOperationsPerQuery, execution_.threads);
  parallel_for((n + kQueriesPerTask - 1) / kQueriesPerTask, workers, [&](int64_t task, int) {
    const int64_t last = std::min(n, (task + 1) * kQueriesPerTask);
    for (int64_t q = task * kQueriesPerTask; q < last; ++q) body(q);
  });
}

void Deciding::choose_first(Query& its) const {
  Contenders& left = its.left;
  const auto n = static_cast<int64_t>(left.ids.size());
  if (n <= k_ + k_ / 4) {
    its.wanted.swap(left.ids);
    return;
  }
  const float line = kernels_.reached_by(k_, left.middles.data(), n);
  int64_t to = 0;
  for (int64_t j = 0; j < n; ++j) {
    if (left.middles[j] >= line) {
      its.wanted.push_back(left.ids[j]);
    } else {
      left.ids[to] = left.ids[j];
      left.uppers[to++] = left.uppers[j];
    }
  }
  left.ids.resize(to);
}

void Deciding::exclude_rest(Query& its) const {
  its.wanted.clear();
  if (its.left.ids.empty()) return;
  // at least k were computed: what cannot reach the k-th of them is out; a tie stays in
  std::vector<Key>& keys = its.decided;
  float line = scan_.floor;
  if (static_cast<int64_t>(keys.size()) >= k_) {
    std::nth_element(keys.begin(), keys.begin() + (k_ - 1), keys.end(), std::greater<Key>());
    line = value_of(keys[k_ - 1]);
  }
  for (size_t j = 0; j < its.left.ids.size(); ++j) {
    if (its.left.uppers[j] >= line) its.wanted.push_back(its.left.ids[j]);
  }
}

// A range of the matrix at a time, so that it is read once for all the queries.
void Deciding::compute() {
  if (queries_.size() == 1) return compute_one(queries_[0]);
  const int64_t row_bytes = std::max<int64_t>(1, scan_.rows.dim) * int64_t{sizeof(float)};
  std::vector<int64_t> starts;
  const std::vector<Pair> pairs = by_ranges(std::max<int64_t>(1, kBytesAtOnce / row_bytes), starts);
  const int workers =
      workers_for(static_cast<int64_t>(pairs.size()) * scan_.rows.dim, execution_.threads);
  parallel_for(static_cast<int64_t>(starts.size()) - 1, workers, [&](int64_t range, int) {
    multiply(pairs.data() + starts[range], starts[range + 1] - starts[range]);
  });
}

void Deciding::compute_one(Query& its) {
  const auto n = static_cast<int64_t>(its.wanted.size());
  std::vector<Pair> pairs(n);
  for (int64_t j = 0; j < n; ++j) pairs[j] = {0, static_cast<int32_t>(j)};
  const int64_t row_bytes = scan_.rows.dim * int64_t{sizeof(float)};
  const Crew crew = crew_for_reading(n * row_bytes, execution_.threads);
  parallel_for((n + kPairsPerTask - 1) / kPairsPerTask, crew.workers,
               [&](int64_t task, int) {
                 const int64_t first = task * kPairsPerTask;
                 multiply(pairs.data() + first, std::min(kPairsPerTask, n - first));
               },
               crew.wake);
}

// All that is wanted, those of range r from starts[r] on, each range in the order of its queries.
std::vector<Deciding::Pair> Deciding::by_ranges(int64_t rows_at_once,
                                                std::vector<int64_t>& starts) const {
  const auto range = static_cast<int32_t>(rows_at_once);
  const int64_t n_ranges = (scan_.rows.n_rows + range - 1) / range;
  starts.assign(n_ranges + 1, 0);
  for (const Query& its : queries_) {
    for (const int32_t id : its.wanted) ++starts[id / range + 1];
  }
  for (int64_t r = 0; r < n_ranges; ++r) starts[r + 1] += starts[r];
  std::vector<Pair> pairs(starts[n_ranges]);
  std::vector<int64_t> next(starts.begin(), starts.end() - 1);
  for (size_t q = 0; q < queries_.size(); ++q) {
    const std::vector<int32_t>& wanted = queries_[q].wanted;
    for (size_t j = 0; j < wanted.size(); ++j) {
      pairs[next[wanted[j] / range]++] = {static_cast<int32_t>(q), static_cast<int32_t>(j)};
    }
  }
  return pairs;
}

void Deciding::multiply(const Pair* pairs, int64_t n) {
  std::vector<const float*> lefts(n), rights(n);
  for (int64_t j = 0; j < n; ++j) {
    const Query& its = queries_[pairs[j].query];
    lefts[j] = scan_.queries.row(first_query_ + pairs[j].query);
    rights[j] = scan_.rows.row(its.wanted[pairs[j].place]);
  }
  std::vector<float> products(n);
  kernels_.pair_dots(lefts.data(), rights.data(), n, scan_.rows.dim, products.data());
  for (int64_t j = 0; j < n; ++j) queries_[pairs[j].query].products[pairs[j].place] = products[j];
}

void Deciding::collect(Query& its) const {
  its.decided.reserve(its.decided.size() + its.wanted.size());
  for (size_t j = 0; j < its.wanted.size(); ++j) {
    const int32_t id = its.wanted[j];
    const float value = its.products[j] + (scan_.bias == nullptr ? 0.0f : scan_.bias[id]);
    if (value > scan_.floor) its.decided.push_back(make_key(value, id));
  }
}

void Deciding::write(Query& its, int32_t* indices, float* values) const {
  std::vector<Key>& keys = its.decided;
  const int64_t n = std::min<int64_t>(k_, static_cast<int64_t>(keys.size()));
  std::partial_sort(keys.begin(), keys.begin() + n, keys.end(), std::greater<Key>());
  for (int64_t j = 0; j < k_; ++j) {
    indices[j] = j < n ? index_of(keys[j]) : kPadding;
    values[j] = j < n ? value_of(keys[j]) : scan_.empty;
  }
}

}  // namespace cfsae::cpu
