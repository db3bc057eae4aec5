// A value and its index as one integer: larger is better, and among equal values the smaller index.
// The order is total, so what is selected does not depend on the order of arrival.
#pragma once

#include "cuda/platform.h"

namespace cfsae::cuda {

using Key = uint64_t;

inline constexpr Key kNoKey = 0;  // below every key of a number

__device__ __forceinline__ Key make_key(float value, int64_t index) {
  value += 0.0f;  // -0 ties with 0
  unsigned bits = __float_as_uint(value);
  bits ^= (bits >> 31) != 0 ? 0xffffffffu : 0x80000000u;
  return (Key{bits} << 32) | (0xffffffffu - static_cast<unsigned>(index));
}

__device__ __forceinline__ int32_t index_of(Key key) {
  return static_cast<int32_t>(0xffffffffu - static_cast<unsigned>(key));
}

__device__ __forceinline__ float value_of(Key key) {
  unsigned bits = static_cast<unsigned>(key >> 32);
  bits ^= (bits >> 31) != 0 ? 0x80000000u : 0xffffffffu;
  return __uint_as_float(bits);
}

struct Warp {  // 32 threads that sort together
  __device__ static int thread() { return threadIdx.x % kWarpSize; }
  __device__ static int size() { return kWarpSize; }
  __device__ static void sync() { __syncwarp(); }
};

struct WholeBlock {
  __device__ static int thread() { return threadIdx.x; }
  __device__ static int size() { return blockDim.x; }
  __device__ static void sync() { __syncthreads(); }
};

// Bitonic sort, descending; n is a power of two. What the team wrote before is seen, and what it
// sorts is seen by the whole team after.
template <typename Team, typename T>
__device__ void sort_descending(T* keys, int n) {
  Team::sync();
  for (int run = 2; run <= n; run *= 2) {
    for (int step = run / 2; step > 0; step /= 2) {
      for (int pair = Team::thread(); pair < n / 2; pair += Team::size()) {
        const int low = 2 * pair - (pair & (step - 1)), high = low + step;
        const T a = keys[low], b = keys[high];
        const bool descending = (low & run) == 0;
        if ((a < b) == descending) {
          keys[low] = b;
          keys[high] = a;
        }
      }
      Team::sync();
    }
  }
}

inline int next_power_of_two(int64_t n) {
  int power = 1;
  while (power < n) power *= 2;
  return power;
}

}  // namespace cfsae::cuda
