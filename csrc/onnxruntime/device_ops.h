// The nodes of ai.cfsae on the CUDA provider: matrices and codes stay on the device; what a
// request says (ids, offsets, knobs, n) is read and checked on the CPU, as by the nodes of ops.h.
#pragma once

#include "onnxruntime/ops.h"

namespace cfsae::ort {

struct DeviceEncodeRows : EncodeRows {
  static constexpr unsigned kOnHost = 0b0011;  // items, offsets
  using EncodeRows::EncodeRows;
  void run(const Context& context) const;
};

struct DeviceTopkEncode {  // not TopkEncode: that one reads its encoder on the CPU
  static constexpr const char* kName = TopkEncode::kName;
  static constexpr auto kInputs = TopkEncode::kInputs;
  static constexpr auto kOutputs = TopkEncode::kOutputs;
  static constexpr unsigned kOnHost = 0;
  explicit DeviceTopkEncode(const Info& info)
      : k(info.integer("k")),
        standardize(info.integer("standardize") != 0),
        threshold(info.real("threshold")) {}
  void run(const Context& context) const;
  int64_t k;
  bool standardize;
  float threshold;
};

struct DeviceSteerDecode : SteerDecode {
  static constexpr unsigned kOnHost = 0b0011'1110'0000;  // the knobs and alpha
  using SteerDecode::SteerDecode;
  void run(const Context& context) const;
};

struct DeviceFoldedTopkEncode {
  static constexpr const char* kName = FoldedTopkEncode::kName;
  static constexpr auto kInputs = FoldedTopkEncode::kInputs;
  static constexpr auto kOutputs = FoldedTopkEncode::kOutputs;
  static constexpr unsigned kOnHost = 0b1000'0000'0011;  // items, offsets, the table's norms
  explicit DeviceFoldedTopkEncode(const Info& info)
      : k(info.integer("k")),
        standardize(info.integer("standardize") != 0),
        threshold(info.real("threshold")) {}
  void run(const Context& context) const;
  int64_t k;
  bool standardize;
  float threshold;
};

struct DeviceRecommend {
  static constexpr const char* kName = Recommend::kName;
  static constexpr auto kInputs = Recommend::kInputs;
  static constexpr auto kOutputs = Recommend::kOutputs;
  static constexpr unsigned kOnHost = 0b0111'1000;  // seen, deny, n
  explicit DeviceRecommend(const Info&) {}
  void run(const Context& context) const;
};

struct DeviceFoldedRecommend : FoldedRecommend {
  static constexpr unsigned kOnHost = 0b1'0000'0000'0111'1000;  // seen, deny, n; the norms
  using FoldedRecommend::FoldedRecommend;
  void run(const Context& context) const;
};

struct DeviceSteer : Steer {
  static constexpr unsigned kOnHost = 0b0111'1100;  // the knobs and alpha
  using Steer::Steer;
  void run(const Context& context) const;
};

struct DeviceSparseDecode : SparseDecode {
  static constexpr unsigned kOnHost = 0;
  using SparseDecode::SparseDecode;
  void run(const Context& context) const;
};

}  // namespace cfsae::ort
