// Each node: check what came, call the engine, write what it answers.
#include "onnxruntime/ops.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "onnxruntime/knobs.h"

namespace cfsae::ort {
namespace {

// What an answer may take: of one row, and of all together (3 GiB). export/functions.py has both
// too.
constexpr int64_t kMostRecommended = 1 << 24, kMostAnswered = 1 << 28;

// row = row / sqrt(count) + bias, as the norm of `count` ones is sqrt(count)
void normalize_row(float* row, int64_t dim, int64_t count, const float* bias) {
  const float norm = count > 0 ? std::sqrt(static_cast<float>(count)) : 1.0f;
  for (int64_t c = 0; c < dim; ++c) row[c] = row[c] / norm + bias[c];
}

}  // namespace

CodeParts::CodeParts(const Context& context, size_t first, int64_t n_rows, int64_t n_latents)
    : view{} {
  const Span<int32_t> indices = context.int32s(first, "indices", {n_rows, kAny});
  for (int64_t j = 0; j < indices.size(); ++j) {
    if (indices.data[j] < kPadding || indices.data[j] >= n_latents) {
      throw BadInput("indices must lie in [-1, " + std::to_string(n_latents) + "), got " +
                     std::to_string(indices.data[j]));
    }
  }
  const int64_t k = indices.shape[1];
  view = {indices.shape[0], k, indices.data,
          context.floats(first + 1, "values", {indices.shape[0], k}).data};
}

void check_k(int64_t k, int64_t n_latents) {
  if (k >= 1 && k <= n_latents) return;
  throw BadInput("k must be in [1, n_latents=" + std::to_string(n_latents) + "], got " +
                 std::to_string(k));
}

void keep_above(const CodeOut& code, float threshold) {
  for (int64_t j = 0; j < code.n_rows * code.k; ++j) {
    if (code.values[j] > threshold) continue;
    code.indices[j] = kPadding;
    code.values[j] = 0.0f;
  }
}

Asked::Asked(const Context& context, size_t first, int64_t n_rows, int64_t n_items)
    : seen("seen items", context.int64s(first, "seen items", {kAny}),
           context.int64s(first + 1, "seen offsets", {n_rows + 1}), n_items),
      n(0) {
  const std::vector<int32_t> deny =
      checked_ids("deny", context.int64s(first + 2, "deny", {kAny}), n_items);
  n = context.integer(first + 3, "n");
  if (n < 1 || n > kMostRecommended) {
    throw BadInput("n must lie in [1, " + std::to_string(kMostRecommended) + "], got " +
                   std::to_string(n));
  }
  if (n > kMostAnswered / std::max<int64_t>(n_rows, 1)) {
    throw BadInput("n must lie in [1, " + std::to_string(kMostAnswered / n_rows) + "] for " +
                   std::to_string(n_rows) + " rows, got " + std::to_string(n));
  }
  allowed_items.assign(deny.empty() ? 0 : static_cast<size_t>(n_items), 1);
  for (const int32_t item : deny) allowed_items[static_cast<size_t>(item)] = 0;
}

Answer::Answer(const Context& context, int64_t n_rows, int64_t n)
    : n_rows_(n_rows),
      n_(n),
      ids_(context.int64_out(0, {n_rows, n})),
      scores_(context.float_out(1, {n_rows, n})),
      found_(static_cast<size_t>(n_rows * n)) {}

void Answer::write() const { std::copy(found_.begin(), found_.end(), ids_); }

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
  const Matrix encoder = screen.with(context.matrix(1, "encoder", kAny, embedding.dim));
  const float* const bias = context.floats(2, "bias", {encoder.n_rows}).data;
  const float* const centre = context.floats(3, "centre", {embedding.dim}).data;
  check_k(k, encoder.n_rows);
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
  keep_above(code, threshold);
}

void SteerDecode::run(const Context& context) const {
  const Matrix dictionary = context.matrix(10, "dictionary", kAny, kAny);
  const Matrix embedding = context.matrix(0, "embedding", kAny, dictionary.dim);
  const int64_t n_rows = embedding.n_rows;
  const CodeView code = CodeParts(context, 1, n_rows, dictionary.n_rows).view;
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
  const Matrix items = screen.with(context.matrix(1, "items", kAny, embedding.dim));
  const float* const bias = context.floats(2, "bias", {items.n_rows}).data;
  const Asked asked(context, 3, embedding.n_rows, items.n_rows);
  Answer answer(context, embedding.n_rows, asked.n);
  const RowsView seen = asked.seen.view();
  raise_unless_ok(
      cpu::recommend(embedding, items, bias, &seen, asked.allowed(), answer.out(), execution()));
  answer.write();
}

}  // namespace cfsae::ort
