// What a screen could not exclude: intervals that hold a row's value, and the floor they give.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cpu/kernels.h"

namespace cfsae::cpu {

// What one worker has found for one query: rows that may be among the k best, in rising order.
class Survivors {
 public:
  static constexpr float kEverything = std::numeric_limits<float>::infinity();  // excludes all

  void start(int64_t k, float floor, const Kernels& kernels) {
    kernels_ = &kernels;
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
  const int32_t* ids() const { return indices_.data(); }
  const float* lowers() const { return lowers_.data(); }
  const float* uppers() const { return uppers_.data(); }

  // Drops those from `first` on that the predicate names.
  template <typename Predicate>
  void drop(int64_t first, const Predicate& unwanted) {
    int64_t to = first;
    for (int64_t j = first; j < sink_.size; ++j) {
      if (unwanted(indices_[j])) continue;
      indices_[to] = indices_[j];
      lowers_[to] = lowers_[j];
      uppers_[to++] = uppers_[j];
    }
    sink_.size = to;
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
    exclude_below(kernels_->reached_by(k_, lowers(), sink_.size));
  }

  void exclude_below(float reached) {
    floor_ = std::max(floor_, std::nextafter(reached, -kEverything));
    kernels_->keep_above(floor_, &sink_);
  }

 private:
  static constexpr int64_t kMostPerWanted = 16, kMost = 4096;

  void reserve(int64_t capacity) {
    capacity_ = capacity;
    indices_.resize(capacity);
    lowers_.resize(capacity);
    uppers_.resize(capacity);
    sink_ = {indices_.data(), lowers_.data(), uppers_.data(), sink_.size};
  }

  const Kernels* kernels_ = nullptr;
  int64_t k_ = 1, capacity_ = 0;
  float floor_ = 0.0f;
  ScreenSink sink_{};
  std::vector<int32_t> indices_;
  std::vector<float> lowers_, uppers_;
};

}  // namespace cfsae::cpu
