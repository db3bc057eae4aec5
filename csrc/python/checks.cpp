// Checks of arrays (dtype, shape, contiguity) and of what is in them (offsets, indices, knobs).
#include "python/checks.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace cfsae::door {
namespace {

std::string text(const py::dtype& dtype) { return py::str(dtype).cast<std::string>(); }

bool fits(const py::array& array, const std::vector<int64_t>& shape) {
  if (array.ndim() != static_cast<py::ssize_t>(shape.size())) return false;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] != kAny && shape[i] != array.shape(static_cast<py::ssize_t>(i))) return false;
  }
  return true;
}

void check_range(const std::string& name, const int32_t* ids, int64_t n, int32_t low,
                 int64_t high) {
  const uint32_t span = static_cast<uint32_t>(high - low);
  const auto outside = [&](int32_t id) {
    return static_cast<uint32_t>(id) - static_cast<uint32_t>(low) >= span;
  };
  bool any = false;
  for (int64_t j = 0; j < n; ++j) any |= outside(ids[j]);
  if (!any) return;
  const int64_t at = std::find_if(ids, ids + n, outside) - ids;
  bad_value(name + " must lie in [" + std::to_string(low) + ", " + std::to_string(high) +
            "), got " + std::to_string(ids[at]) + " at position " + std::to_string(at));
}

void check_offsets(const std::string& name, const int64_t* offsets, int64_t n_rows,
                   int64_t n_entries) {
  int64_t last = 0;
  for (int64_t b = 0; b <= n_rows; ++b) {
    if (offsets[b] < last || offsets[b] > n_entries) {
      bad_value(name + " must rise from 0 or more to at most the number of entries, " +
                std::to_string(n_entries) + ", got " + std::to_string(offsets[b]) +
                " at position " + std::to_string(b));
    }
    last = offsets[b];
  }
}

void check_knob(uint8_t kind, float weight, int64_t at) {
  const std::string where = " at position " + std::to_string(at);
  if (kind > static_cast<uint8_t>(KnobKind::kAdd)) {
    bad_value("knobs.kinds must be a KnobKind in [0, 3), got " + std::to_string(kind) + where);
  }
  if (!std::isfinite(weight)) {
    bad_value("knobs.weights must be finite, got " + std::to_string(weight) + where);
  }
  if (kind != static_cast<uint8_t>(KnobKind::kAdd) && weight < 0.0f) {
    bad_value("knobs.weights must not be negative for SCALE and MIX, got " +
              std::to_string(weight) + where + "; use ADD to push away");
  }
}

// Checks the knobs of one row and returns how many distinct latents they turn.
int64_t check_row(const KnobsView& knobs, int64_t row, std::vector<int32_t>& latents) {
  constexpr double kSumTolerance = 1e-5;  // float32 weights that sum to 1 may pass it by rounding
  double mixed = 0.0;
  std::vector<int32_t> scaled;
  latents.clear();
  for (int64_t j = knobs.offsets[row]; j < knobs.offsets[row + 1]; ++j) {
    check_knob(knobs.kinds[j], knobs.weights[j], j);
    latents.push_back(knobs.latents[j]);
    if (knobs.kinds[j] == static_cast<uint8_t>(KnobKind::kMix)) mixed += knobs.weights[j];
    if (knobs.kinds[j] == static_cast<uint8_t>(KnobKind::kScale)) {
      scaled.push_back(knobs.latents[j]);
    }
  }
  if (mixed > 1.0 + kSumTolerance) {
    bad_value("knobs.weights must sum to at most 1 over a row's MIX knobs, got " +
              std::to_string(mixed) + " in row " + std::to_string(row));
  }
  std::sort(scaled.begin(), scaled.end());
  const auto twice = std::adjacent_find(scaled.begin(), scaled.end());
  if (twice != scaled.end()) {
    bad_value("knobs must SCALE a latent at most once per row, got latent " +
              std::to_string(*twice) + " twice in row " + std::to_string(row) +
              "; multiply the weights");
  }
  std::sort(latents.begin(), latents.end());
  return std::unique(latents.begin(), latents.end()) - latents.begin();
}

}  // namespace

py::array checked_array(Handle value, const char* name, const py::dtype& dtype,
                        std::initializer_list<int64_t> shape, bool written) {
  if (!py::isinstance<py::array>(value)) {
    bad_type(std::string(name) + " must be a " + text(dtype) + " array, got " +
             py::str(py::type::of(value).attr("__name__")).cast<std::string>());
  }
  py::array array = py::reinterpret_borrow<py::array>(value);
  if (!array.dtype().is(dtype) && !array.dtype().equal(dtype)) {
    bad_type(std::string(name) + " must be " + text(dtype) + ", got " + text(array.dtype()) +
             "; convert it first");
  }
  if (!fits(array, shape)) {
    bad_value(std::string(name) + " must have shape " + shape_text(shape) + ", got " +
              shape_text({array.shape(), array.shape() + array.ndim()}));
  }
  if ((array.flags() & py::array::c_style) == 0) {
    bad_value(std::string(name) + " must be contiguous, got strides; copy it first");
  }
  if (written && !array.writeable()) {
    bad_value(std::string(name) + " must be writeable, got a read-only array");
  }
  return array;
}

