// What a kernel of this library sees of ONNX Runtime: checked inputs, outputs, attributes, threads.
// Whatever is wrong is thrown as BadInput before any memory of a tensor is touched out of bounds.
#pragma once

#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include "api.h"
#include "onnxruntime/abi.h"

namespace cfsae::ort {

inline constexpr int64_t kAny = -1;  // a size that no other input fixes

struct BadInput : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

void require(OrtApiTable api, OrtStatus* status, const char* doing);

template <typename T>
struct Span {  // a tensor's memory and its shape
  const T* data;
  std::vector<int64_t> shape;
  int64_t size() const {
    int64_t n = 1;
    for (const int64_t extent : shape) n *= extent;
    return n;
  }
};

class Info {  // attributes of a node, read once
 public:
  Info(OrtApiTable api, const OrtKernelInfo* info) : api_(api), info_(info) {}
  int64_t integer(const char* name) const;
  int64_t integer_or(const char* name, int64_t absent) const;
  float real(const char* name) const;
  Matrix constant(size_t at) const;  // an input that stays while the session does; else no data

 private:
  OrtApiTable api_;
  const OrtKernelInfo* info_;
};

class Context {  // one run of a node
 public:
  Context(OrtApiTable api, OrtKernelContext* context) : api_(api), context_(context) {}

  Span<float> floats(size_t at, const char* name, std::initializer_list<int64_t> shape) const;
  Span<int8_t> int8s(size_t at, const char* name, std::initializer_list<int64_t> shape) const;
  Span<int32_t> int32s(size_t at, const char* name, std::initializer_list<int64_t> shape) const;
  Span<int64_t> int64s(size_t at, const char* name, std::initializer_list<int64_t> shape) const;
  Matrix matrix(size_t at, const char* name, int64_t n_rows, int64_t dim) const;
  int64_t integer(size_t at, const char* name) const;  // the one entry of a tensor of any rank
  float real(size_t at, const char* name) const;

  float* float_out(size_t at, std::initializer_list<int64_t> shape) const;
  int32_t* int32_out(size_t at, std::initializer_list<int64_t> shape) const;
  int64_t* int64_out(size_t at, std::initializer_list<int64_t> shape) const;

  void* stream() const;  // the cudaStream_t of a node on the CUDA provider

 private:
  template <typename T>
  Span<T> input(size_t at, const char* name, Element element) const;
  void* output(size_t at, std::initializer_list<int64_t> shape) const;

  OrtApiTable api_;
  OrtKernelContext* context_;
};

// What lets the engine exclude rows of a constant matrix in 8 bits, made where it pays.
class KeptScreen {
 public:
  KeptScreen(const Info& info, size_t at);
  Matrix with(Matrix matrix) const {
    if (matrix.data == data_) matrix.screen = memory_.data();
    return matrix;
  }

 private:
  const float* data_ = nullptr;
  std::vector<uint8_t> memory_;
};

// Each row's distinct ids, sorted; ids in [0, n_ids), offsets that rise within the entries.
class RowSets {
 public:
  RowSets(const std::string& name, const Span<int64_t>& ids, const Span<int64_t>& offsets,
          int64_t n_ids);
  RowsView view() const {
    return {static_cast<int64_t>(offsets_.size()) - 1, offsets_.data(), items_.data(), nullptr};
  }

 private:
  std::vector<int64_t> offsets_;
  std::vector<int32_t> items_;
};

// int32 copies of ids in [0, n_ids).
std::vector<int32_t> checked_ids(const std::string& name, const Span<int64_t>& ids, int64_t n_ids);
void check_offsets(const std::string& name, const Span<int64_t>& offsets, int64_t n_entries);

void raise_unless_ok(Status status);

// While one lives, the engine's loops on this thread run on the pool of the runtime's session.
class PoolScope {
 public:
  PoolScope(OrtApiTable api, OrtKernelContext* context);
  ~PoolScope();
  PoolScope(const PoolScope&) = delete;
  PoolScope& operator=(const PoolScope&) = delete;
};

Execution execution();  // as many workers as this process may use cores; the pool may have fewer

}  // namespace cfsae::ort
