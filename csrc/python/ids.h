// What bindings.cpp needs of ids.cpp.
#pragma once

#include <pybind11/pybind11.h>

namespace cfsae::door {

void add_ids(pybind11::module_& m);

}  // namespace cfsae::door
