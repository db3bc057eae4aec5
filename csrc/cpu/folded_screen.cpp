// If a_i is within b of the exact x_i, and T is the k-th largest a, then k items have x >= T - b,
// and an item with a_i < T - 2 b has x_i < T - b: it is not among the k best, not even by a tie. T
// is first taken from the maxima of blocks, which cannot exceed it, so that one pass finds nearly
// all.
#include "cpu/folded_screen.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "cpu/candidates.h"
#include "cpu/kernels.h"
#include "parallel.h"

namespace cfsae::cpu {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();
constexpr int64_t kColumnsPerTask = 4096;  // whole blocks; their sums stay in L1
static_assert(kColumnsPerTask % kFoldedBlock == 0);
constexpr int64_t kDotsPerTask = 16;
constexpr int64_t kRowsOfPasses = 8;  // what the passes over the sums cost, in rows of the table

int64_t n_blocks(int64_t n) { return (n + kFoldedBlock - 1) / kFoldedBlock; }

// A float that is not above x.
float not_above(double x) {
  const float rounded = static_cast<float>(x);
  return std::nextafterf(rounded, kNothing);
}

}  // namespace

Screen::Screen(int64_t n, const Execution& execution)
    : n_(n),
      execution_(execution),
      folded_(folded_kernels(execution.isa)),
      values_(n),
      maxima_(n_blocks(n)),
      rows_(folded_) {}

void Screen::compute(const ScreenSum& sum) {
  slack_ = std::abs(sum.scale) * rows_.set_rounded(sum.table, sum.ids, sum.weights, sum.n);
  const int64_t n_tasks = (n_ + kColumnsPerTask - 1) / kColumnsPerTask;
  const Crew crew = crew_for_reading((sum.n + kRowsOfPasses) * n_, execution_.threads);
  parallel_for(
      n_tasks, crew.workers,
      [&](int64_t task, int) {
        const int64_t first = task * kColumnsPerTask;
        compute_range(sum, first, std::min(n_, first + kColumnsPerTask));
      },
      crew.wake);
}

void Screen::compute_range(const ScreenSum& sum, int64_t first, int64_t last) {
  float* const values = values_.data();
  if (sum.start == nullptr || sum.factor == 0.0f) {
    std::fill(values + first, values + last, 0.0f);
  } else {
    for (int64_t c = first; c < last; ++c) values[c] = sum.factor * sum.start[c];
  }
  rows_.add(first, last - first, values + first);
  for (int64_t j = 0; j < sum.n_excluded; ++j) {
    const int64_t c = sum.excluded[j];
    if (first <= c && c < last) values[c] = kNothing;
  }
  if (sum.allowed != nullptr) {
    for (int64_t c = first; c < last; ++c) {
      if (sum.allowed[c] == 0) values[c] = kNothing;
    }
  }
  Term terms[3];
  for (int t = 0; t < 3; ++t) {
    const float* const vector = sum.terms[t].vector;
    terms[t] = {vector == nullptr ? nullptr : vector + first, sum.terms[t].factor};
  }
  folded_.finish(values + first, last - first, sum.scale, terms,
                 maxima_.data() + first / kFoldedBlock);
}

// A number that k of the values reach, close to the largest such.
double Screen::reached_by(int64_t k, const float* values, int64_t n) const {
  return n < k ? kNothing : kernels(execution_.isa).reached_by(k, values, n);
}

bool Screen::gather_survivors(double bound, double floor, int64_t k) {
  constexpr float kLowest = -std::numeric_limits<float>::max();
  const int64_t most = std::max<int64_t>(4 * k + 64, n_ / 4);
  const auto line = [&](double kth) {
    return std::max(kLowest, not_above(std::max(kth - 2.0 * bound, floor - bound)));
  };
  const float first_line = line(reached_by(k, maxima_.data(), n_blocks(n_)));
  found_.clear();
  kept_.clear();
  for (int64_t block = 0; block < n_blocks(n_); ++block) {
    if (!(maxima_[block] >= first_line)) continue;
    const int64_t last = std::min(n_, (block + 1) * kFoldedBlock);
    for (int64_t c = block * kFoldedBlock; c < last; ++c) {
      if (!(values_[c] >= first_line)) continue;
      found_.push_back(static_cast<int32_t>(c));
      kept_.push_back(values_[c]);
    }
  }
  if (static_cast<int64_t>(found_.size()) > k) {
    keep_above(line(reached_by(k, kept_.data(), static_cast<int64_t>(kept_.size()))));
  }
  return static_cast<int64_t>(found_.size()) <= most;
}

