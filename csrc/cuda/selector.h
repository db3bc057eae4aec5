// The running top-k of one query, kept by one warp: a buffer that is sorted and cut back to k when
// it is full, and a floor that lets nearly all values be rejected by one comparison.
#pragma once

#include "cuda/ordered.h"

namespace cfsae::cuda {

struct Selector {
  Key* keys;           // capacity of them
  int capacity, kept;  // a power of two, at least kept + 32
  int count;
  Key floor;

  // Which lanes' keys could be among the best; the whole warp asks.
  __device__ unsigned hits_of(Key key) const { return __ballot_sync(kAllLanes, key > floor); }

  // Lanes offer a key each (kNoKey: nothing); the whole warp calls it.
  __device__ void offer(Key key) {
    unsigned hits = hits_of(key);
    if (hits == 0) return;
    if (count + kWarpSize > capacity) {
      cut();
      hits = hits_of(key);
    }
    const int lane = threadIdx.x % kWarpSize;
    if ((hits >> lane & 1) != 0) keys[count + __popc(hits & ((1u << lane) - 1))] = key;
    count += __popc(hits);
  }

  // Sorts, and leaves the best `kept`.
  __device__ void cut() {
    const int lane = threadIdx.x % kWarpSize;
    for (int i = count + lane; i < capacity; i += kWarpSize) keys[i] = kNoKey;
    sort_descending<Warp>(keys, capacity);
    count = least(count, kept);
    floor = keys[kept - 1];  // none while there are fewer
  }
};

inline int selector_capacity(int64_t kept) { return next_power_of_two(kept + kWarpSize); }

}  // namespace cfsae::cuda
