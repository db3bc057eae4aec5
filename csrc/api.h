// The whole engine on one page: views, words and every op. No Python, no torch, no ONNX.
// An op borrows raw memory, allocates no result, keeps no state and returns a Status; it trusts
// its arguments, which the doors (python/, onnxruntime/) have checked. Results do not depend on
// the thread count. Letters: B batch, I items, d dimension, L latents, k active, N recommended.
#pragma once

#include <cstdint>

namespace cfsae {

inline constexpr int32_t kPadding = -1;  // index of an empty slot; its value is 0 (-inf: scores)
inline constexpr float kStdEpsilon = 1e-7f;  // added to the standard deviation of a row

enum class Status { kOk, kOutOfMemory, kTooLarge, kLaunchFailed };  // the last two: cuda only
enum class Isa { kBest, kBaseline, kAvx2, kAvx512, kAvx512Vnni };
enum class KnobKind : uint8_t { kMix = 0, kScale = 1, kAdd = 2 };
enum class DecodeMode { kResidual, kReconstruct };

struct Execution {
  int threads = 1;
  Isa isa = Isa::kBest;
};

struct Matrix {  // row-major, contiguous
  const float* data;
  int64_t n_rows, dim;
  const uint8_t* screen = nullptr;  // what cpu::make_screen made of it, or null
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

// grad_weight (n_items, d) += what encode_rows_backward would make of it; only the rows of items
// that occur are touched.
Status add_item_grads(const RowsView& rows, const Matrix& grad, int64_t n_items, float* grad_weight,
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

// out (B, n) = x @ weight.T + bias: a layer, weight (n, dim). A row's result is the same in every
// batch.
Status linear(const Matrix& x, const Matrix& weight, const float* bias, float* out,
              const Execution& execution);

// A matrix (n_rows, dim) once more, in 8 bits: topk_encode and recommend take it, as
// Matrix::screen, to exclude rows quickly. What is left is decided in fp32; the answer is that of a
// few queries without it, bit for bit. has_screens: whether this machine has the instructions to
// gain by it.
int64_t screen_bytes(int64_t n_rows, int64_t dim);
Status make_screen(const Matrix& matrix, uint8_t* screen, const Execution& execution);
bool has_screens();

// A product of two matrices as int8 rows: row r is about scales[r] * values[r], and no entry of it
// is further off than errors[r]. It only excludes: what it cannot exclude is rescored in fp32.
struct FoldedTable {
  const int8_t* values;  // (n_rows, dim)
  const float *scales, *errors;
  int64_t n_rows, dim;
};

struct FoldedEncoder {
  FoldedTable products;                   // (I, L): item_weight @ encoder.T
  const float *sums, *offsets;            // (L): the encoder's row sums; bias - encoder @ centre
  double item_norm, latent_norm, offset;  // longest rows of item_weight, encoder; largest |bias|
};

struct FoldedDecoder {
  FoldedTable products;        // (L, I): dictionary @ items.T
  const float *sums, *shifts;  // (I): the items' row sums; items @ (the SAE's bias)
  double atom_norm, item_norm, bias_norm, offset;  // ... largest |item bias|
};

// topk_encode of embedding, which is rows @ item_weight, bit for bit as it answers for one row. A
// row without items, and one that the tables exclude too little for, goes the dense way.
Status folded_topk_encode(const RowsView& rows, const FoldedEncoder& folded,
                          const Matrix& embedding, const Matrix& encoder, const float* bias,
                          const float* centre, const CodeOut& code, float* mean, float* std,
                          const Execution& execution);

// recommend of embedding, which is mean + std * (code @ dictionary + SAE bias), in the same way.
Status folded_recommend(const CodeView& code, const StatsView& stats, const FoldedDecoder& folded,
                        const Matrix& embedding, const Matrix& items, const float* bias,
                        const RowsView* seen, const uint8_t* allowed, const CodeOut& out,
                        const Execution& execution);

// out (B, I) = code @ products: what a live profile keeps of its code.
Status folded_scores(const CodeView& code, const FoldedTable& products, float* out,
                     const Execution& execution);

struct FoldedModel {  // of which both ends are folded
  Matrix item_weight;
  FoldedEncoder encode_side;
  Matrix encoder;
  const float* encoder_bias;
  Matrix dictionary;
  const float* bias;  // the SAE's, which is the encoder's centre too
  FoldedDecoder decode_side;
  Matrix items;
  const float* item_bias;  // null: 0
  const float* cold;       // (d): stands in for the embedding of a row without items
  int64_t k;
  bool standardize;
  float threshold;  // what does not exceed it leaves the code; -inf: nothing
};

// encode_rows, folded_topk_encode, steer and steer_decode to reconstruct (knobs null:
// sparse_decode) and folded_recommend, bit for bit, in one pass over the rows.
Status folded_answer(const FoldedModel& model, const RowsView& rows, const KnobsView* knobs,
                     bool exclude_seen, const uint8_t* allowed, const CodeOut& out,
                     const Execution& execution);

struct LiveScores {    // of one user, before any knob
  const float* code;   // (I): folded_scores of the code
  const float* dense;  // (I): embedding @ items.T + item bias; residual mode only
};

// steer_decode and recommend for one live user: reads the table's rows of turned latents only.
Status folded_turn(const LiveScores& live, const Matrix& embedding, const CodeView& code,
                   const StatsView& stats, const KnobsView& knobs, const Matrix& dictionary,
                   const float* bias, DecodeMode mode, const FoldedDecoder& folded,
                   const Matrix& items, const float* item_bias, const RowsView* seen,
                   const uint8_t* allowed, const CodeOut& out, const Execution& execution);

// Training on a CPU alone: elsewhere torch's own ops do this (models/cosine_head.py, unit_rows.py),
// and they are what these are tested against.

// grad (n_rows, dim) loses each row's part along the row of `rows` (of length 1), in place.
Status tangent_rows(const Matrix& rows, float* grad, const Execution& execution);

// Element (r, c) is data[r * row_step + c * column_step]; one of the steps is 1.
struct StridedMatrix {
  const float* data;
  int64_t n_rows, n_columns, row_step, column_step;
};

// out (left.n_rows, right.n_columns) = left @ right, or += where add is set. Every 256 terms of a
// sum each row of left and column of right is rounded to whole numbers of 16 bits (its length to
// 46,300 of them), which are multiplied and added exactly; the blocks' sums are added in fp32.
Status int16_product(const StridedMatrix& left, const StridedMatrix& right, bool add, float* out,
                     const Execution& execution);

// Scores (n_rows, width) of items first_item .. first_item + width - 1, in training: fp32 or bf16.
struct ScoreTile {
  void* scores;
  bool bf16;
  int64_t n_rows, width, first_item;
};

// y = relu(scores - inputs), in place; adds sum y^2 to squares (B) and y . targets to dots (B).
Status cosine_tile(const RowsView& inputs, const RowsView& targets, const ScoreTile& tile,
                   float* squares, float* dots, const Execution& execution);

// y becomes on_scores[b] * y + (y > 0) * on_targets[b] * target, in place; grad_inputs (nnz) gets
// minus that at the tile's entries.
Status cosine_tile_backward(const RowsView& inputs, const RowsView& targets, const ScoreTile& tile,
                            const float* on_scores, const float* on_targets, float* grad_inputs,
                            const Execution& execution);

// Whether the instruction set is both compiled in and present on this machine.
bool supports(Isa isa);
const char* name_of(Isa isa);

}  // namespace cpu

// The same ops on the device: every pointer inside the views is a device pointer. Nothing waits and
// nothing is allocated: an op queues its kernels on the stream (it can be captured in a graph), and
// those that need scratch take a workspace of as many bytes as <op>_bytes says, aligned to 256. An
// id that is out of range, which nobody could report without waiting, counts as padding.
namespace cuda {

struct Execution {
  void* stream = nullptr;  // a cudaStream_t
  void* workspace = nullptr;
};

// Makes a device the calling thread's current one; the one before comes back when the guard goes.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;
  bool is_set() const { return is_set_; }

