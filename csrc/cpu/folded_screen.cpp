// If a_i is within b of the exact x_i, and T is the k-th largest a, then k items have x >= T - b,
// and an item with a_i < T - 2 b has x_i < T - b: it is not among the k best, not even by a tie. T
// is first taken from the maxima of blocks, which cannot exceed it, so that one pass finds nearly
// all.
#include "cpu/folded_screen.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/deciding.h"
#include "cpu/kernels.h"
#include "parallel.h"

namespace cfsae::cpu {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();
constexpr int64_t kColumnsPerTask = 4096;  // whole blocks; their sums stay in L1
static_assert(kColumnsPerTask % kFoldedBlock == 0);
constexpr int64_t kRowsOfPasses = 8;  // what the passes over the sums cost, in rows of the table

int64_t n_blocks(int64_t n) { return (n + kFoldedBlock - 1) / kFoldedBlock; }

// A float that is not above x.
float not_above(double x) {
  const float rounded = static_cast<float>(x);
  return std::nextafterf(rounded, kNothing);
}

// A float that is not below x.
float not_below(double x) { return -not_above(-x); }

// A line that no exact value of the k best lies below, given that k approximate ones reach `kth`.
float line_of(double kth, double bound, double floor) {
  constexpr float kLowest = -std::numeric_limits<float>::max();
  return std::max(kLowest, not_above(std::max(kth - 2.0 * bound, floor - bound)));
}

void keep_from(float line, Found& found) {
  size_t to = 0;
  for (size_t j = 0; j < found.ids.size(); ++j) {
    if (!(found.values[j] >= line)) continue;
    found.ids[to] = found.ids[j];
    found.values[to++] = found.values[j];
  }
  found.ids.resize(to);
  found.values.resize(to);
}

}  // namespace

Screen::Screen(int64_t n_columns, int64_t columns_at_once, const Execution& execution)
    : n_columns_(n_columns),
      execution_(execution),
      folded_(folded_kernels(execution.isa)),
      values_(columns_at_once),
      maxima_(n_blocks(columns_at_once)),
      rows_(folded_) {}

void Screen::add(const ScreenSum& sum, int64_t first, int64_t last, double bound, float floor,
                 int64_t k, Found& found) {
  if (found.too_many) return;
  found.slack = std::abs(sum.scale) * rows_.set_rounded(sum.table, sum.ids, sum.weights, sum.n);
  compute(sum, first, last);
  gather(first, last - first, bound + found.slack, floor, std::min(k, n_columns_), found);
}

bool Screen::top(const ScreenSum& sum, const ExactTail& tail, double bound, int64_t k,
                 int32_t* indices, float* values) {
  own_.ids.clear();
  own_.values.clear();
  own_.too_many = false;
  add(sum, 0, n_columns_, bound, tail.floor, k, own_);
  return decide(tail, bound, k, own_, indices, values);
}

void Screen::compute(const ScreenSum& sum, int64_t first, int64_t last) {
  const int64_t n_tasks = (last - first + kColumnsPerTask - 1) / kColumnsPerTask;
  const Crew crew = crew_for_reading((sum.n + kRowsOfPasses) * (last - first), execution_.threads);
  parallel_for(
      n_tasks, crew.workers,
      [&](int64_t task, int) {
        const int64_t from = first + task * kColumnsPerTask;
        compute_range(sum, from, std::min(last, from + kColumnsPerTask),
                      values_.data() + (from - first),
                      maxima_.data() + (from - first) / kFoldedBlock);
      },
      crew.wake);
}

void Screen::compute_range(const ScreenSum& sum, int64_t first, int64_t last, float* values,
                           float* maxima) const {
  const int64_t n = last - first;
  std::fill(values, values + n, 0.0f);
  rows_.add(first, n, values);
  for (int64_t j = 0; j < sum.n_excluded; ++j) {
    const int64_t c = sum.excluded[j];
    if (first <= c && c < last) values[c - first] = kNothing;
  }
  if (sum.allowed != nullptr) {
    for (int64_t c = 0; c < n; ++c) {
      if (sum.allowed[first + c] == 0) values[c] = kNothing;
    }
  }
  Term terms[kTerms];
  for (int t = 0; t < kTerms; ++t) {
    const float* const vector = sum.terms[t].vector;
    terms[t] = {vector == nullptr ? nullptr : vector + first, sum.terms[t].factor};
  }
  folded_.finish(values, n, sum.scale, terms, maxima);
}

// A number that k of the values reach, close to the largest such.
double Screen::reached_by(int64_t k, const std::vector<float>& values) const {
  const auto n = static_cast<int64_t>(values.size());
  return n < k ? kNothing : kernels(execution_.isa).reached_by(k, values.data(), n);
}

void Screen::gather(int64_t first, int64_t n, double bound, float floor, int64_t k, Found& found) {
  if (k == 0) return;
  // each block's maximum is a value of the row, and so is all that was kept
  reached_.assign(found.values.begin(), found.values.end());
  reached_.insert(reached_.end(), maxima_.data(), maxima_.data() + n_blocks(n));
  const float line = line_of(reached_by(k, reached_), bound, floor);
  for (int64_t block = 0; block < n_blocks(n); ++block) {
    if (!(maxima_[block] >= line)) continue;
    const int64_t from = block * kFoldedBlock;
    int32_t places[kFoldedBlock];
    float kept[kFoldedBlock];
    const int64_t held = folded_.collect(values_.data() + from, std::min(n - from, kFoldedBlock),
                                         line, places, kept);
    for (int64_t j = 0; j < held; ++j) {
      found.ids.push_back(static_cast<int32_t>(first + from + places[j]));
    }
    found.values.insert(found.values.end(), kept, kept + held);
  }
  if (static_cast<int64_t>(found.ids.size()) > k) {
    keep_from(line_of(reached_by(k, found.values), bound, floor), found);
  }
  if (static_cast<int64_t>(found.ids.size()) > std::max(4 * k + 64, n_columns_ / 4)) {
    found = {};  // a batch of such rows would hold its scores twice
    found.too_many = true;
  }
}

bool Screen::decide(const ExactTail& tail, double bound, int64_t k, Found& found, int32_t* indices,
                    float* values) const {
  if (found.too_many) return false;
  const TopScan scan{{tail.query, 1, tail.rows.dim},
                     tail.rows,
                     tail.bias,
                     nullptr,
                     nullptr,
                     tail.floor,
                     tail.empty};
  Deciding deciding(scan, 0, 1, k, execution_);
  Contenders& all = deciding.answer(0);
  const double reach = bound + found.slack;
  all.ids.swap(found.ids);
  all.uppers.reserve(found.values.size());
  for (const float value : found.values) all.uppers.push_back(not_below(value + reach));
  all.middles.swap(found.values);
  deciding.run(indices, values);
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
