// Sums over a warp and over a block, in an order that depends on nothing but the block's size.
#pragma once

#include "cuda/platform.h"

namespace cfsae::cuda {

template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
  for (int step = kWarpSize / 2; step > 0; step /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, step);
  }
  return value;
}

template <typename T>
struct WarpSums {
  T of[kWarpSize];
};

// Every thread of the block must call it, and gets the sum.
template <typename T>
__device__ __forceinline__ T block_sum(T value) {
  WarpSums<T>& sums = block_shared<WarpSums<T>>();
  const int warp = threadIdx.x / kWarpSize, n_warps = blockDim.x / kWarpSize;
  value = warp_sum(value);
  __syncthreads();  // whoever still reads the sums of a call before this one
  if (threadIdx.x % kWarpSize == 0) sums.of[warp] = value;
  __syncthreads();
  T total = sums.of[0];
  for (int w = 1; w < n_warps; ++w) total += sums.of[w];
  return total;
}

// The dot product of two rows in the order of one warp: lane l takes columns l, l + 32, ...
__device__ __forceinline__ float warp_dot(const float* a, const float* b, int64_t dim) {
  float sum = 0.0f;
  for (int64_t c = threadIdx.x % kWarpSize; c < dim; c += kWarpSize) sum += a[c] * b[c];
  return warp_sum(sum);
}

}  // namespace cfsae::cuda
