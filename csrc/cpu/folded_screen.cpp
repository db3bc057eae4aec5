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
constexpr int64_t kColumnsPerTask = 8192;

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
      maxima_(n_blocks(n)) {}

void Screen::begin(const float* start, float factor) {
  if (start == nullptr || factor == 0.0f) {
    std::fill_n(values_.data(), n_, 0.0f);
  } else {
    for (int64_t c = 0; c < n_; ++c) values_[c] = factor * start[c];
  }
}

void Screen::add(const FoldedTable& table, const int32_t* ids, const float* weights, int64_t n) {
  weights_.resize(n);
  for (int64_t j = 0; j < n; ++j) {
    const float weight = weights == nullptr ? 1.0f : weights[j];
    weights_[j] = ids[j] < 0 ? 0.0f : weight * table.scales[ids[j]];
  }
  const int64_t n_tasks = (n_ + kColumnsPerTask - 1) / kColumnsPerTask;
  parallel_for(n_tasks, workers_for(n * n_, execution_.threads), [&](int64_t task, int) {
    const int64_t first = task * kColumnsPerTask;
    folded_.gather_sum(table.values + first, table.dim, std::min(kColumnsPerTask, n_ - first), ids,
                       weights_.data(), n, values_.data() + first);
  });
}

void Screen::exclude(const int32_t* ids, int64_t n) {
  for (int64_t j = 0; j < n; ++j) values_[ids[j]] = kNothing;
}

void Screen::exclude_disallowed(const uint8_t* allowed) {
  if (allowed == nullptr) return;
  for (int64_t c = 0; c < n_; ++c) {
    if (allowed[c] == 0) values_[c] = kNothing;
  }
}

void Screen::finish(float scale, const Term (&terms)[3]) {
  folded_.finish(values_.data(), n_, scale, terms, maxima_.data());
}

double Screen::kth_largest(int64_t k, const float* values, int64_t n) {
  if (n < k) return kNothing;
  ranked_.assign(values, values + n);
  std::nth_element(ranked_.begin(), ranked_.begin() + (k - 1), ranked_.end(),
                   std::greater<float>());
  return ranked_[k - 1];
}

bool Screen::gather_survivors(double bound, double floor, int64_t k) {
  constexpr float kLowest = -std::numeric_limits<float>::max();
  const int64_t most = std::max<int64_t>(4 * k + 64, n_ / 4);
  const auto line = [&](double kth) {
    return std::max(kLowest, not_above(std::max(kth - 2.0 * bound, floor - bound)));
  };
  const float first_line = line(kth_largest(k, maxima_.data(), n_blocks(n_)));
  found_.clear();
  std::vector<float>& kept = weights_;  // free by now
  kept.clear();
  for (int64_t block = 0; block < n_blocks(n_); ++block) {
    if (!(maxima_[block] >= first_line)) continue;
    const int64_t last = std::min(n_, (block + 1) * kFoldedBlock);
    for (int64_t c = block * kFoldedBlock; c < last; ++c) {
      if (!(values_[c] >= first_line)) continue;
      found_.push_back(static_cast<int32_t>(c));
      kept.push_back(values_[c]);
    }
  }
  const int64_t n = static_cast<int64_t>(found_.size());
  if (n > k) {
    const float second_line = line(kth_largest(k, kept.data(), n));
    int64_t to = 0;
    for (int64_t j = 0; j < n; ++j) {
      if (kept[j] >= second_line) found_[to++] = found_[j];
    }
    found_.resize(to);
  }
  return static_cast<int64_t>(found_.size()) <= most;
}

bool Screen::top(const ExactTail& tail, double bound, int64_t k, int32_t* indices, float* values) {
  const int64_t wanted = std::min(k, n_);
  if (wanted == 0 || !gather_survivors(bound, tail.floor, wanted)) return wanted == 0 && k == 0;
  const int64_t n = static_cast<int64_t>(found_.size());
  const Scratch<float> dots(n);
  kernels(execution_.isa)
      .gather_dots(tail.rows.data, tail.rows.dim, found_.data(), n, tail.query, dots.data());
  std::vector<Key> keys;
  keys.reserve(n);
  for (int64_t j = 0; j < n; ++j) {
    const float value = dots[j] + (tail.bias == nullptr ? 0.0f : tail.bias[found_[j]]);
    if (value > tail.floor) keys.push_back(make_key(value, found_[j]));
  }
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
