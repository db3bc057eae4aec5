// Arrays on a device as Python names them: an address that only kernels may follow, a shape, a
// dtype. What can be known without reading them is checked here; messages as in checks.h.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "api.h"
#include "python/messages.h"

namespace cfsae::door {

struct DeviceArray {
  uintptr_t data;
  std::vector<int64_t> shape;
  std::string dtype;  // as torch and numpy spell it: float32
};

struct Queue {  // where an op goes
  int device;
  uintptr_t stream;
};

using On = const DeviceArray&;
using OnIf = const DeviceArray*;  // None: null

// The array's address after its dtype and shape were checked.
void* checked(On array, const char* name, const char* dtype, std::initializer_list<int64_t> shape);
int64_t size_of(On array, const char* name, size_t axis);

template <typename T>
const char* dtype_of();
template <>
inline const char* dtype_of<float>() {
  return "float32";
}
template <>
inline const char* dtype_of<int32_t>() {
  return "int32";
}
template <>
inline const char* dtype_of<int64_t>() {
  return "int64";
}
template <>
inline const char* dtype_of<uint8_t>() {
  return "uint8";
}
template <>
inline const char* dtype_of<int8_t>() {
  return "int8";
}

template <typename T>
T* on_device(On array, const char* name, std::initializer_list<int64_t> shape) {
  return static_cast<T*>(checked(array, name, dtype_of<T>(), shape));
}

template <typename T>
T* on_device_if(OnIf array, const char* name, std::initializer_list<int64_t> shape) {
  return array == nullptr ? nullptr : on_device<T>(*array, name, shape);
}

Matrix matrix_on(On array, const char* name, int64_t n_rows = kAny, int64_t dim = kAny);
RowsView rows_on(const std::string& name, On offsets, On items, OnIf values, int64_t n_rows = kAny);
RowsView seen_on(OnIf offsets, OnIf items, int64_t n_rows);  // offsets null: nothing is seen
CodeView code_on(On indices, On values, int64_t n_rows = kAny);
CodeOut code_out_on(On indices, On values, int64_t n_rows);
StatsView stats_on(OnIf mean, OnIf std, int64_t n_rows);
KnobsView knobs_on(On offsets, On latents, On weights, On kinds, int64_t n_rows);
cuda::Precision precision_of(const std::string& name);

// The workspace's address, if it has enough bytes.
void* workspace_on(On workspace, int64_t n_bytes);

[[noreturn]] void raise_for(const char* op, Status status, const std::string& why);

// Queues an op on its device without the GIL.
template <typename Op>
void run_on(const char* name, const Queue& queue, void* workspace, const Op& op) {
  Status status = Status::kLaunchFailed;
  std::string why;
  {
    const py::gil_scoped_release unlocked;
    const cuda::DeviceGuard guard(queue.device);
    if (guard.is_set()) {
      status = op(cuda::Execution{reinterpret_cast<void*>(queue.stream), workspace});
    }
    if (status != Status::kOk) why = cuda::failure();
  }
  if (status != Status::kOk) raise_for(name, status, why);
}

}  // namespace cfsae::door
