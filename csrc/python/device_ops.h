// What bindings.cpp needs of device_ops.cpp, where the kernels are compiled in.
#pragma once

#include <pybind11/pybind11.h>

namespace cfsae::door {

// Adds the ops of api.h's cuda:: half, and what they take, to a module.
void add_device_ops(pybind11::module_& m);
void add_folded_device_ops(pybind11::module_& m);  // device_folded.cpp; add_device_ops calls it

}  // namespace cfsae::door
