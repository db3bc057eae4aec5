// Each node: check what came, call the engine, write what it answers.
#include "onnxruntime/ops.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "onnxruntime/knobs.h"

namespace cfsae::ort {
namespace {

constexpr int64_t kMostRecommended = 1 << 24;  // bounds the answer; export/functions.py has it too

void check_code(const Span<int32_t>& indices, int64_t n_latents) {
  for (int64_t j = 0; j < indices.size(); ++j) {
    if (indices.data[j] < kPadding || indices.data[j] >= n_latents) {
      throw BadInput("indices must lie in [-1, " + std::to_string(n_latents) + "), got " +
                     std::to_string(indices.data[j]));
    }
  }
}

// row = row / sqrt(count) + bias, as the norm of `count` ones is sqrt(count)
void normalize_row(float* row, int64_t dim, int64_t count, const float* bias) {
  const float norm = count > 0 ? std::sqrt(static_cast<float>(count)) : 1.0f;
  for (int64_t c = 0; c < dim; ++c) row[c] = row[c] / norm + bias[c];
}

}  // namespace

void EncodeRows::run(const Context& context) const {
  const Matrix weight = context.matrix(2, "weight", kAny, kAny);
  const float* const bias = context.floats(3, "bias", {weight.dim}).data;
  const RowSets sets("items", context.int64s(0, "items", {kAny}),
                     context.int64s(1, "offsets", {kAny}), weight.n_rows);
  const RowsView rows = sets.view();
  float* const out = context.float_out(0, {rows.n_rows, weight.dim});
  raise_unless_ok(cpu::encode_rows(rows, weight, normalize ? nullptr : bias, out, execution()));
  for (int64_t b = 0; normalize && b < rows.n_rows; ++b) {
    normalize_row(out + b * weight.dim, weight.dim, rows.offsets[b + 1] - rows.offsets[b], bias);
  }
}

void TopkEncode::run(const Context& context) const {
  const Matrix embedding = context.matrix(0, "embedding", kAny, kAny);
  const Matrix encoder = context.matrix(1, "encoder", kAny, embedding.dim);
  const float* const bias = context.floats(2, "bias", {encoder.n_rows}).data;
  const float* const centre = context.floats(3, "centre", {embedding.dim}).data;
  if (k < 1 || k > encoder.n_rows) {
    throw BadInput("k must be in [1, n_latents=" + std::to_string(encoder.n_rows) + "], got " +
                   std::to_string(k));
  }
  const int64_t n_rows = embedding.n_rows;
  const CodeOut code{n_rows, k, context.int32_out(0, {n_rows, k}),
                     context.float_out(1, {n_rows, k})};
  float* const mean = context.float_out(2, {n_rows});
  float* const std = context.float_out(3, {n_rows});
  std::fill_n(mean, n_rows, 0.0f);
  std::fill_n(std, n_rows, 1.0f);
  raise_unless_ok(cpu::topk_encode(embedding, encoder, bias, centre, code,
                                   standardize ? mean : nullptr, standardize ? std : nullptr,
                                   execution()));
  for (int64_t j = 0; j < n_rows * k; ++j) {
    if (code.values[j] > threshold) continue;
    code.indices[j] = kPadding;
    code.values[j] = 0.0f;
  }
}

void SteerDecode::run(const Context& context) const {
  const Matrix dictionary = context.matrix(10, "dictionary", kAny, kAny);
  const Matrix embedding = context.matrix(0, "embedding", kAny, dictionary.dim);
  const int64_t n_rows = embedding.n_rows;
  const Span<int32_t> indices = context.int32s(1, "indices", {n_rows, kAny});
  const int64_t k = indices.shape[1];
  check_code(indices, dictionary.n_rows);
  const CodeView code{n_rows, k, indices.data, context.floats(2, "values", {n_rows, k}).data};
  const StatsView stats{context.floats(3, "mean", {n_rows}).data,
                        context.floats(4, "std", {n_rows}).data};
  const CheckedKnobs knobs(context, 5, code, dictionary.n_rows);
  const float* const bias = context.floats(11, "bias", {dictionary.dim}).data;
  float* const out = context.float_out(0, {n_rows, dictionary.dim});
  raise_unless_ok(cpu::steer_decode(embedding, code, knobs.view(), dictionary, bias, stats, mode,
                                    out, execution()));
}

void Recommend::run(const Context& context) const {
  const Matrix embedding = context.matrix(0, "embedding", kAny, kAny);
  const Matrix items = context.matrix(1, "items", kAny, embedding.dim);
  const float* const bias = context.floats(2, "bias", {items.n_rows}).data;
  const RowSets seen("seen items", context.int64s(3, "seen items", {kAny}),
                     context.int64s(4, "seen offsets", {embedding.n_rows + 1}), items.n_rows);
  const RowsView seen_rows = seen.view();
  const std::vector<int32_t> deny =
      checked_ids("deny", context.int64s(5, "deny", {kAny}), items.n_rows);
  const int64_t n = context.integer(6, "n"), n_rows = embedding.n_rows;
  if (n < 1 || n > kMostRecommended) {
    throw BadInput("n must lie in [1, " + std::to_string(kMostRecommended) + "], got " +
                   std::to_string(n));
  }
  std::vector<uint8_t> allowed(deny.empty() ? 0 : static_cast<size_t>(items.n_rows), 1);
  for (const int32_t item : deny) allowed[static_cast<size_t>(item)] = 0;
  int64_t* const ids = context.int64_out(0, {n_rows, n});
  float* const scores = context.float_out(1, {n_rows, n});
  std::vector<int32_t> found(static_cast<size_t>(n_rows * n));
  const CodeOut out{n_rows, n, found.data(), scores};
  raise_unless_ok(cpu::recommend(embedding, items, bias, &seen_rows,
                                 deny.empty() ? nullptr : allowed.data(), out, execution()));
  std::copy(found.begin(), found.end(), ids);
}

}  // namespace cfsae::ort
