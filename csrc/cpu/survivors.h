// What a screen could not exclude: intervals that hold a row's value, and the floor they give.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

namespace cfsae::cpu {

struct Survivor {
  int32_t index;
  float lower, upper;
};

// What one worker has found for one query: rows that may be among the k best, in rising order.
class Survivors {
 public:
  static constexpr float kEverything = std::numeric_limits<float>::infinity();  // excludes all

  void start(int64_t k, float floor) {
    k_ = static_cast<size_t>(k);
    floor_ = floor;
    cut_at_ = 4 * k_ + 64;
  }

  float floor() const { return floor_; }
  const std::vector<Survivor>& found() const { return found_; }
  const std::vector<float>& best() const { return best_; }  // the k largest lower bounds, a heap
  bool overflowed() const { return floor_ == kEverything; }

  void push(const Survivor& one) {
    found_.push_back(one);
    raise(one.lower);
    if (found_.size() >= cut_at_) cut();
  }

 private:
  // The k-th largest lower bound excludes all that lies below it; what could equal it stays.
  void raise(float lower) {
    if (best_.size() == k_) {
      if (!(lower > best_.front())) return;
      std::pop_heap(best_.begin(), best_.end(), std::greater<>());
      best_.pop_back();
    }
    best_.push_back(lower);
    std::push_heap(best_.begin(), best_.end(), std::greater<>());
    if (best_.size() == k_) floor_ = std::max(floor_, std::nextafter(best_.front(), -kEverything));
  }

  void cut() {
    found_.erase(std::remove_if(found_.begin(), found_.end(),
                                [&](const Survivor& one) { return !(one.upper > floor_); }),
                 found_.end());
    cut_at_ = std::max(cut_at_, 2 * found_.size());
    if (found_.size() > 16 * k_ + 4096) {
      floor_ = kEverything;  // too many look alike: this query is scanned in fp32
      found_.clear();
    }
  }

  size_t k_ = 1, cut_at_ = 0;
  float floor_ = 0.0f;
  std::vector<Survivor> found_;
  std::vector<float> best_;
};

}  // namespace cfsae::cpu
