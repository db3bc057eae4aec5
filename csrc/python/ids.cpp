// External ids -> positions, for the requests that a server sees most: lists of lists of int.
#include "python/ids.h"

#include "python/checks.h"

namespace cfsae::door {
namespace {

bool is_list(PyObject* object) { return PyList_CheckExact(object) || PyTuple_CheckExact(object); }

// Whether the id was one that the table knows. No error is left behind.
bool look_up(PyObject* id, const int64_t* table, uint64_t size, int64_t least, int64_t* position) {
  if (!PyLong_CheckExact(id)) return false;
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(id, &overflow);
  if (overflow != 0) return false;
  const uint64_t at = static_cast<uint64_t>(value) - static_cast<uint64_t>(least);
  if (at >= size) return false;
  *position = table[at];
  return *position >= 0;
}

// (positions (nnz,), counts (B,)) of lists of ids, or None where anything is unusual: something
// else than a list, an id that is no int or that is not known. table[id - least]: its position or
// -1.
py::object positions_of_lists(const py::list& lists, Handle table, int64_t least) {
  const int64_t* const known = borrow<int64_t>(table, "table", {kAny});
  const auto size = static_cast<uint64_t>(size_of(table, "table", 0));
  const auto n_lists = static_cast<Py_ssize_t>(lists.size());
  py::array_t<int64_t> counts(n_lists);
  Py_ssize_t total = 0;
  for (Py_ssize_t b = 0; b < n_lists; ++b) {
    PyObject* const list = PyList_GET_ITEM(lists.ptr(), b);
    if (!is_list(list)) return py::none();
    counts.mutable_data()[b] = PySequence_Fast_GET_SIZE(list);
    total += PySequence_Fast_GET_SIZE(list);
  }
  py::array_t<int64_t> positions(total);
  int64_t* to = positions.mutable_data();
  for (Py_ssize_t b = 0; b < n_lists; ++b) {
    PyObject* const list = PyList_GET_ITEM(lists.ptr(), b);
    PyObject** const ids = PySequence_Fast_ITEMS(list);
    const Py_ssize_t n = PySequence_Fast_GET_SIZE(list);
    for (Py_ssize_t j = 0; j < n; ++j) {
      if (!look_up(ids[j], known, size, least, to++)) return py::none();
    }
  }
  return py::make_tuple(positions, counts);
}

}  // namespace

void add_ids(py::module_& m) { m.def("positions_of_lists", positions_of_lists); }

}  // namespace cfsae::door
