// What a screen could not exclude: intervals that hold a row's value, and the floor they give.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cpu/kernels.h"

namespace cfsae::cpu {

// A number that at least k of the n >= k values reach, close to the largest such. Counting needs no
// order, so that it runs at the speed of the vector units.
inline float reached_by(int64_t k, const float* values, int64_t n) {
  constexpr int kLanes = 8, kHalvings = 12;
  float lows[kLanes], highs[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) lows[lane] = highs[lane] = values[0];
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float value = values[j + lane];
      lows[lane] = value < lows[lane] ? value : lows[lane];
      highs[lane] = value > highs[lane] ? value : highs[lane];
    }
  }
  for (; j < n; ++j) {
    lows[0] = std::min(lows[0], values[j]);
    highs[0] = std::max(highs[0], values[j]);
  }
  float low = *std::min_element(lows, lows + kLanes);
  float high = *std::max_element(highs, highs + kLanes);
  for (int halving = 0; halving < kHalvings; ++halving) {
    const float middle = low + 0.5f * (high - low);
    int32_t count = 0;
    for (j = 0; j < n; ++j) count += values[j] >= middle ? 1 : 0;
    (count >= k ? low : high) = middle;
  }
  return low;
}

// What one worker has found for one query: rows that may be among the k best, in rising order.
class Survivors {
 public:
  static constexpr float kEverything = std::numeric_limits<float>::infinity();  // excludes all

  void start(int64_t k, float floor) {
    k_ = k;
    floor_ = floor;
    sink_.size = 0;
    reserve(4 * k + 2 * kScreenRoom);
  }

  ScreenSink* sink() { return &sink_; }
  float floor() const { return floor_; }
  bool overflowed() const { return floor_ == kEverything; }
  int64_t size() const { return sink_.size; }
  int32_t index(int64_t j) const { return indices_[j]; }
  float upper(int64_t j) const { return uppers_[j]; }
  const float* lowers() const { return lowers_.data(); }

  // Drops those from `first` on that the predicate names.
  template <typename Predicate>
  void drop(int64_t first, const Predicate& unwanted) {
    keep(first, [&](int64_t j) { return !unwanted(indices_[j]); });
  }

  // Before a tile: what the floor excludes goes, or there is room for more.
  void make_room() {
    if (sink_.size + kScreenRoom <= capacity_) return;
    cut();
    if (sink_.size > kMostPerWanted * k_ + kMost) {
      floor_ = kEverything;  // too many look alike: this query is scanned in fp32
      sink_.size = 0;
    }
    if (sink_.size + k_ + kScreenRoom > capacity_) reserve(2 * capacity_);
  }

  // The k-th largest lower bound excludes all that lies below it; what could equal it stays.
  void cut() {
    if (sink_.size < k_) return;
    const float reached = reached_by(k_, lowers(), sink_.size);
    floor_ = std::max(floor_, std::nextafter(reached, -kEverything));
    keep(0, [this](int64_t j) { return uppers_[j] > floor_; });
  }

 private:
  static constexpr int64_t kMostPerWanted = 16, kMost = 4096;

  template <typename Predicate>
  void keep(int64_t first, const Predicate& wanted) {
    int64_t to = first;
    for (int64_t j = first; j < sink_.size; ++j) {
      const bool stays = wanted(j);
      indices_[to] = indices_[j];
      lowers_[to] = lowers_[j];
      uppers_[to] = uppers_[j];
      to += stays ? 1 : 0;
    }
    sink_.size = to;
  }

  void reserve(int64_t capacity) {
    capacity_ = capacity;
    indices_.resize(capacity);
    lowers_.resize(capacity);
    uppers_.resize(capacity);
    sink_ = {indices_.data(), lowers_.data(), uppers_.data(), sink_.size};
  }

  int64_t k_ = 1, capacity_ = 0;
  float floor_ = 0.0f;
  ScreenSink sink_{};
  std::vector<int32_t> indices_;
  std::vector<float> lowers_, uppers_;
};

}  // namespace cfsae::cpu