 private:
  int before_ = 0, device_;
  bool is_set_ = false;
};

// What this thread's last failed launch, or guard, said.
const char* failure();

// Of the products of topk_encode and recommend. kExact: tensor cores find candidates, which are
// rescored in fp32; a bound proves that none is missing, or the row is scanned again in fp32.
enum class Precision { kFp32, kExact, kTf32, kBf16 };

Status encode_rows(const RowsView& rows, const Matrix& weight, const float* bias, float* out,
                   const Execution& execution);

// n_entries: the length of rows.items, of which the offsets may leave some out.
int64_t encode_rows_backward_bytes(int64_t n_entries, int64_t n_items);
Status encode_rows_backward(const RowsView& rows, int64_t n_entries, const Matrix& weight,
                            const Matrix& grad, float* grad_weight, float* grad_bias,
                            float* grad_values, const Execution& execution);

int64_t topk_encode_bytes(int64_t n_rows, int64_t dim, int64_t n_latents, int64_t k,
                          Precision precision);
Status topk_encode(const Matrix& embedding, const Matrix& encoder, const float* bias,
                   const float* centre, const CodeOut& code, float* mean, float* std,
                   Precision precision, const Execution& execution);

using TopkEncodeGrads = cpu::TopkEncodeGrads;
int64_t topk_encode_backward_bytes(int64_t n_rows, int64_t dim, int64_t n_latents, int64_t k);
Status topk_encode_backward(const Matrix& embedding, const Matrix& encoder, const float* centre,
                            const CodeView& code, const StatsView& stats,
                            const TopkEncodeGrads& grads, const Execution& execution);

Status sparse_decode(const CodeView& code, const Matrix& dictionary, const float* bias,
                     const StatsView& stats, float* out, const Execution& execution);

using SparseDecodeGrads = cpu::SparseDecodeGrads;
int64_t sparse_decode_backward_bytes(int64_t n_rows, int64_t k, int64_t n_latents);
Status sparse_decode_backward(const CodeView& code, const Matrix& dictionary, const float* bias,
                              const StatsView& stats, const Matrix& grad,
                              const SparseDecodeGrads& grads, const Execution& execution);

// most_knobs: the largest number of knobs of a row. k + most_knobs is at most 2048.
Status steer(const CodeView& code, const KnobsView& knobs, int64_t most_knobs, const CodeOut& out,
             const Execution& execution);
Status steer_decode(const Matrix& embedding, const CodeView& code, const KnobsView& knobs,
                    int64_t most_knobs, const Matrix& dictionary, const float* bias,
                    const StatsView& stats, DecodeMode mode, float* out,
                    const Execution& execution);

int64_t recommend_bytes(int64_t n_rows, int64_t dim, int64_t n_items, int64_t n,
                        Precision precision);
Status recommend(const Matrix& embedding, const Matrix& items, const float* bias,
                 const RowsView* seen, const uint8_t* allowed, const CodeOut& out,
                 Precision precision, const Execution& execution);

using FoldedTable = cpu::FoldedTable;
using FoldedEncoder = cpu::FoldedEncoder;
using FoldedDecoder = cpu::FoldedDecoder;

// topk_encode and recommend as kFp32 answers, bit for bit, by tables of products. A row that they
// exclude too little for is scanned the dense way.
int64_t folded_topk_encode_bytes(int64_t n_rows, int64_t dim, int64_t n_latents, int64_t k);
Status folded_topk_encode(const RowsView& rows, const FoldedEncoder& folded,
                          const Matrix& embedding, const Matrix& encoder, const float* bias,
                          const float* centre, const CodeOut& code, float* mean, float* std,
                          const Execution& execution);

int64_t folded_recommend_bytes(int64_t n_rows, int64_t n_items, int64_t n);
Status folded_recommend(const CodeView& code, const StatsView& stats, const FoldedDecoder& folded,
                        const Matrix& embedding, const Matrix& items, const float* bias,
                        const RowsView* seen, const uint8_t* allowed, const CodeOut& out,
                        const Execution& execution);

// out (B, I) = code @ products.
Status folded_scores(const CodeView& code, const FoldedTable& products, float* out,
                     const Execution& execution);

// Memory and copies in stream order, for the door of ONNX Runtime, whose arena does not know what
// still runs on a stream. copy_in lets go of pageable `from` at once; copy_out waits for the
// stream.
Status allocate(int64_t bytes, void** memory, const Execution& execution);
Status release(void* memory, const Execution& execution);
Status copy_in(void* to, const void* from, int64_t bytes, const Execution& execution);
Status copy_out(void* to, const void* from, int64_t bytes, const Execution& execution);

// Values that do not exceed the threshold become padding, in place.
Status keep_above(const CodeOut& code, float threshold, const Execution& execution);
Status widen(const int32_t* ids, int64_t n, int64_t* out, const Execution& execution);

struct Adam {  // step counts from 1; weight_decay is decoupled
  float lr, beta1, beta2, epsilon, weight_decay;
  int64_t step;
};

// One step of AdamW over n parameters in one pass; parameters and both moments are updated.
Status adam(const Adam& adam, int64_t n, const float* grad, float* parameters, float* first,
            float* second, const Execution& execution);

}  // namespace cuda
}  // namespace cfsae
