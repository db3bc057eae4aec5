// The nodes of the domain ai.cfsae: their inputs, outputs and attributes. What they mean stands in
// export/functions.py, as functions of standard ops, which run wherever this library is absent.
#pragma once

#include <array>

#include "onnxruntime/door.h"

namespace cfsae::ort {

inline constexpr Element kF = Element::kFloat, kI = Element::kInt32, kL = Element::kInt64;

// items (nnz), offsets (B + 1), weight (I, d), bias (d) -> (B, d): bias + sum over a row's distinct
// items, divided by the row's length first if normalize.
struct EncodeRows {
  static constexpr const char* kName = "EncodeRows";
  static constexpr std::array kInputs{kL, kL, kF, kF};
  static constexpr std::array kOutputs{kF};
  explicit EncodeRows(const Info& info) : normalize(info.integer("normalize") != 0) {}
  void run(const Context& context) const;
  bool normalize;
};

// embedding (B, d), encoder (L, d), bias (L), centre (d) -> indices, values (B, k), mean, std (B).
struct TopkEncode {
  static constexpr const char* kName = "TopkEncode";
  static constexpr std::array kInputs{kF, kF, kF, kF};
  static constexpr std::array kOutputs{kI, kF, kF, kF};
  explicit TopkEncode(const Info& info)
      : k(info.integer("k")),
        standardize(info.integer("standardize") != 0),
        threshold(info.real("threshold")) {}
  void run(const Context& context) const;
  int64_t k;
  bool standardize;
  float threshold;  // values must exceed it to be kept
};

// embedding (B, d), indices, values (B, k), mean, std (B), knob latents, weights, kinds (m), knob
// offsets (B + 1, or 2 for all rows alike), alpha, dictionary (L, d), bias (d) -> (B, d).
struct SteerDecode {
  static constexpr const char* kName = "SteerDecode";
  static constexpr std::array kInputs{kF, kI, kF, kF, kF, kL, kF, kL, kL, kF, kF, kF};
  static constexpr std::array kOutputs{kF};
  explicit SteerDecode(const Info& info)
      : mode(info.integer("residual") != 0 ? DecodeMode::kResidual : DecodeMode::kReconstruct) {}
  void run(const Context& context) const;
  DecodeMode mode;
};

// embedding (B, d), items (I, d), bias (I), seen (nnz), seen offsets (B + 1), deny (m), n -> ids,
// scores (B, n).
struct Recommend {
  static constexpr const char* kName = "Recommend";
  static constexpr std::array kInputs{kF, kF, kF, kL, kL, kL, kL};
  static constexpr std::array kOutputs{kL, kF};
  explicit Recommend(const Info&) {}
  void run(const Context& context) const;
};

}  // namespace cfsae::ort
