// Working memory of an op, aligned to a cache line, and the way from exceptions to a Status.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "api.h"

namespace cfsae::cpu {

template <typename T>
class Scratch {  // uninitialised
 public:
  explicit Scratch(int64_t count) : data_(allocate(count)) {}
  T* data() const { return data_.get(); }
  T& operator[](int64_t i) const { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(T* memory) const { std::free(memory); }
  };
  static T* allocate(int64_t count) {
    constexpr size_t kLine = 64;
    if (count < 0 || static_cast<uint64_t>(count) > SIZE_MAX / sizeof(T) - kLine) {
      throw std::bad_alloc();
    }
    const size_t bytes = (static_cast<size_t>(count) * sizeof(T) / kLine + 1) * kLine;
    void* const memory = std::aligned_alloc(kLine, bytes);
    if (memory == nullptr) throw std::bad_alloc();
    return static_cast<T*>(memory);
  }
  std::unique_ptr<T[], Free> data_;
};

template <typename Body>
Status guarded(const Body& body) {
  try {
    body();
    return Status::kOk;
  } catch (const std::bad_alloc&) {
    return Status::kOutOfMemory;
  }
}

// Inside `guarded`: an op that is part of another.
inline void require(Status status) {
  if (status != Status::kOk) throw std::bad_alloc();
}

}  // namespace cfsae::cpu
