// The folded ops beside the dense ones, on random shapes: the same bits.
#include <algorithm>
#include <limits>

#include "drawing.h"

namespace {

struct Product {  // left @ right.T as int8; the products of small integers are exact in float
  std::vector<int8_t> values;
  Floats scales, errors;
  int64_t n_rows, n_columns;

  Product(const Floats& left, const Floats& right, int64_t dim)
      : n_rows(static_cast<int64_t>(left.size()) / dim),
        n_columns(static_cast<int64_t>(right.size()) / dim) {
    for (int64_t r = 0; r < n_rows; ++r) {
      std::vector<double> row;
      double largest = 1e-9, off = 0.0;
      for (int64_t c = 0; c < n_columns; ++c) {
        row.push_back(dot(&left[r * dim], &right[c * dim], dim));
        largest = std::max(largest, std::abs(row.back()));
      }
      scales.push_back(static_cast<float>(largest / 127.0));
      for (const double value : row) {
        values.push_back(static_cast<int8_t>(std::lround(value / scales.back())));
        off = std::max(off, std::abs(value - double{scales.back()} * values.back()));
      }
      errors.push_back(static_cast<float>(1.0001 * off + 1e-6));
    }
  }
  cfsae::cpu::FoldedTable view() const {
    return {values.data(), scales.data(), errors.data(), n_rows, n_columns};
  }
};

}  // namespace

void check_folded() {
  const int64_t n = pick(0, 20), items = pick(1, 300), latents = pick(1, 200), dim = pick(1, 40),
                k = pick(1, latents), top = pick(1, items + 3);
  const Floats table = floats(items * dim), encoder = floats(latents * dim), bias = floats(latents),
               dictionary = floats(latents * dim), zeros(std::max(dim, items));
  const Csr rows(n, items), seen(n, items);
  const Execution how = any_execution();
  const Matrix item_matrix{table.data(), items, dim}, encoder_matrix{encoder.data(), latents, dim};
  Floats x(n * dim), values(n * k), want_values(n * k), mean(n), std(n), moved(n * dim);
  Ints indices(n * k), want(n * k);
  cfsae::cpu::encode_rows(rows.view(), item_matrix, nullptr, x.data(), how);
  std::vector<float> sums(latents), item_sums(items);
  for (int64_t l = 0; l < latents; ++l) {
    for (int64_t c = 0; c < dim; ++c) sums[l] += encoder[l * dim + c];
  }
  for (int64_t i = 0; i < items; ++i) {
    for (int64_t c = 0; c < dim; ++c) item_sums[i] += table[i * dim + c];
  }
  const double longest = 2.0 * std::sqrt(static_cast<double>(dim));
  const Product in(table, encoder, dim), out(dictionary, table, dim);
  cfsae::cpu::folded_topk_encode(
      rows.view(), {in.view(), sums.data(), bias.data(), longest, longest, 2.0}, {x.data(), n, dim},
      encoder_matrix, bias.data(), zeros.data(), {n, k, indices.data(), values.data()}, mean.data(),
      std.data(), how);
  for (int64_t b = 0; b < n; ++b) {  // row by row, as the folded path answers
    cfsae::cpu::topk_encode({&x[b * dim], 1, dim}, encoder_matrix, bias.data(), zeros.data(),
                            {1, k, &want[b * k], &want_values[b * k]}, &mean[b], &std[b], how);
  }
  expect(indices == want && values == want_values, "folded_topk_encode");
  const cfsae::CodeView code{n, k, indices.data(), values.data()};
  const Matrix atoms{dictionary.data(), latents, dim};
  cfsae::cpu::sparse_decode(code, atoms, nullptr, {mean.data(), std.data()}, moved.data(), how);
  const cfsae::cpu::FoldedDecoder decoder{
      out.view(), item_sums.data(), zeros.data(), longest, longest, 0.0, 0.0};
  const cfsae::RowsView seen_view = seen.view();
  Ints ids(n * top), want_ids(n * top);
  Floats scores(n * top), want_scores(n * top);
  cfsae::cpu::folded_recommend(code, {mean.data(), std.data()}, decoder, {moved.data(), n, dim},
                               item_matrix, nullptr, &seen_view, nullptr,
                               {n, top, ids.data(), scores.data()}, how);
  Floats kept(n * items);
  cfsae::cpu::folded_scores(code, out.view(), kept.data(), how);
  for (int64_t b = 0; b < n; ++b) {
    const cfsae::RowsView own{1, seen_view.offsets + b, seen_view.items, nullptr};
    cfsae::cpu::recommend({&moved[b * dim], 1, dim}, item_matrix, nullptr, &own, nullptr,
                          {1, top, &want_ids[b * top], &want_scores[b * top]}, how);
  }
  expect(ids == want_ids && scores == want_scores, "folded_recommend");
  const cfsae::cpu::FoldedModel model{item_matrix,
                                      {in.view(), sums.data(), bias.data(), longest, longest, 2.0},
                                      encoder_matrix,
                                      bias.data(),
                                      atoms,
                                      zeros.data(),
                                      decoder,
                                      item_matrix,
                                      nullptr,
                                      zeros.data(),
                                      k,
                                      true,
                                      -std::numeric_limits<float>::infinity()};
  const cfsae::RowsView rows_view = rows.view();
  cfsae::cpu::folded_answer(model, rows_view, nullptr, true, nullptr,
                            {n, top, ids.data(), scores.data()}, how);
  for (int64_t b = 0; b < n; ++b) {
    const cfsae::RowsView own{1, rows_view.offsets + b, rows_view.items, nullptr};
    cfsae::cpu::recommend({&moved[b * dim], 1, dim}, item_matrix, nullptr, &own, nullptr,
                          {1, top, &want_ids[b * top], &want_scores[b * top]}, how);
  }
  expect(ids == want_ids && scores == want_scores, "folded_answer");
  const int64_t shared[] = {0, 1};
  const int32_t turned = static_cast<int32_t>(pick(0, latents - 1));
  const float weight = 0.5f;
  const uint8_t kind = static_cast<uint8_t>(pick(0, 2));
  const cfsae::KnobsView knobs{1, shared, &turned, &weight, &kind};
  for (int64_t b = 0; b < n; ++b) {
    const cfsae::CodeView one{1, k, &indices[b * k], &values[b * k]};
    cfsae::cpu::steer_decode({&x[b * dim], 1, dim}, one, knobs, atoms, nullptr, {&mean[b], &std[b]},
                             cfsae::DecodeMode::kReconstruct, moved.data(), how);
    cfsae::cpu::recommend({moved.data(), 1, dim}, item_matrix, nullptr, nullptr, nullptr,
                          {1, top, want_ids.data(), want_scores.data()}, how);
    cfsae::cpu::folded_turn({&kept[b * items], nullptr}, {&x[b * dim], 1, dim}, one,
                            {&mean[b], &std[b]}, knobs, atoms, nullptr,
                            cfsae::DecodeMode::kReconstruct, decoder, item_matrix, nullptr, nullptr,
                            nullptr, {1, top, ids.data(), scores.data()}, how);
    expect(std::equal(ids.begin(), ids.begin() + top, want_ids.begin()), "folded_turn");
  }
}
