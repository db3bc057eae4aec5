// The knobs of a request as the engine takes them, after every check of the Python door.
#pragma once

#include <vector>

#include "onnxruntime/door.h"

namespace cfsae::ort {

// The graph knows one kind more than the engine: an ADD in units of the sum of the row's code.
inline constexpr int64_t kAddRelative = 3;

class CheckedKnobs {
 public:
  // From inputs `first` (latents), weights, kinds, offsets and alpha of a node that steers.
  CheckedKnobs(const Context& context, size_t first, const CodeView& code, int64_t n_latents);
  KnobsView view() const {
    return {static_cast<int64_t>(offsets_.size()) - 1, offsets_.data(), latents_.data(),
            weights_.data(), kinds_.data()};
  }

  int64_t most_knobs() const;    // of one row
  int64_t most_latents() const;  // that one row turns, each counted once

 private:
  void add_row(const Span<float>& weights, const Span<int64_t>& kinds,
               const std::vector<int32_t>& latents, int64_t first, int64_t last, float alpha,
               double activation);
  void check_row(size_t first) const;

  std::vector<int64_t> offsets_{0};
  std::vector<int32_t> latents_;
  std::vector<float> weights_;
  std::vector<uint8_t> kinds_;
};

}  // namespace cfsae::ort
