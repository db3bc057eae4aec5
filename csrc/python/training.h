// Ops that only training needs: their part of door 1.
#pragma once

#include <pybind11/pybind11.h>

namespace cfsae::door {

void add_training(pybind11::module_& m);

}  // namespace cfsae::door
