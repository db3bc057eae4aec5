#include "cpu/sieve.h"

#include <algorithm>
#include <limits>

#include "parallel.h"

namespace cfsae::cpu {

Sieve::Sieve(const TopScan& scan, int64_t first_query, int64_t n_queries, int64_t k, int workers,
             const Execution& execution)
    : scan_(scan),
      execution_(execution),
      kernels_(kernels(execution.isa)),
      first_query_(first_query),
      n_queries_(n_queries),
      k_(k),
      found_(workers) {
  if (scan.seen != nullptr) {
    seen_ = std::make_unique<SeenItems>(*scan.seen, first_query, n_queries, execution.threads);
  }
}

std::vector<Survivors>& Sieve::of_worker(int worker) {
  std::vector<Survivors>& found = found_[worker];
  if (found.empty()) {
    found.resize(n_queries_);
    for (Survivors& one : found) {
      one.start(std::min(k_, scan_.rows.n_rows), scan_.floor, kernels_);
    }
  }
  return found;
}

float Sieve::settle(Survivors& its, int64_t query, int64_t first_row) const {
  if (seen_) {
    int64_t fresh = its.size();
    while (fresh > 0 && its.index(fresh - 1) >= first_row) --fresh;
    its.drop(fresh, [&](int32_t row) { return seen_->has(query, row); });
  }
  its.make_room();
  return its.floor();
}

bool Sieve::overflowed(int64_t query) const {
  return std::any_of(found_.begin(), found_.end(), [query](const std::vector<Survivors>& worker) {
    return !worker.empty() && worker[query].overflowed();
  });
}

// What all workers together cannot exclude.
void Sieve::merge(int64_t query, std::vector<Contender>& kept) {
  std::vector<float> lowers;
  for (const auto& worker : found_) {
    if (worker.empty()) continue;
    const float* const its = worker[query].lowers();
    lowers.insert(lowers.end(), its, its + worker[query].size());
  }
  const auto n = static_cast<int64_t>(lowers.size());
  const float least =
      n < k_ ? -std::numeric_limits<float>::infinity() : kernels_.reached_by(k_, lowers.data(), n);
  for (auto& worker : found_) {
    if (worker.empty()) continue;
    Survivors& its = worker[query];
    its.exclude_below(least);
    const auto middle = static_cast<std::ptrdiff_t>(kept.size());
    kept.reserve(kept.size() + its.size());
    for (int64_t j = 0; j < its.size(); ++j) {
      const float lower = its.lowers()[j], upper = its.upper(j);
      kept.push_back({its.index(j), 0.5f * lower + 0.5f * upper, upper});
    }
    std::inplace_merge(
        kept.begin(), kept.begin() + middle, kept.end(),
        [](const Contender& one, const Contender& other) { return one.index < other.index; });
  }
}

void Sieve::decide(const bool* usable, int32_t* indices, float* values) {
  const int64_t n_tasks = std::min<int64_t>(n_queries_, execution_.threads);
  const int64_t share = (n_queries_ + n_tasks - 1) / std::max<int64_t>(n_tasks, 1);
  parallel_for(n_tasks, workers_for(n_queries_ << 16, execution_.threads), [&](int64_t task, int) {
    const int64_t first = task * share;
    decide(usable, first, std::min(share, n_queries_ - first), indices, values);
  });
}

void Sieve::decide(const bool* usable, int64_t first, int64_t n, int32_t* indices, float* values) {
  if (n <= 0) return;
  Deciding deciding(scan_, kernels_, first_query_ + first, n, k_);
  for (int64_t q = 0; q < n; ++q) {
    const int64_t query = first + q;
    if (usable[query] && !overflowed(query)) merge(query, deciding.answer(q));
  }
  deciding.run(indices + first * k_, values + first * k_);
}

}  // namespace cfsae::cpu
