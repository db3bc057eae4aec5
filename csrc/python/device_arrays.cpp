#include "python/device_arrays.h"

#include <new>

namespace cfsae::door {

void* checked(On array, const char* name, const char* dtype, std::initializer_list<int64_t> shape) {
  const std::vector<int64_t> wanted(shape);
  if (array.dtype != dtype) {
    bad_type(std::string(name) + " must be " + dtype + ", got " + array.dtype +
             "; convert it first");
  }
  bool fits = array.shape.size() == wanted.size();
  for (size_t i = 0; fits && i < wanted.size(); ++i) {
    fits = wanted[i] == kAny || wanted[i] == array.shape[i];
  }
  if (!fits) {
    bad_value(std::string(name) + " must have shape " + shape_text(wanted) + ", got " +
              shape_text(array.shape));
  }
  return reinterpret_cast<void*>(array.data);
}

int64_t size_of(On array, const char* name, size_t axis) {
  if (array.shape.size() <= axis) {
    bad_value(std::string(name) + " must have at least " + std::to_string(axis + 1) +
              " axes, got " + std::to_string(array.shape.size()));
  }
  return array.shape[axis];
}

Matrix matrix_on(On array, const char* name, int64_t n_rows, int64_t dim) {
  const float* const data = on_device<float>(array, name, {n_rows, dim});
  const Matrix out{data, array.shape[0], array.shape[1]};
  if (out.dim < 1) bad_value(std::string(name) + " must have at least one column, got 0");
  if (out.n_rows > INT32_MAX) {
    bad_value(std::string(name) + " must have fewer than 2^31 rows, got " +
              std::to_string(out.n_rows));
  }
  return out;
}

RowsView rows_on(const std::string& name, On offsets, On items, OnIf values, int64_t n_rows) {
  const std::string of_offsets = name + ".offsets", of_items = name + ".items",
                    of_values = name + ".values";
  RowsView view;
  view.offsets =
      on_device<int64_t>(offsets, of_offsets.c_str(), {n_rows == kAny ? kAny : n_rows + 1});
  view.n_rows = offsets.shape[0] - 1;
  if (view.n_rows < 0) bad_value(of_offsets + " must have at least 1 entry, got 0");
  view.items = on_device<int32_t>(items, of_items.c_str(), {kAny});
  view.values = on_device_if<float>(values, of_values.c_str(), {items.shape[0]});
  return view;
}

RowsView seen_on(OnIf offsets, OnIf items, int64_t n_rows) {
  if ((offsets == nullptr) != (items == nullptr)) {
    bad_value("seen must have both offsets and items, got one of them");
  }
  return offsets == nullptr ? RowsView{} : rows_on("seen", *offsets, *items, nullptr, n_rows);
}

CodeView code_on(On indices, On values, int64_t n_rows) {
  CodeView view;
  view.indices = on_device<int32_t>(indices, "code.indices", {n_rows, kAny});
  view.n_rows = indices.shape[0];
  view.k = indices.shape[1];
  view.values = on_device<float>(values, "code.values", {view.n_rows, view.k});
  return view;
}

CodeOut code_out_on(On indices, On values, int64_t n_rows) {
  CodeOut out;
  out.indices = on_device<int32_t>(indices, "indices", {n_rows, kAny});
  out.n_rows = n_rows;
  out.k = indices.shape[1];
  out.values = on_device<float>(values, "values", {n_rows, out.k});
  return out;
}

StatsView stats_on(OnIf mean, OnIf std, int64_t n_rows) {
  if ((mean == nullptr) != (std == nullptr)) {
    bad_value("stats must have both mean and std, got one of them");
  }
  return {on_device_if<float>(mean, "stats.mean", {n_rows}),
          on_device_if<float>(std, "stats.std", {n_rows})};
}

KnobsView knobs_on(On offsets, On latents, On weights, On kinds, int64_t n_rows) {
  KnobsView view;
  view.offsets = on_device<int64_t>(offsets, "knobs.offsets", {kAny});
  view.n_rows = offsets.shape[0] - 1;
  if (view.n_rows != 1 && view.n_rows != n_rows) {
    bad_value("knobs.offsets must have 2 entries or one more than the code has rows, " +
              std::to_string(n_rows + 1) + ", got " + std::to_string(view.n_rows + 1));
  }
  view.latents = on_device<int32_t>(latents, "knobs.latents", {kAny});
  view.weights = on_device<float>(weights, "knobs.weights", {latents.shape[0]});
  view.kinds = on_device<uint8_t>(kinds, "knobs.kinds", {latents.shape[0]});
  return view;
}

cuda::Precision precision_of(const std::string& name) {
  if (name == "exact") return cuda::Precision::kExact;
  if (name == "fp32") return cuda::Precision::kFp32;
  if (name == "tf32") return cuda::Precision::kTf32;
  if (name == "bf16") return cuda::Precision::kBf16;
  bad_value("precision must be exact, fp32, tf32 or bf16, got " + name);
}

void* workspace_on(On workspace, int64_t n_bytes) {
  void* const at = on_device<uint8_t>(workspace, "workspace", {kAny});
  if (workspace.shape[0] < n_bytes) {
    bad_value("workspace must have " + std::to_string(n_bytes) + " bytes, got " +
              std::to_string(workspace.shape[0]));
  }
  return at;
}

void raise_for(const char* op, Status status, const std::string& why) {
  if (status == Status::kOutOfMemory) throw std::bad_alloc();  // becomes MemoryError
  if (status == Status::kTooLarge) {
    bad_value(std::string(op) + " must get sizes within the kernels' limits (k + knobs of a row " +
              "at most 2048, fewer than 2^31 rows); pass smaller batches");
  }
  throw std::runtime_error(std::string(op) + " could not be launched on the device: " + why);
}

}  // namespace cfsae::door