void Screen::keep_above(float line) {
  size_t to = 0;
  for (size_t j = 0; j < found_.size(); ++j) {
    if (!(kept_[j] >= line)) continue;
    found_[to] = found_[j];
    kept_[to++] = kept_[j];
  }
  found_.resize(to);
  kept_.resize(to);
}

void Screen::rescore(const ExactTail& tail, const int32_t* ids, int64_t n,
                     std::vector<Key>& keys) const {
  const Scratch<float> dots(n);
  const Kernels& k = kernels(execution_.isa);
  const int64_t row_bytes = tail.rows.dim * static_cast<int64_t>(sizeof(float));
  const Crew crew = crew_for_reading(n * row_bytes, execution_.threads);
  parallel_for((n + kDotsPerTask - 1) / kDotsPerTask, crew.workers,
               [&](int64_t task, int) {
                 const int64_t first = task * kDotsPerTask;
                 k.gather_dots(tail.rows.data, tail.rows.dim, ids + first,
                               std::min(kDotsPerTask, n - first), tail.query, dots.data() + first);
               },
               crew.wake);
  for (int64_t j = 0; j < n; ++j) {
    const float value = dots[j] + (tail.bias == nullptr ? 0.0f : tail.bias[ids[j]]);
    if (value > tail.floor) keys.push_back(make_key(value, ids[j]));
  }
}

bool Screen::top(const ExactTail& tail, double bound, int64_t k, int32_t* indices, float* values) {
  const int64_t wanted = std::min(k, n_);
  bound += slack_;
  if (wanted == 0 || !gather_survivors(bound, tail.floor, wanted)) return wanted == 0 && k == 0;
  std::vector<Key> keys;
  keys.reserve(found_.size());
  if (static_cast<int64_t>(found_.size()) > 2 * wanted) {
    // The k that look best are computed first: the least of them is a floor without a bound's
    // slack.
    const double kth = reached_by(wanted, kept_.data(), static_cast<int64_t>(kept_.size()));
    std::vector<int32_t> first;
    size_t to = 0;
    for (size_t j = 0; j < found_.size(); ++j) {
      if (kept_[j] >= kth) {
        first.push_back(found_[j]);
      } else {
        found_[to] = found_[j];
        kept_[to++] = kept_[j];
      }
    }
    found_.resize(to);
    kept_.resize(to);
    rescore(tail, first.data(), static_cast<int64_t>(first.size()), keys);
    if (keys.size() == first.size()) {
      const Key least = *std::min_element(keys.begin(), keys.end());
      keep_above(not_above(double{value_of(least)} - bound));
    }
  }
  rescore(tail, found_.data(), static_cast<int64_t>(found_.size()), keys);
  const int64_t kept = std::min<int64_t>(k, static_cast<int64_t>(keys.size()));
  std::partial_sort(keys.begin(), keys.begin() + kept, keys.end(), std::greater<Key>());
  for (int64_t j = 0; j < k; ++j) {
    indices[j] = j < kept ? index_of(keys[j]) : kPadding;
    values[j] = j < kept ? value_of(keys[j]) : tail.empty;
  }
  return true;
}

Weighed weigh(const FoldedTable& table, const int32_t* ids, const float* weights, int64_t n) {
  Weighed sums;
  for (int64_t j = 0; j < n; ++j) {
    if (ids[j] < 0) continue;
    const double weight = weights == nullptr ? 1.0 : std::abs(double{weights[j]});
    sums.total += weight;
    sums.error += weight * table.errors[ids[j]];
  }
  return sums;
}

double length_of(const float* x, int64_t n) {
  double squares = 0.0;
  for (int64_t c = 0; c < n; ++c) squares += double{x[c]} * x[c];
  return std::sqrt(squares);
}

}  // namespace cfsae::cpu
