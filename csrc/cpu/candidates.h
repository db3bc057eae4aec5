// The running top-k of many queries: a buffer per query that is cut back to k when it is full, and
// a floor that lets nearly all values be rejected by one comparison.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>

#include "cpu/scratch.h"

namespace cfsae::cpu {

// A value and its index as one integer: larger is better, and among equal values the smaller index.
using Key = uint64_t;

inline Key make_key(float value, int64_t index) {
  value += 0.0f;  // -0 ties with 0
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits ^= (bits >> 31) != 0 ? 0xffffffffu : 0x80000000u;
  return (Key{bits} << 32) | (0xffffffffu - static_cast<uint32_t>(index));
}

inline int32_t index_of(Key key) {
  return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(key));
}

inline float value_of(Key key) {
  uint32_t bits = static_cast<uint32_t>(key >> 32);
  bits ^= (bits >> 31) != 0 ? 0x80000000u : 0xffffffffu;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

class Candidates {
 public:
  // Queries up to `padded` exist with a floor that nothing passes.
  Candidates(int64_t n_queries, int64_t padded, int64_t k, int64_t capacity, float floor)
      : k_(k),
        capacity_(capacity),
        keys_(n_queries * capacity),
        counts_(n_queries),
        floors_(padded) {
    std::fill_n(counts_.data(), n_queries, 0);
    std::fill_n(floors_.data(), n_queries, floor);
    std::fill_n(floors_.data() + n_queries, padded - n_queries,
                std::numeric_limits<float>::infinity());
  }

  static int64_t capacity_for(int64_t k, int64_t n_rows) {
    return std::min(n_rows, k + std::max<int64_t>(k, 32));
  }

  const float* floors() const { return floors_.data(); }
  const Key* keys(int64_t query) const { return keys_.data() + query * capacity_; }
  int64_t count(int64_t query) const { return counts_[query]; }

  // Indices of one query must rise from call to call: a later tie with the floor has lost.
  void push(int64_t query, float value, int64_t index) {
    if (counts_[query] == capacity_) {
      cut(query);
      if (!(value > floors_[query])) return;
    }
    keys_[query * capacity_ + counts_[query]++] = make_key(value, index);
  }

 private:
  void cut(int64_t query) {
    Key* const first = keys_.data() + query * capacity_;
    std::nth_element(first, first + (k_ - 1), first + capacity_, std::greater<Key>());
    floors_[query] = value_of(first[k_ - 1]);
    counts_[query] = k_;
  }

  int64_t k_, capacity_;
  Scratch<Key> keys_;
  Scratch<int64_t> counts_;
  Scratch<float> floors_;
};

}  // namespace cfsae::cpu
