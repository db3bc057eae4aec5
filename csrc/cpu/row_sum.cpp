#include "cpu/row_sum.h"

#include <algorithm>
#include <cmath>

namespace cfsae::cpu {
namespace {

constexpr float kLeastWeight = 1e-30f;  // below, a unit would be a denormal
constexpr double kLargestByte = 128.0;

}  // namespace

void RowSum::set(const FoldedTable& table, const int32_t* ids, const float* weights, int64_t n) {
  rows_.clear();
  weights_.clear();
  quads_.clear();
  for (int64_t j = 0; j < n; ++j) {
    if (ids[j] < 0) continue;
    rows_.push_back(table.values + ids[j] * table.dim);
    weights_.push_back((weights == nullptr ? 1.0f : weights[j]) * table.scales[ids[j]]);
  }
}

double RowSum::set_rounded(const FoldedTable& table, const int32_t* ids, const float* weights,
                           int64_t n) {
  set(table, ids, weights, n);
  if (kernels_.gather_quads == nullptr) return 0.0;
  float largest = 0.0f;
  bool finite = true;
  for (const float weight : weights_) {
    largest = std::max(largest, std::abs(weight));
    finite = finite && std::isfinite(weight);
  }
  if (!finite || largest < kLeastWeight) return 0.0;
  while (rows_.size() % 4 != 0) {  // of no weight
    rows_.push_back(rows_.back());
    weights_.push_back(0.0f);
  }
  unit_ = largest / kMostWeight;
  double lost = 0.0;
  for (size_t first = 0; first < rows_.size(); first += 4) {
    uint32_t low = 0, high = 0;
    int32_t sum = 0;
    for (size_t r = 0; r < 4; ++r) {
      const float weight = weights_[first + r];
      const auto whole = static_cast<int32_t>(
          std::clamp(std::nearbyint(weight / unit_), -kMostWeight, kMostWeight));
      low |= static_cast<uint32_t>(whole & 127) << (8 * r);
      high |= static_cast<uint32_t>(static_cast<uint8_t>(whole >> 7)) << (8 * r);
      sum += whole;
      lost += std::abs(double{weight} - double{unit_} * whole);
    }
    quads_.push_back({static_cast<int32_t>(low), static_cast<int32_t>(high), -128 * sum});
  }
  return 1.0001 * kLargestByte * lost;
}

void RowSum::add(int64_t first, int64_t width, float* sum) const {
  const int8_t* const* const rows = rows_.data();
  if (quads_.empty()) {
    kernels_.gather_sum(rows, weights_.data(), static_cast<int64_t>(rows_.size()), first, width,
                        sum);
  } else {
    kernels_.gather_quads(rows, quads_.data(), static_cast<int64_t>(quads_.size()), unit_, first,
                          width, sum);
  }
}

}  // namespace cfsae::cpu
