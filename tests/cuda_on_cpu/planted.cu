// Kernels that are wrong on purpose, one bug each, and one that is right: what the emulator's own
// tests run. door_planted returns 1 where the emulator reported, and the report in planted_message.
#include <string>

#include "cuda/platform.h"

namespace {

using cfsae::cuda::block_shared;

constexpr int kThreads = 64;

struct Numbers {
  float at[kThreads];
};

__global__ void right(float* out) {
  Numbers& numbers = block_shared<Numbers>();
  const int t = threadIdx.x;
  numbers.at[t] = static_cast<float>(t);
  __syncthreads();
  float sum = numbers.at[(t + 40) % kThreads];
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  if (__any_sync(0xffffffffu, sum < 0.0f)) sum = -1.0f;
  out[t] = sum;
}

__global__ void missing_barrier(float* out) {
  Numbers& numbers = block_shared<Numbers>();
  const int t = threadIdx.x;
  numbers.at[t] = static_cast<float>(t);
  out[t] = numbers.at[(t + 40) % kThreads];
}

__global__ void missing_second_barrier(float* out) {  // every value is written: only a race
  Numbers& numbers = block_shared<Numbers>();
  const int t = threadIdx.x;
  numbers.at[t] = 1.0f;
  __syncthreads();
  const float sum = numbers.at[(t + 40) % kThreads];
  numbers.at[t] = 1.0f;
  out[t] = sum;
}

__global__ void missing_warp_sync(float* out) {
  Numbers& numbers = block_shared<Numbers>();
  const int t = threadIdx.x;
  numbers.at[t] = 1.0f;
  __shfl_xor_sync(0xffffffffu, t, 1);  // a shuffle orders no memory
  out[t] = numbers.at[t ^ 1];
}

__global__ void divergent_barrier(float* out) {
  const int t = threadIdx.x;
  if (t < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[t] = 0.0f;
}

__global__ void barrier_after_exit(float* out) {
  const int t = threadIdx.x;
  if (t == 63) return;
  __syncthreads();
  out[t] = 0.0f;
}

__global__ void dynamic_overrun(float* out) {  // launched with kThreads floats
  float* const numbers = reinterpret_cast<float*>(cfsae::cuda::dynamic_shared());
  numbers[threadIdx.x + 1] = 1.0f;
  out[threadIdx.x] = 0.0f;
}

__global__ void static_overrun(float* out) {
  Numbers& numbers = block_shared<Numbers>();
  numbers.at[threadIdx.x + (out == nullptr ? 0 : 1)] = 1.0f;
}

__global__ void overrun_behind_a_pointer(float* out) {  // of a static object: no array is in sight
  float* const numbers = block_shared<Numbers>().at;
  numbers[threadIdx.x + (out == nullptr ? 0 : 1)] = 1.0f;
}

struct Three {
  float at[3];
};

__global__ void array_overrun(float* out) {  // of an array in registers, at the end of a struct
  const Three own = {{1.0f, 2.0f, 3.0f}};
  float sum = 0.0f;
  for (int i = 0; i < (out == nullptr ? 3 : 4); ++i) sum += own.at[i];
  out[threadIdx.x] = sum;
}

__global__ void unwritten_read(float* out) {
  Numbers& numbers = block_shared<Numbers>();
  const int t = threadIdx.x;
  if (t != 5) numbers.at[t] = 1.0f;
  __syncthreads();
  out[t] = numbers.at[t];
}

__global__ void wrong_mask(float* out) {
  const int t = threadIdx.x;
  out[t] = __shfl_sync(0x0000ffffu, 1.0f, 0);
}

__global__ void exited_lane(float* out) {
  const int t = threadIdx.x;
  if (t % 32 == 7) return;
  out[t] = __shfl_sync(0xffffffffu, 1.0f, 0);
}

__global__ void absent_lane(float* out) {  // half the warp never comes
  const int t = threadIdx.x;
  float value = 0.0f;
  if (t % 32 < 16) value = __shfl_sync(0xffffffffu, 1.0f, 0);
  __syncthreads();
  out[t] = value;
}

__global__ void missing_wait(float* out) {
  float* const numbers = reinterpret_cast<float*>(cfsae::cuda::dynamic_shared());
  const int t = threadIdx.x;
  cfsae::cuda::copy_async(numbers + t, out + t, 4, false);
  cfsae::cuda::commit_copies();
  cfsae::cuda::wait_for_copies<1>();
  out[t] = numbers[t];
}

__global__ void missing_barrier_after_wait(float* out) {
  float* const numbers = reinterpret_cast<float*>(cfsae::cuda::dynamic_shared());
  const int t = threadIdx.x;
  cfsae::cuda::copy_async(numbers + t, out + t, 4, false);
  cfsae::cuda::commit_copies();
  cfsae::cuda::wait_for_copies<0>();
  out[t] = numbers[(t + 33) % kThreads];
}

__global__ void copy_over_copy(float* out) {
  float* const numbers = reinterpret_cast<float*>(cfsae::cuda::dynamic_shared());
  const int t = threadIdx.x;
  for (int time = 0; time < 2; ++time) {
    cfsae::cuda::copy_async(numbers + t, out + t, 4, false);
    cfsae::cuda::commit_copies();
  }
  cfsae::cuda::wait_for_copies<0>();
  out[t] = numbers[t];
}

__global__ void device_overrun(float* out) { out[threadIdx.x + 1] = 1.0f; }

__global__ void misaligned_vector(float* out) {
  cfsae::cuda::store4(out + 1, make_float4(0.0f, 0.0f, 0.0f, 0.0f));
}

__global__ void __launch_bounds__(kThreads) within_bounds(float* out) { out[threadIdx.x] = 0.0f; }

__global__ void __launch_bounds__(kThreads / 2, 4) beyond_bounds(float* out) {
  out[threadIdx.x] = 0.0f;
}

struct Much {
  float at[6 << 10];
};

__global__ void much_static(float* out) { out[threadIdx.x] = block_shared<Much>().at[0]; }

__global__ void misaligned_tile(float* out) {
  using nvcuda::wmma::fragment;
  fragment<nvcuda::wmma::accumulator, 16, 16, 8, float> sum;
  nvcuda::wmma::fill_fragment(sum, 1.0f);
  float* const tile = reinterpret_cast<float*>(cfsae::cuda::dynamic_shared());
  nvcuda::wmma::store_matrix_sync(tile + 4, sum, 4, nvcuda::wmma::mem_row_major);
  out[threadIdx.x] = 0.0f;
}

struct Planted {
  const char* name;
  void (*kernel)(float*);
  int threads;
  int64_t shared_bytes;
};

constexpr int64_t kFloats = kThreads * sizeof(float);

const Planted kPlanted[] = {
    {"right", right, kThreads, 0},
    {"missing_barrier", missing_barrier, kThreads, 0},
    {"missing_second_barrier", missing_second_barrier, kThreads, 0},
    {"missing_warp_sync", missing_warp_sync, kThreads, 0},
    {"divergent_barrier", divergent_barrier, kThreads, 0},
    {"barrier_after_exit", barrier_after_exit, kThreads, 0},
    {"dynamic_overrun", dynamic_overrun, kThreads, kFloats},
    {"static_overrun", static_overrun, kThreads, 0},
    {"overrun_behind_a_pointer", overrun_behind_a_pointer, kThreads, 0},
    {"array_overrun", array_overrun, kThreads, 0},
    {"unwritten_read", unwritten_read, kThreads, 0},
    {"wrong_mask", wrong_mask, kThreads, 0},
    {"exited_lane", exited_lane, kThreads, 0},
    {"absent_lane", absent_lane, kThreads, 0},
    {"missing_wait", missing_wait, kThreads, kFloats},
    {"missing_barrier_after_wait", missing_barrier_after_wait, kThreads, kFloats},
    {"copy_over_copy", copy_over_copy, kThreads, kFloats},
    {"device_overrun", device_overrun, kThreads, 0},
    {"misaligned_vector", misaligned_vector, kThreads, 0},
    {"misaligned_tile", misaligned_tile, kThreads, kFloats},
    {"within_bounds", within_bounds, kThreads, 0},
    {"beyond_bounds", beyond_bounds, kThreads, 0},
    {"static_beside_dynamic", right, kThreads, 99 << 10},
    {"much_static", much_static, kThreads, 0},
    {"too_many_threads", right, 2048, 0},
    {"too_much_shared_memory", within_bounds, kThreads, (99 << 10) + 1},
    {"all_shared_memory", within_bounds, kThreads, 99 << 10},
};

std::string g_message;

}  // namespace

// 0: ran to the end; 1: reported; 2: the launch was refused; 3: no kernel of this name.
extern "C" int planted_run(const char* name, uint64_t seed, int on_host) {
  emulator::settings() = {};
  emulator::settings().seed = seed;
  emulator::device_memory().clear();
  auto* const out = static_cast<float*>(emulator::device_memory().allocate(kFloats, 0));
  for (int t = 0; t < kThreads && on_host; ++t) out[t] = 0.0f;
  emulator::device_memory().mark_written(out, kFloats);
  g_message.clear();
  for (const Planted& planted : kPlanted) {
    if (planted.name != std::string(name)) continue;
    try {
      const cfsae::Status status = cfsae::cuda::launch(
          planted.kernel, {2, 1, planted.threads, planted.shared_bytes}, nullptr, out);
      return status == cfsae::Status::kOk ? 0 : 2;
    } catch (const emulator::Error& error) {
      g_message = error.what();
      return 1;
    }
  }
  return 3;
}

extern "C" const char* planted_message() { return g_message.c_str(); }
