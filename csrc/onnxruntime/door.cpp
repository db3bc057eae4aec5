// Checks of what the runtime hands over: types, shapes, ids and offsets.
#include "onnxruntime/door.h"

#include <algorithm>
#include <thread>

namespace cfsae::ort {
namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out = "(";
  for (size_t i = 0; i < shape.size(); ++i) {
    out += (i > 0 ? ", " : "") + (shape[i] == kAny ? std::string("any") : std::to_string(shape[i]));
  }
  return out + (shape.size() == 1 ? ",)" : ")");
}

void check_shape(const char* name, const std::vector<int64_t>& got,
                 const std::vector<int64_t>& want) {
  bool fits = got.size() == want.size();
  for (size_t i = 0; fits && i < want.size(); ++i) fits = want[i] == kAny || want[i] == got[i];
  if (!fits) {
    throw BadInput(std::string(name) + " must have shape " + shape_text(want) + ", got " +
                   shape_text(got));
  }
}

}  // namespace

void require(OrtApiTable api, OrtStatus* status, const char* doing) {
  if (status == nullptr) return;
  call<Slot::ReleaseStatus, void>(api, status);
  throw std::runtime_error(std::string("the runtime failed while ") + doing);
}

template <typename T>
Span<T> read_tensor(OrtApiTable api, const OrtValue* value, const char* name, Element* type) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  require(api, call<Slot::GetTensorTypeAndShape, OrtStatus*>(api, value, &info), name);
  const OrtTensorTypeAndShapeInfo* const read = info;
  size_t rank = 0;
  Span<T> span{};
  OrtStatus* status = call<Slot::GetTensorElementType, OrtStatus*>(api, read, type);
  if (status == nullptr) {
    status = call<Slot::GetDimensionsCount, OrtStatus*>(api, read, &rank);
  }
  span.shape.resize(rank);
  if (status == nullptr) {
    status = call<Slot::GetDimensions, OrtStatus*>(api, read, span.shape.data(), rank);
  }
  call<Slot::ReleaseTensorTypeAndShapeInfo, void>(api, info);
  require(api, status, name);
  void* data = nullptr;
  OrtValue* const unread = const_cast<OrtValue*>(value);
  require(api, call<Slot::GetTensorMutableData, OrtStatus*>(api, unread, &data), name);
  span.data = static_cast<const T*>(data);
  return span;
}

int64_t Info::integer(const char* name) const {
  int64_t value = 0;
  require(api_, call<Slot::KernelInfoGetAttribute_int64, OrtStatus*>(api_, info_, name, &value),
          name);
  return value;
}

int64_t Info::integer_or(const char* name, int64_t absent) const {
  int64_t value = absent;
  OrtStatus* const status =
      call<Slot::KernelInfoGetAttribute_int64, OrtStatus*>(api_, info_, name, &value);
  if (status == nullptr) return value;
  call<Slot::ReleaseStatus, void>(api_, status);
  return absent;
}

float Info::real(const char* name) const {
  float value = 0.0f;
  require(api_, call<Slot::KernelInfoGetAttribute_float, OrtStatus*>(api_, info_, name, &value),
          name);
  return value;
}

Matrix Info::constant(size_t at) const {
  int is_constant = 0;
  const OrtValue* value = nullptr;
  require(api_,
          call<Slot::KernelInfoGetConstantInput_tensor, OrtStatus*>(api_, info_, at, &is_constant,
                                                                    &value),
          "reading a constant");
  if (is_constant == 0 || value == nullptr) return {nullptr, 0, 0};
  Element type{};
  const Span<float> span = read_tensor<float>(api_, value, "a constant", &type);
  if (type != Element::kFloat || span.shape.size() != 2) return {nullptr, 0, 0};
  return {span.data, span.shape[0], span.shape[1]};
}

template <typename T>
Span<T> Context::input(size_t at, const char* name, Element element) const {
  const OrtValue* value = nullptr;
  const OrtKernelContext* const context = context_;
  require(api_, call<Slot::KernelContext_GetInput, OrtStatus*>(api_, context, at, &value), name);
  if (value == nullptr) throw BadInput(std::string(name) + " must be given, got nothing");
  Element type{};
  const Span<T> span = read_tensor<T>(api_, value, name, &type);
  if (type != element) throw BadInput(std::string(name) + " has the wrong element type");
  return span;
}

Span<float> Context::floats(size_t at, const char* name,
                            std::initializer_list<int64_t> shape) const {
  Span<float> span = input<float>(at, name, Element::kFloat);
  check_shape(name, span.shape, shape);
  return span;
}

Span<int8_t> Context::int8s(size_t at, const char* name,
                            std::initializer_list<int64_t> shape) const {
  Span<int8_t> span = input<int8_t>(at, name, Element::kInt8);
  check_shape(name, span.shape, shape);
  return span;
}

Span<int32_t> Context::int32s(size_t at, const char* name,
                              std::initializer_list<int64_t> shape) const {
  Span<int32_t> span = input<int32_t>(at, name, Element::kInt32);
  check_shape(name, span.shape, shape);
  return span;
}

