// Everything that could corrupt memory or be misread is checked here, before the engine borrows it.
// Messages: `<argument> must <want>, got <what>[; <what to do>]`.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <initializer_list>
#include <string>

#include "api.h"
#include "python/messages.h"

namespace cfsae::door {

using Handle = const py::object&;

// The array's data after its dtype, shape and contiguity were checked; written: also writeable.
py::array checked_array(Handle value, const char* name, const py::dtype& dtype,
                        std::initializer_list<int64_t> shape, bool written);

template <typename T>
const T* borrow(Handle value, const char* name, std::initializer_list<int64_t> shape) {
  return static_cast<const T*>(checked_array(value, name, py::dtype::of<T>(), shape, false).data());
}

template <typename T>
T* borrow_out(Handle value, const char* name, std::initializer_list<int64_t> shape) {
  return static_cast<T*>(
      checked_array(value, name, py::dtype::of<T>(), shape, true).mutable_data());
}

template <typename T>
const T* borrow_if(Handle value, const char* name, std::initializer_list<int64_t> shape) {
  return value.is_none() ? nullptr : borrow<T>(value, name, shape);
}

template <typename T>
T* borrow_out_if(Handle value, const char* name, std::initializer_list<int64_t> shape) {
  return value.is_none() ? nullptr : borrow_out<T>(value, name, shape);
}

int64_t size_of(Handle value, const char* name, int axis);

Matrix matrix(Handle value, const char* name, int64_t n_rows = kAny, int64_t dim = kAny);

// Offsets that rise within [0, n_entries] and items in [0, n_items); `name` is rows or seen.
RowsView rows_view(const std::string& name, Handle offsets, Handle items, Handle values,
                   int64_t n_items, int64_t n_rows = kAny);

CodeView code_view(Handle indices, Handle values, int64_t n_latents, int64_t n_rows = kAny);
CodeOut code_out(Handle indices, Handle values, int64_t n_rows);
StatsView stats_view(Handle mean, Handle std, int64_t n_rows);

struct CheckedKnobs {
  KnobsView view;
  int64_t width;  // the largest number of distinct latents that a row turns
};

CheckedKnobs knobs_view(Handle offsets, Handle latents, Handle weights, Handle kinds,
                        int64_t n_latents, int64_t n_rows);

Execution execution(int threads, const std::string& isa);
void raise_unless_ok(Status status);

// Calls an op of the engine without the GIL.
template <typename Op>
void run(const Op& op) {
  Status status;
  {
    const py::gil_scoped_release unlocked;
    status = op();
  }
  raise_unless_ok(status);
}

}  // namespace cfsae::door
