// The k that look best are computed first. The least of their values has no slack, and excludes
// most of the other contenders before they cost anything.
#include "cpu/deciding.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "cpu/candidates.h"

namespace cfsae::cpu {
namespace {

constexpr int64_t kBytesAtOnce = 768 << 10;  // of the matrix, shared by the queries

}  // namespace

Deciding::Deciding(const TopScan& scan, const Kernels& kernels, int64_t first_query,
                   int64_t n_queries, int64_t k)
    : scan_(scan),
      kernels_(kernels),
      first_query_(first_query),
      k_(k),
      answered_(n_queries, false),
      contenders_(n_queries),
      wanted_(n_queries),
      decided_(n_queries) {}

void Deciding::run(int32_t* indices, float* values) {
  const int64_t n_queries = static_cast<int64_t>(contenders_.size());
  for (int64_t q = 0; q < n_queries; ++q) choose_first(q);
  compute();
  for (int64_t q = 0; q < n_queries; ++q) exclude_rest(q);
  compute();
  for (int64_t q = 0; q < n_queries; ++q) {
    if (answered_[q]) write(q, indices + q * k_, values + q * k_);
  }
}

void Deciding::choose_first(int64_t query) {
  std::vector<Contender>& all = contenders_[query];
  std::vector<int32_t>& wanted = wanted_[query];
  float line = -std::numeric_limits<float>::infinity();
  if (static_cast<int64_t>(all.size()) > k_ + k_ / 4) {
    std::vector<float> middles(all.size());
    for (size_t j = 0; j < all.size(); ++j) middles[j] = all[j].middle;
    line = kernels_.reached_by(k_, middles.data(), static_cast<int64_t>(middles.size()));
  }
  wanted.reserve(all.size());
  decided_[query].reserve(all.size());
  size_t to = 0;
  for (const Contender& one : all) {
    if (one.middle >= line) {
      wanted.push_back(one.index);
    } else {
      all[to++] = one;
    }
  }
  all.resize(to);
}

void Deciding::exclude_rest(int64_t query) {
  std::vector<int32_t>& wanted = wanted_[query];
  wanted.clear();
  if (contenders_[query].empty()) return;
  // at least k were computed: what cannot reach the k-th of them is out; a tie stays in
  std::vector<Key>& keys = decided_[query];
  float line = scan_.floor;
  if (static_cast<int64_t>(keys.size()) >= k_) {
    std::nth_element(keys.begin(), keys.begin() + (k_ - 1), keys.end(), std::greater<Key>());
    line = value_of(keys[k_ - 1]);
  }
  for (const Contender& one : contenders_[query]) {
    if (one.upper >= line) wanted.push_back(one.index);
  }
}

// A range of the matrix at a time, so that it is read once for all the queries.
void Deciding::compute() {
  const int64_t n_queries = static_cast<int64_t>(wanted_.size()), dim = scan_.rows.dim;
  const int64_t row_bytes = std::max<int64_t>(1, dim) * static_cast<int64_t>(sizeof(float));
  const int64_t range =
      n_queries == 1 ? scan_.rows.n_rows : std::max<int64_t>(1, kBytesAtOnce / row_bytes);
  std::vector<size_t> next(n_queries, 0);
  std::vector<Pair> pairs;
  for (int64_t row = 0; row < scan_.rows.n_rows; row += range) {
    pairs.clear();
    for (int64_t q = 0; q < n_queries; ++q) {
      const std::vector<int32_t>& wanted = wanted_[q];
      for (; next[q] < wanted.size() && wanted[next[q]] < row + range; ++next[q]) {
        pairs.push_back({q, wanted[next[q]]});
      }
    }
    compute(pairs);
  }
}

void Deciding::compute(const std::vector<Pair>& pairs) {
  const int64_t n = static_cast<int64_t>(pairs.size());
  std::vector<const float*> lefts(n), rights(n);
  for (int64_t j = 0; j < n; ++j) {
    lefts[j] = scan_.queries.row(first_query_ + pairs[j].query);
    rights[j] = scan_.rows.row(pairs[j].index);
  }
  std::vector<float> products(n);
  kernels_.pair_dots(lefts.data(), rights.data(), n, scan_.rows.dim, products.data());
  for (int64_t j = 0; j < n; ++j) {
    const int32_t index = pairs[j].index;
    const float value = products[j] + (scan_.bias == nullptr ? 0.0f : scan_.bias[index]);
    if (value > scan_.floor) decided_[pairs[j].query].push_back(make_key(value, index));
  }
}

void Deciding::write(int64_t query, int32_t* indices, float* values) const {
  std::vector<Key> keys = decided_[query];
  const int64_t n = std::min<int64_t>(k_, static_cast<int64_t>(keys.size()));
  std::partial_sort(keys.begin(), keys.begin() + n, keys.end(), std::greater<Key>());
  for (int64_t j = 0; j < k_; ++j) {
    indices[j] = j < n ? index_of(keys[j]) : kPadding;
    values[j] = j < n ? value_of(keys[j]) : scan_.empty;
  }
}

}  // namespace cfsae::cpu
