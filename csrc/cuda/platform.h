// CUDA, or its emulation on the CPU (tests/cuda_on_cpu): the only file of this folder that knows.
// Kernels use what is declared here and plain CUDA C++; inline PTX and libraries stay out.
#pragma once

#include <cstdint>

#include "api.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_pipeline.h>
#include <cuda_runtime.h>
#include <mma.h>
#else
#include <cstdlib>
#include <cstring>

#include "emulator/async_copy.h"
#include "emulator/cuda.h"
#include "emulator/wmma.h"
#endif

namespace cfsae::cuda {

inline thread_local const char* last_failure = "";

struct Grid {
  int64_t x, y;
  int threads;
  int64_t shared_bytes;  // dynamic
};

template <typename T>
struct Exactly {  // an argument that is not deduced: it converts to the kernel's own
  using Type = T;
};

#if defined(__CUDACC__)

inline Status status_of(cudaError_t error) {
  if (error == cudaSuccess) return Status::kOk;
  cudaGetLastError();  // not sticky: the next launch starts clean
  last_failure = cudaGetErrorString(error);
  return error == cudaErrorMemoryAllocation ? Status::kOutOfMemory : Status::kLaunchFailed;
}

inline Status current_device(int& device) { return status_of(cudaGetDevice(&device)); }
inline Status set_device(int device) { return status_of(cudaSetDevice(device)); }

inline Status allocate_on(void* stream, void** memory, size_t bytes) {
  return status_of(cudaMallocAsync(memory, bytes, static_cast<cudaStream_t>(stream)));
}
inline Status release_on(void* stream, void* memory) {
  return status_of(cudaFreeAsync(memory, static_cast<cudaStream_t>(stream)));
}
inline Status copy_on(void* stream, void* to, const void* from, size_t bytes) {
  return status_of(
      cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, static_cast<cudaStream_t>(stream)));
}
inline Status wait_for(void* stream) {
  return status_of(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)));
}

// Between the arrays of a workspace; on the emulated device nothing may touch it.
inline constexpr int64_t kGapBytes = 0;
inline void close_gap(void*) {}

template <typename... Parameters>
Status launch(void (*kernel)(Parameters...), const Grid& grid, void* stream,
              typename Exactly<Parameters>::Type... arguments) {
  constexpr int64_t kWithoutAsking = 48 << 10;
  if (grid.x == 0 || grid.y == 0) return Status::kOk;  // an empty grid is a launch error
  if (grid.x > 0x7fffffff || grid.y > 65535) return Status::kTooLarge;
  const auto* const function = reinterpret_cast<const void*>(kernel);
  if (grid.shared_bytes > kWithoutAsking) {
    const Status allowed =
        status_of(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       static_cast<int>(grid.shared_bytes)));
    if (allowed != Status::kOk) return allowed;
  }
  void* pointers[] = {static_cast<void*>(&arguments)...};
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y));
  return status_of(cudaLaunchKernel(function, blocks, dim3(static_cast<unsigned>(grid.threads)),
                                    pointers, static_cast<size_t>(grid.shared_bytes),
                                    static_cast<cudaStream_t>(stream)));
}

// The block's one object of type T in shared memory, unwritten.
template <typename T>
__device__ __forceinline__ T& block_shared() {
  __shared__ T object;
  return object;
}

__device__ __forceinline__ unsigned char* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char bytes[];
  return bytes;
}

// Asynchronous copy of `bytes` (4 or 16) from device to shared memory, or of zeros.
__device__ __forceinline__ void copy_async(float* to, const float* from, int bytes, bool zeros) {
  __pipeline_memcpy_async(to, from, bytes, zeros ? bytes : 0);
}
__device__ __forceinline__ void commit_copies() { __pipeline_commit(); }
template <int kGroupsLeft>
__device__ __forceinline__ void wait_for_copies() {
  __pipeline_wait_prior(kGroupsLeft);
}

__device__ __forceinline__ float4 load4(const float* from) {
  return *reinterpret_cast<const float4*>(from);
}
__device__ __forceinline__ void store4(float* to, float4 value) {
  *reinterpret_cast<float4*>(to) = value;
}

#else

inline Status status_of(emulator::Outcome outcome) {
  if (outcome == emulator::Outcome::kDone) return Status::kOk;
  last_failure = "refused by the emulated device";
  return outcome == emulator::Outcome::kOutOfMemory ? Status::kOutOfMemory : Status::kLaunchFailed;
}

inline Status current_device(int& device) {
  device = emulator::settings().device;
  return Status::kOk;
}
inline Status set_device(int device) { return status_of(emulator::set_device(device)); }

inline Status allocate_on(void*, void** memory, size_t bytes) {
  constexpr size_t kAlignment = 256;
  *memory = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  return *memory == nullptr ? Status::kOutOfMemory : Status::kOk;
}
inline Status release_on(void*, void* memory) {
  std::free(memory);
  return Status::kOk;
}
inline Status copy_on(void*, void* to, const void* from, size_t bytes) {
  std::memcpy(to, from, bytes);
  return Status::kOk;
}
inline Status wait_for(void*) { return Status::kOk; }

inline constexpr int64_t kGapBytes = 256;
inline void close_gap(void* gap) { emulator::device_memory().close(gap, kGapBytes); }

template <typename... Parameters>
Status launch(void (*kernel)(Parameters...), const Grid& grid, void*,
              typename Exactly<Parameters>::Type... arguments) {
  if (grid.x == 0 || grid.y == 0) return Status::kOk;
  if (grid.x > 0x7fffffff || grid.y > 65535) return Status::kTooLarge;
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y));
  return status_of(emulator::launch(
      blocks, dim3(static_cast<unsigned>(grid.threads)), static_cast<size_t>(grid.shared_bytes),
      reinterpret_cast<const void*>(kernel), [&] { kernel(arguments...); }));
}

template <typename T>
T& block_shared() {
  static const char type = 0;
  return *static_cast<T*>(emulator::shared_memory().static_object(&type, sizeof(T)));
}

inline unsigned char* dynamic_shared() { return emulator::shared_memory().dynamic(); }

inline void copy_async(float* to, const float* from, int bytes, bool zeros) {
  emulator::copy_async(to, from, bytes, zeros ? bytes : 0);
}
inline void commit_copies() { emulator::commit_copies(); }
template <int kGroupsLeft>
void wait_for_copies() {
  emulator::wait_for_copies(kGroupsLeft);
}

inline void check_alignment(const float* address) {
  if (reinterpret_cast<uintptr_t>(address) % 16 != 0) {
    emulator::Block::current->fail("a vector of 4 floats is misaligned");
  }
}
inline float4 load4(const float* from) {
  check_alignment(from);
  return *reinterpret_cast<const float4*>(from);
}
inline void store4(float* to, float4 value) {
  check_alignment(to);
  *reinterpret_cast<float4*>(to) = value;
}

#endif

using Bf16 = __nv_bfloat16;

inline constexpr int kWarpSize = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

__host__ __device__ inline int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

template <typename T>
__host__ __device__ constexpr T least(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
__host__ __device__ constexpr T most(T a, T b) {
  return b > a ? b : a;
}

// Whether rows of `dim` floats from here on can be read four floats at a time.
inline bool is_vectorizable(const float* data, int64_t dim) {
  return dim % 4 == 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

}  // namespace cfsae::cuda
