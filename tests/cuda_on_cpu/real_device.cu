// A real device behind the same door: managed memory, so that Python copies as it does to the
// emulated one; an op is waited for and its errors become messages. `make gpu` builds it with nvcc.
#include <cuda_runtime.h>

#include <cstring>
#include <string>
#include <vector>

#include "door.h"

namespace {

constexpr size_t kGap = 256;
std::string g_message;
std::vector<void*> g_allocations;

}  // namespace

int door_run(const std::function<cfsae::Status()>& op) {
  const cfsae::Status status = op();
  const cudaError_t error = cudaDeviceSynchronize();
  g_message = error == cudaSuccess ? "" : cudaGetErrorString(error);
  return error == cudaSuccess ? static_cast<int>(status) : -1;
}

extern "C" {

const char* door_message() { return g_message.c_str(); }

void door_begin(uint64_t, int64_t) {
  for (void* allocation : g_allocations) cudaFree(allocation);
  g_allocations.clear();
}

int64_t door_launches() { return 0; }  // no launch can be made to fail here

void* door_allocate(size_t bytes, size_t offset) {
  void* memory = nullptr;
  if (cudaMallocManaged(&memory, bytes + offset + kGap) != cudaSuccess) return nullptr;
  g_allocations.push_back(memory);
  std::memset(memory, 0xFF, bytes + offset + kGap);  // results start poisoned
  return static_cast<unsigned char*>(memory) + offset;
}

void door_mark_written(const void*, size_t) {}

}  // extern "C"
