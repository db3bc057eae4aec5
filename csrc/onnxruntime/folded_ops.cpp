// The nodes of a folded graph: the engine's tables of products, checked as every other input is.
#include <algorithm>

#include "onnxruntime/knobs.h"
#include "onnxruntime/ops.h"

namespace cfsae::ort {
FoldedInputs::FoldedInputs(const Context& context, size_t first, int64_t n_rows, int64_t dim)
    : products{context.int8s(first, "table", {n_rows, dim}).data,
               context.floats(first + 1, "scales", {n_rows}).data,
               context.floats(first + 2, "errors", {n_rows}).data, n_rows, dim},
      sums(context.floats(first + 3, "sums", {dim}).data),
      shifts(context.floats(first + 4, "shifts", {dim}).data),
      norms(context.floats(first + 5, "norms", {4}).data) {}

void Steer::run(const Context& context) const {
  const Matrix dictionary = context.matrix(7, "dictionary", kAny, kAny);
  const CodeView code = CodeParts(context, 0, kAny, dictionary.n_rows).view;
  const CheckedKnobs knobs(context, 2, code, dictionary.n_rows);
  const int64_t n_rows = code.n_rows, width = code.k + knobs.most_latents();
  const CodeOut out{n_rows, width, context.int32_out(0, {n_rows, width}),
                    context.float_out(1, {n_rows, width})};
  raise_unless_ok(cpu::steer(code, knobs.view(), out, execution()));
}

void SparseDecode::run(const Context& context) const {
  const Matrix dictionary = context.matrix(4, "dictionary", kAny, kAny);
  const CodeView code = CodeParts(context, 0, kAny, dictionary.n_rows).view;
  const StatsView stats{context.floats(2, "mean", {code.n_rows}).data,
                        context.floats(3, "std", {code.n_rows}).data};
  const float* const bias = context.floats(5, "bias", {dictionary.dim}).data;
  float* const out = context.float_out(0, {code.n_rows, dictionary.dim});
  raise_unless_ok(cpu::sparse_decode(code, dictionary, bias, stats, out, execution()));
}

void FoldedTopkEncode::run(const Context& context) const {
  const Matrix embedding = context.matrix(2, "embedding", kAny, kAny);
  const Matrix encoder = screen.with(context.matrix(3, "encoder", kAny, embedding.dim));
  const float* const bias = context.floats(4, "bias", {encoder.n_rows}).data;
  const float* const centre = context.floats(5, "centre", {embedding.dim}).data;
  const int64_t n_items = context.int8s(6, "table", {kAny, encoder.n_rows}).shape[0];
  const FoldedInputs table(context, 6, n_items, encoder.n_rows);
  const RowSets sets("items", context.int64s(0, "items", {kAny}),
                     context.int64s(1, "offsets", {embedding.n_rows + 1}), n_items);
  check_k(k, encoder.n_rows);
  const int64_t n_rows = embedding.n_rows;
  const CodeOut code{n_rows, k, context.int32_out(0, {n_rows, k}),
                     context.float_out(1, {n_rows, k})};
  float* const mean = context.float_out(2, {n_rows});
  float* const std = context.float_out(3, {n_rows});
  std::fill_n(mean, n_rows, 0.0f);
  std::fill_n(std, n_rows, 1.0f);
  raise_unless_ok(cpu::folded_topk_encode(sets.view(), table.encoder(), embedding, encoder, bias,
                                          centre, code, standardize ? mean : nullptr,
                                          standardize ? std : nullptr, execution()));
  keep_above(code, threshold);
}

void FoldedRecommend::run(const Context& context) const {
  const Matrix embedding = context.matrix(0, "embedding", kAny, kAny);
  const Matrix items = context.matrix(1, "items", kAny, embedding.dim);
  const float* const bias = context.floats(2, "bias", {items.n_rows}).data;
  const Asked asked(context, 3, embedding.n_rows, items.n_rows);
  const int64_t n_latents = context.int8s(11, "table", {kAny, items.n_rows}).shape[0];
  const FoldedInputs table(context, 11, n_latents, items.n_rows);
  const CodeView code = CodeParts(context, 7, embedding.n_rows, n_latents).view;
  const StatsView stats{context.floats(9, "mean", {embedding.n_rows}).data,
                        context.floats(10, "std", {embedding.n_rows}).data};
  Answer answer(context, embedding.n_rows, asked.n);
  const RowsView seen = asked.seen.view();
  raise_unless_ok(cpu::folded_recommend(code, stats, table.decoder(), embedding, items, bias, &seen,
                                        asked.allowed(), answer.out(), execution()));
  answer.write();
}

}  // namespace cfsae::ort
