// The whole engine on one page: views, words and every op. No Python, no torch, no ONNX.
// An op borrows raw memory, allocates no result, keeps no state and returns a Status; it trusts
// its arguments, which the doors (python/, onnxruntime/) have checked. Results do not depend on
// the thread count. Letters: B batch, I items, d dimension, L latents, k active, N recommended.
#pragma once

#include <cstdint>

namespace cfsae {

inline constexpr int32_t kPadding = -1;  // index of an empty slot; its value is 0 (-inf: scores)
inline constexpr float kStdEpsilon = 1e-7f;  // added to the standard deviation of a row

enum class Status { kOk, kOutOfMemory };
enum class Isa { kBest, kBaseline, kAvx2, kAvx512 };
enum class KnobKind : uint8_t { kMix = 0, kScale = 1, kAdd = 2 };
enum class DecodeMode { kResidual, kReconstruct };

struct Execution {
  int threads = 1;
  Isa isa = Isa::kBest;
};

struct Matrix {  // row-major, contiguous
  const float* data;
  int64_t n_rows, dim;
  const float* row(int64_t i) const { return data + i * dim; }
};

struct RowsView {  // row b holds items[offsets[b] .. offsets[b + 1]); values null: all 1
  int64_t n_rows;
  const int64_t* offsets;
  const int32_t* items;
  const float* values;
};

struct CodeView {  // (n_rows, k), padded with kPadding / 0
  int64_t n_rows, k;
  const int32_t* indices;
  const float* values;
};

struct CodeOut {
  int64_t n_rows, k;
  int32_t* indices;
  float* values;
};

struct StatsView {  // (B,) each, or null: mean 0, std 1
  const float* mean = nullptr;
  const float* std = nullptr;
};

struct KnobsView {  // CSR over n_rows, or n_rows = 1 for one set shared by every row
  int64_t n_rows;
  const int64_t* offsets;
  const int32_t* latents;
  const float* weights;
  const uint8_t* kinds;
};

namespace cpu {

// out (B, d) = bias + sum_j value_j * weight[item_j]; bias may be null.
Status encode_rows(const RowsView& rows, const Matrix& weight, const float* bias, float* out,
                   const Execution& execution);

// From grad (B, d): grad_weight (I, d), grad_bias (d), grad_values (nnz); each may be null.
Status encode_rows_backward(const RowsView& rows, const Matrix& weight, const Matrix& grad,
                            float* grad_weight, float* grad_bias, float* grad_values,
                            const Execution& execution);

// The k largest strictly positive ((u - centre) @ encoder.T + bias) of each row, where
// u = (embedding - mean) / std if mean and std are given (they are written), else the embedding.
Status topk_encode(const Matrix& embedding, const Matrix& encoder, const float* bias,
                   const float* centre, const CodeOut& code, float* mean, float* std,
                   const Execution& execution);

struct TopkEncodeGrads {  // what arrives (mean, std null: zero) and is written (null: not wanted)
  const float *values, *mean, *std;
  float *embedding, *encoder, *bias, *centre;
};

// Touches the kept latents only. stats as topk_encode wrote them, null if it did not standardise.
Status topk_encode_backward(const Matrix& embedding, const Matrix& encoder, const float* centre,
                            const CodeView& code, const StatsView& stats,
                            const TopkEncodeGrads& grads, const Execution& execution);

// out (B, d) = mean + std * (bias + sum_j value_j * dictionary[index_j]); bias may be null.
Status sparse_decode(const CodeView& code, const Matrix& dictionary, const float* bias,
                     const StatsView& stats, float* out, const Execution& execution);

struct SparseDecodeGrads {  // written; null: not wanted
  float *values, *dictionary, *bias, *mean, *std;
};

Status sparse_decode_backward(const CodeView& code, const Matrix& dictionary, const float* bias,
                              const StatsView& stats, const Matrix& grad,
                              const SparseDecodeGrads& grads, const Execution& execution);

// The code after its row's knobs: scale, then mix, then add. out.k = code.k + m, m the largest
// number of distinct latents that a row turns. Zeros and NaN become padding.
Status steer(const CodeView& code, const KnobsView& knobs, const CodeOut& out,
             const Execution& execution);

// reconstruct: mean + std * (z' @ dictionary + bias); residual: embedding + std * ((z' - z) @
// dictionary), where a row without knobs is its embedding, bit for bit. bias may be null.
Status steer_decode(const Matrix& embedding, const CodeView& code, const KnobsView& knobs,
                    const Matrix& dictionary, const float* bias, const StatsView& stats,
                    DecodeMode mode, float* out, const Execution& execution);

// The out.k best of embedding @ items.T + bias, without each row's seen items (null: none) and
// items whose allowed byte is 0 (null: all allowed). NaN and -inf are never returned.
Status recommend(const Matrix& embedding, const Matrix& items, const float* bias,
                 const RowsView* seen, const uint8_t* allowed, const CodeOut& out,
                 const Execution& execution);

// Whether the instruction set is both compiled in and present on this machine.
bool supports(Isa isa);
const char* name_of(Isa isa);

}  // namespace cpu
}  // namespace cfsae
