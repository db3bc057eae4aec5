// The nodes of the domain ai.cfsae: their inputs, outputs and attributes. What they mean stands in
// export/functions.py, as functions of standard ops, which run wherever this library is absent.
#pragma once

#include <array>

#include "onnxruntime/door.h"

namespace cfsae::ort {

inline constexpr Element kF = Element::kFloat, kI = Element::kInt32, kL = Element::kInt64,
                         kB = Element::kInt8;

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
        threshold(info.real("threshold")),
        screen(info, 1) {}
  void run(const Context& context) const;
  int64_t k;
  bool standardize;
  float threshold;  // values must exceed it to be kept
  KeptScreen screen;
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
  explicit Recommend(const Info& info) : screen(info, 1) {}
  void run(const Context& context) const;
  KeptScreen screen;
};

// indices, values (B, k), knob latents, weights, kinds, offsets, alpha, dictionary (L, d) -> the
// code after its knobs (B, k + the most latents that a row turns).
struct Steer {
  static constexpr const char* kName = "Steer";
  static constexpr std::array kInputs{kI, kF, kL, kF, kL, kL, kF, kF};
  static constexpr std::array kOutputs{kI, kF};
  explicit Steer(const Info&) {}
  void run(const Context& context) const;
};

// indices, values (B, k), mean, std (B), dictionary (L, d), bias (d) -> (B, d).
struct SparseDecode {
  static constexpr const char* kName = "SparseDecode";
  static constexpr std::array kInputs{kI, kF, kF, kF, kF, kF};
  static constexpr std::array kOutputs{kF};
  explicit SparseDecode(const Info&) {}
  void run(const Context& context) const;
};

// A folded table is six inputs: values int8 (rows, columns), scales, errors (rows), sums, shifts
// (columns), norms (4), as cfsae_fast/ops/folded.py describes them.

// items (nnz), offsets (B + 1), what TopkEncode takes, the table (I, L) -> what TopkEncode gives.
struct FoldedTopkEncode {
  static constexpr const char* kName = "FoldedTopkEncode";
  static constexpr std::array kInputs{kL, kL, kF, kF, kF, kF, kB, kF, kF, kF, kF, kF};
  static constexpr std::array kOutputs{kI, kF, kF, kF};
  explicit FoldedTopkEncode(const Info& info)
      : k(info.integer("k")),
        standardize(info.integer("standardize") != 0),
        threshold(info.real("threshold")),
        screen(info, 3) {}
  void run(const Context& context) const;
  int64_t k;
  bool standardize;
  float threshold;
  KeptScreen screen;
};

// What Recommend takes, the code that embedding is decoded from: indices, values (B, k), mean, std
// (B), and the table (L, I) -> ids, scores (B, n).
struct FoldedRecommend {
  static constexpr const char* kName = "FoldedRecommend";
  static constexpr std::array kInputs{kF, kF, kF, kL, kL, kL, kL, kI, kF,
                                      kF, kF, kB, kF, kF, kF, kF, kF};
  static constexpr std::array kOutputs{kL, kF};
  explicit FoldedRecommend(const Info&) {}
  void run(const Context& context) const;
};

// What several nodes do.
struct FoldedInputs {  // the six inputs of a folded table, from `first` on; norms are read here
  cpu::FoldedTable products;
  const float *sums, *shifts, *norms;
  FoldedInputs(const Context& context, size_t first, int64_t n_rows, int64_t dim);
  cpu::FoldedEncoder encoder() const {
    return {products, sums, shifts, norms[0], norms[1], norms[3]};
  }
  cpu::FoldedDecoder decoder() const {
    return {products, sums, shifts, norms[0], norms[1], norms[2], norms[3]};
  }
};

struct CodeParts {  // of inputs first (indices) and first + 1 (values)
  CodeView view;
  CodeParts(const Context& context, size_t first, int64_t n_rows, int64_t n_latents);
};
void check_k(int64_t k, int64_t n_latents);
void keep_above(const CodeOut& code, float threshold);

struct Asked {  // what must not be recommended, and how much must: inputs first .. first + 3
  RowSets seen;
  std::vector<uint8_t> allowed_items;
  int64_t n;
  Asked(const Context& context, size_t first, int64_t n_rows, int64_t n_items);
  const uint8_t* allowed() const { return allowed_items.empty() ? nullptr : allowed_items.data(); }
};

class Answer {  // the outputs of a node that recommends
 public:
  Answer(const Context& context, int64_t n_rows, int64_t n);
  CodeOut out() { return {n_rows_, n_, found_.data(), scores_}; }
  void write() const;  // int32 ids -> the runtime's int64

 private:
  int64_t n_rows_, n_;
  int64_t* ids_;
  float* scores_;
  std::vector<int32_t> found_;
};

}  // namespace cfsae::ort
