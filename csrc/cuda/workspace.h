// Cuts a caller's workspace into arrays. Over a null base it only measures, so that the size asked
// for and the cuts made come from the same lines of code.
#pragma once

#include <cstdint>

#include "cuda/platform.h"

namespace cfsae::cuda {

class Workspace {
 public:
  explicit Workspace(void* base) : base_(static_cast<unsigned char*>(base)) {}

  template <typename T>
  T* take(int64_t count) {
    unsigned char* const at = base_ == nullptr ? nullptr : base_ + bytes_;
    bytes_ += divide_up(count * static_cast<int64_t>(sizeof(T)), kAlignment) * kAlignment;
    if (base_ != nullptr) close_gap(base_ + bytes_);
    bytes_ += kGapBytes;
    return reinterpret_cast<T*>(at);
  }
  int64_t bytes() const { return bytes_; }

 private:
  static constexpr int64_t kAlignment = 256;
  unsigned char* base_;
  int64_t bytes_ = 0;
};

}  // namespace cfsae::cuda
