// How both halves of door 1 refuse an argument.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

namespace cfsae::door {

namespace py = pybind11;

inline constexpr int64_t kAny = -1;  // a size that is not fixed by another argument

[[noreturn]] inline void bad_value(const std::string& message) { throw py::value_error(message); }
[[noreturn]] inline void bad_type(const std::string& message) { throw py::type_error(message); }

inline std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out = "(";
  for (size_t i = 0; i < shape.size(); ++i) {
    out += (i > 0 ? ", " : "") + (shape[i] == kAny ? std::string("any") : std::to_string(shape[i]));
  }
  return out + (shape.size() == 1 ? ",)" : ")");
}

}  // namespace cfsae::door
