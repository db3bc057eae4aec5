#include "cpu/sieve.h"

#include <algorithm>
#include <limits>

namespace cfsae::cpu {

Sieve::Sieve(const TopScan& scan, int64_t first_query, int64_t n_queries, int64_t k, int workers,
             const Execution& execution)
    : scan_(scan), kernels_(kernels(execution.isa)), n_queries_(n_queries), k_(k), found_(workers) {
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

void Sieve::merge(int64_t query, Contenders& all) {
  std::vector<float>& lowers = all.middles;  // of all workers, for now
  for (const auto& worker : found_) {
    if (worker.empty()) continue;
    const float* const its = worker[query].lowers();
    lowers.insert(lowers.end(), its, its + worker[query].size());
  }
  const auto n = static_cast<int64_t>(lowers.size());
  const float least =
      n < k_ ? -std::numeric_limits<float>::infinity() : kernels_.reached_by(k_, lowers.data(), n);
  lowers.clear();
  for (auto& worker : found_) {
    if (worker.empty()) continue;
    Survivors& its = worker[query];
    its.exclude_below(least);
    all.ids.insert(all.ids.end(), its.ids(), its.ids() + its.size());
    all.uppers.insert(all.uppers.end(), its.uppers(), its.uppers() + its.size());
    for (int64_t j = 0; j < its.size(); ++j) {
      all.middles.push_back(0.5f * its.lowers()[j] + 0.5f * its.uppers()[j]);
    }
  }
}

}  // namespace cfsae::cpu