int64_t size_of(Handle value, const char* name, int axis) {
  if (!py::isinstance<py::array>(value)) bad_type(std::string(name) + " must be an array");
  const py::array array = py::reinterpret_borrow<py::array>(value);
  if (array.ndim() <= axis) {
    bad_value(std::string(name) + " must have at least " + std::to_string(axis + 1) +
              " axes, got " + std::to_string(array.ndim()));
  }
  return array.shape(axis);
}

Matrix matrix(Handle value, const char* name, int64_t n_rows, int64_t dim) {
  const float* const data = borrow<float>(value, name, {n_rows, dim});
  const Matrix out{data, size_of(value, name, 0), size_of(value, name, 1)};
  if (out.dim < 1) bad_value(std::string(name) + " must have at least one column, got 0");
  if (out.n_rows > INT32_MAX) {
    bad_value(std::string(name) + " must have fewer than 2^31 rows, got " +
              std::to_string(out.n_rows));
  }
  return out;
}

RowsView rows_view(const std::string& name, Handle offsets, Handle items, Handle values,
                   int64_t n_items, int64_t n_rows) {
  const std::string offsets_name = name + ".offsets", items_name = name + ".items",
                    values_name = name + ".values";
  const int64_t wanted = n_rows == kAny ? kAny : n_rows + 1;
  RowsView view;
  view.offsets = borrow<int64_t>(offsets, offsets_name.c_str(), {wanted});
  view.n_rows = size_of(offsets, offsets_name.c_str(), 0) - 1;
  if (view.n_rows < 0) bad_value(offsets_name + " must have at least 1 entry, got 0");
  view.items = borrow<int32_t>(items, items_name.c_str(), {kAny});
  const int64_t n = size_of(items, items_name.c_str(), 0);
  view.values = borrow_if<float>(values, values_name.c_str(), {n});
  check_offsets(offsets_name, view.offsets, view.n_rows, n);
  check_range(items_name, view.items, n, 0, n_items);
  return view;
}

CodeView code_view(Handle indices, Handle values, int64_t n_latents, int64_t n_rows) {
  CodeView view;
  view.indices = borrow<int32_t>(indices, "code.indices", {n_rows, kAny});
  view.n_rows = size_of(indices, "code.indices", 0);
  view.k = size_of(indices, "code.indices", 1);
  view.values = borrow<float>(values, "code.values", {view.n_rows, view.k});
  check_range("code.indices", view.indices, view.n_rows * view.k, kPadding, n_latents);
  return view;
}

CodeOut code_out(Handle indices, Handle values, int64_t n_rows) {
  CodeOut out;
  out.n_rows = n_rows;
  out.indices = borrow_out<int32_t>(indices, "indices", {n_rows, kAny});
  out.k = size_of(indices, "indices", 1);
  out.values = borrow_out<float>(values, "values", {n_rows, out.k});
  return out;
}

StatsView stats_view(Handle mean, Handle std, int64_t n_rows) {
  StatsView view;
  view.mean = borrow_if<float>(mean, "stats.mean", {n_rows});
  view.std = borrow_if<float>(std, "stats.std", {n_rows});
  if ((view.mean == nullptr) != (view.std == nullptr)) {
    bad_value("stats must have both mean and std, got one of them");
  }
  return view;
}

CheckedKnobs knobs_view(Handle offsets, Handle latents, Handle weights, Handle kinds,
                        int64_t n_latents, int64_t n_rows) {
  KnobsView view;
  view.n_rows = size_of(offsets, "knobs.offsets", 0) - 1;
  if (view.n_rows != 1 && view.n_rows != n_rows) {
    bad_value("knobs.offsets must have 2 entries or one more than the code has rows, " +
              std::to_string(n_rows + 1) + ", got " + std::to_string(view.n_rows + 1));
  }
  view.offsets = borrow<int64_t>(offsets, "knobs.offsets", {kAny});
  view.latents = borrow<int32_t>(latents, "knobs.latents", {kAny});
  const int64_t n = size_of(latents, "knobs.latents", 0);
  view.weights = borrow<float>(weights, "knobs.weights", {n});
  view.kinds = borrow<uint8_t>(kinds, "knobs.kinds", {n});
  check_offsets("knobs.offsets", view.offsets, view.n_rows, n);
  check_range("knobs.latents", view.latents, n, 0, n_latents);
  int64_t width = 0;
  std::vector<int32_t> scratch;
  for (int64_t row = 0; row < view.n_rows; ++row) {
    width = std::max(width, check_row(view, row, scratch));
  }
  return {view, width};
}

Execution execution(int threads, const std::string& isa) {
  constexpr int kMostThreads = 1024;
  if (threads < 1 || threads > kMostThreads) {
    bad_value("threads must lie in [1, " + std::to_string(kMostThreads) + "], got " +
              std::to_string(threads));
  }
  for (const Isa known : {Isa::kBest, Isa::kBaseline, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Vnni}) {
    if (isa != cpu::name_of(known)) continue;
    if (!cpu::supports(known)) bad_value("isa must be one that this machine has, got " + isa);
    return {threads, known};
  }
  bad_value("isa must be best, baseline, avx2, avx512 or avx512vnni, got " + isa);
}

void raise_unless_ok(Status status) {
  if (status == Status::kOutOfMemory) throw std::bad_alloc();  // becomes MemoryError
}

}  // namespace cfsae::door