Span<int64_t> Context::int64s(size_t at, const char* name,
                              std::initializer_list<int64_t> shape) const {
  Span<int64_t> span = input<int64_t>(at, name, Element::kInt64);
  check_shape(name, span.shape, shape);
  return span;
}

Matrix Context::matrix(size_t at, const char* name, int64_t n_rows, int64_t dim) const {
  const Span<float> span = floats(at, name, {n_rows, dim});
  if (span.shape[1] < 1 || span.shape[0] > INT32_MAX) {
    throw BadInput(std::string(name) + " must have columns and fewer than 2^31 rows, got " +
                   shape_text(span.shape));
  }
  return {span.data, span.shape[0], span.shape[1]};
}

int64_t Context::integer(size_t at, const char* name) const {
  const Span<int64_t> span = input<int64_t>(at, name, Element::kInt64);
  if (span.size() != 1) throw BadInput(std::string(name) + " must be one number");
  return span.data[0];
}

float Context::real(size_t at, const char* name) const {
  const Span<float> span = input<float>(at, name, Element::kFloat);
  if (span.size() != 1) throw BadInput(std::string(name) + " must be one number");
  return span.data[0];
}

void* Context::output(size_t at, std::initializer_list<int64_t> shape) const {
  OrtValue* value = nullptr;
  require(api_,
          call<Slot::KernelContext_GetOutput, OrtStatus*>(api_, context_, at, shape.begin(),
                                                          shape.size(), &value),
          "allocating an output");
  void* data = nullptr;
  require(api_, call<Slot::GetTensorMutableData, OrtStatus*>(api_, value, &data), "writing");
  return data;
}

float* Context::float_out(size_t at, std::initializer_list<int64_t> shape) const {
  return static_cast<float*>(output(at, shape));
}

int32_t* Context::int32_out(size_t at, std::initializer_list<int64_t> shape) const {
  return static_cast<int32_t*>(output(at, shape));
}

int64_t* Context::int64_out(size_t at, std::initializer_list<int64_t> shape) const {
  return static_cast<int64_t*>(output(at, shape));
}

void* Context::stream() const {
  void* stream = nullptr;
  const OrtKernelContext* const context = context_;
  require(api_, call<Slot::KernelContext_GetGPUComputeStream, OrtStatus*>(api_, context, &stream),
          "asking for the stream");
  return stream;
}

KeptScreen::KeptScreen(const Info& info, size_t at) {
  constexpr int64_t kWorthItFrom = 1 << 18;  // entries, as in cfsae_fast/ops/screens.py
  const Matrix matrix = info.constant(at);
  if (matrix.data == nullptr || matrix.n_rows * matrix.dim < kWorthItFrom) return;
  if (!cpu::has_screens()) return;
  memory_.resize(static_cast<size_t>(cpu::screen_bytes(matrix.n_rows, matrix.dim)));
  raise_unless_ok(cpu::make_screen(matrix, memory_.data(), execution()));
  data_ = matrix.data;
}

void check_offsets(const std::string& name, const Span<int64_t>& offsets, int64_t n_entries) {
  if (offsets.size() < 1) throw BadInput(name + " must have at least 1 entry, got 0");
  int64_t last = 0;
  for (int64_t b = 0; b < offsets.size(); ++b) {
    const int64_t at = offsets.data[b];
    if (at < last || at > n_entries) {
      throw BadInput(name + " must rise from 0 or more to at most the number of entries, " +
                     std::to_string(n_entries) + ", got " + std::to_string(at) + " at position " +
                     std::to_string(b));
    }
    last = at;
  }
}

std::vector<int32_t> checked_ids(const std::string& name, const Span<int64_t>& ids, int64_t n_ids) {
  std::vector<int32_t> out(static_cast<size_t>(ids.size()));
  for (int64_t j = 0; j < ids.size(); ++j) {
    if (ids.data[j] < 0 || ids.data[j] >= n_ids) {
      throw BadInput(name + " must lie in [0, " + std::to_string(n_ids) + "), got " +
                     std::to_string(ids.data[j]) + " at position " + std::to_string(j));
    }
    out[static_cast<size_t>(j)] = static_cast<int32_t>(ids.data[j]);
  }
  return out;
}

RowSets::RowSets(const std::string& name, const Span<int64_t>& ids, const Span<int64_t>& offsets,
                 int64_t n_ids) {
  check_offsets(name + " offsets", offsets, ids.size());
  std::vector<int32_t> all = checked_ids(name, ids, n_ids);
  offsets_.push_back(0);
  for (int64_t b = 0; b + 1 < offsets.size(); ++b) {
    const auto first = all.begin() + offsets.data[b], last = all.begin() + offsets.data[b + 1];
    std::sort(first, last);
    items_.insert(items_.end(), first, std::unique(first, last));
    offsets_.push_back(static_cast<int64_t>(items_.size()));
  }
}

void raise_unless_ok(Status status) {
  if (status == Status::kOutOfMemory) throw std::runtime_error("the engine is out of memory");
}

Execution execution() {
  static const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return {cores, Isa::kBest};
}

}  // namespace cfsae::ort
