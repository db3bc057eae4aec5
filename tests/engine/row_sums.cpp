// Weighted sums of a folded table's rows, on every instruction set, beside a plain loop in double:
// never further off than what rounding the weights is said to lose, and never outside their range.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "api.h"
#include "cpu/folded_kernels.h"
#include "cpu/kernels.h"
#include "cpu/row_sum.h"

namespace {

using cfsae::Isa;
using cfsae::cpu::FoldedTable;
using cfsae::cpu::RowSum;

constexpr float kUntouched = 0.125f;
std::mt19937 generator(1);

void require(bool held, const char* what) {
  if (held) return;
  std::printf("failed: %s\n", what);
  std::exit(1);
}

int64_t pick(int64_t least, int64_t most) {
  return std::uniform_int_distribution<int64_t>(least, most)(generator);
}

struct Problem {
  int64_t n_rows, dim;
  std::vector<int8_t> values;
  std::vector<float> scales, errors, weights;
  std::vector<int32_t> ids;

  FoldedTable table() const { return {values.data(), scales.data(), errors.data(), n_rows, dim}; }
};

// Some weights are far larger than the others, some 0; some ids name no row.
Problem draw() {
  Problem one;
  one.n_rows = pick(1, 60);
  one.dim = pick(1, 400);
  one.values.resize(one.n_rows * one.dim);
  const bool extreme = pick(0, 3) == 0;
  for (int8_t& value : one.values) {
    value = static_cast<int8_t>(extreme ? 254 * pick(0, 1) - 127 : pick(-127, 127));
  }
  one.errors.assign(one.n_rows, 0.0f);
  one.scales.resize(one.n_rows);
  for (float& scale : one.scales) scale = std::exp2(static_cast<float>(pick(-20, 3)));
  one.ids.resize(pick(0, 90));
  one.weights.resize(one.ids.size());
  for (size_t j = 0; j < one.ids.size(); ++j) {
    one.ids[j] = pick(0, 9) == 0 ? -1 : static_cast<int32_t>(pick(0, one.n_rows - 1));
    one.weights[j] =
        std::normal_distribution<float>()(generator) * std::exp2(static_cast<float>(pick(-12, 12)));
    if (pick(0, 9) == 0) one.weights[j] = 0.0f;
  }
  return one;
}

void check(const Problem& one, Isa isa, bool rounded) {
  RowSum rows(cfsae::cpu::folded_kernels(isa));
  const FoldedTable table = one.table();
  const auto n = static_cast<int64_t>(one.ids.size());
  const float* const weights = pick(0, 3) == 0 ? nullptr : one.weights.data();
  double lost = 0.0;
  if (rounded) {
    lost = rows.set_rounded(table, one.ids.data(), weights, n);
  } else {
    rows.set(table, one.ids.data(), weights, n);
  }
  const int64_t first = pick(0, one.dim - 1), width = pick(1, one.dim - first);
  std::vector<float> sums(width + 2, kUntouched);
  rows.add(first, width, sums.data() + 1);
  require(sums[0] == kUntouched && sums[width + 1] == kUntouched, "only its columns are written");
  double largest = 0.0;
  for (int64_t c = 0; c < width; ++c) {
    double want = kUntouched, magnitude = kUntouched;
    for (int64_t j = 0; j < n; ++j) {
      if (one.ids[j] < 0) continue;
      const double weight = double{weights == nullptr ? 1.0f : weights[j]} * one.scales[one.ids[j]];
      const double term = weight * one.values[one.ids[j] * one.dim + first + c];
      want += term;
      magnitude += std::abs(term);
      largest = std::max(largest, std::abs(weight));
    }
    const double room = lost + 0x1p-22 * static_cast<double>(n + 8) * magnitude;
    require(std::abs(sums[c + 1] - want) <= room, "no sum is further off than it says");
  }
  // each weight is off by at most half a unit, of which the largest weight has 16,383
  require(lost <= 1.01 * 128.0 * static_cast<double>(n) * largest / (2.0 * 16383.0),
          "rounding loses no more than it must");
}

void check_hostile(Isa isa) {
  const std::vector<int8_t> values{1, -1, 127, -127};
  const std::vector<float> errors(2, 0.0f);
  const std::vector<int32_t> ids{0, 1};
  for (const float scale : {0.0f, 1e-40f, 1e-31f, std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::quiet_NaN()}) {
    const std::vector<float> scales{scale, 1e-42f};
    RowSum rows(cfsae::cpu::folded_kernels(isa));
    const FoldedTable table{values.data(), scales.data(), errors.data(), 2, 2};
    require(rows.set_rounded(table, ids.data(), nullptr, 2) == 0.0, "weights without a unit stay");
    std::vector<float> sums(2, 0.0f);
    rows.add(0, 2, sums.data());
    require(!std::isfinite(scale) || std::abs(sums[0] - scale) <= 128e-42f, "as they are");
    require(std::isfinite(scale) || !std::isfinite(sums[0]), "what is not finite shows");
  }
}

}  // namespace

int main() {
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Vnni}) {
    if (!cfsae::cpu::supports(isa)) continue;
    for (int round = 0; round < 400; ++round) {
      const Problem one = draw();
      check(one, isa, true);
      check(one, isa, false);
    }
    check_hostile(isa);
  }
  std::printf("passed\n");
  return 0;
}
