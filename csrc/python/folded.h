// What bindings.cpp needs of folded.cpp.
#pragma once

#include <pybind11/pybind11.h>

namespace cfsae::door {

void add_folded(pybind11::module_& m);

}  // namespace cfsae::door
