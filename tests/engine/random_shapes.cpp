// Every op of api.h on random shapes, instruction sets and thread counts, against plain loops in
// double precision. Built with sanitizers: exact-size heap buffers turn an overrun into a report.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "drawing.h"

void check_folded();  // random_folded.cpp

namespace {

std::vector<uint8_t> screen_memory;

Matrix screened(Matrix matrix, const Execution& how) {  // half the time
  if (pick(0, 1) == 0) return matrix;
  screen_memory.assign(cfsae::cpu::screen_bytes(matrix.n_rows, matrix.dim), 0);
  screen_memory.shrink_to_fit();
  cfsae::cpu::make_screen(matrix, screen_memory.data(), how);
  matrix.screen = screen_memory.data();
  return matrix;
}

void check_encode_rows() {
  const int64_t n = pick(0, 40), items = pick(1, 30), dim = pick(1, 80);
  const Csr rows(n, items);
  const Floats weight = floats(items * dim), bias = floats(dim), grad = floats(n * dim);
  const Execution how = any_execution();
  Floats out(n * dim), to_weight(items * dim), to_bias(dim), to_values(rows.items.size());
  cfsae::cpu::encode_rows(rows.view(), {weight.data(), items, dim}, bias.data(), out.data(), how);
  cfsae::cpu::encode_rows_backward(rows.view(), {weight.data(), items, dim}, {grad.data(), n, dim},
                                   to_weight.data(), to_bias.data(), to_values.data(), how);
  std::vector<double> want(n * dim), want_weight(items * dim), want_values(rows.items.size());
  for (int64_t b = 0; b < n; ++b) {
    for (int64_t c = 0; c < dim; ++c) want[b * dim + c] = bias[c];
    for (int64_t j = rows.offsets[b]; j < rows.offsets[b + 1]; ++j) {
      want_values[j] = dot(&grad[b * dim], &weight[rows.items[j] * dim], dim);
      for (int64_t c = 0; c < dim; ++c) {
        want[b * dim + c] += double{rows.values[j]} * weight[rows.items[j] * dim + c];
        want_weight[rows.items[j] * dim + c] += double{rows.values[j]} * grad[b * dim + c];
      }
    }
  }
  expect_equal(out, want, "encode_rows");
  expect_equal(to_weight, want_weight, "encode_rows_backward: weight");
  expect_equal(to_values, want_values, "encode_rows_backward: values");
}

// The best k of scores above floor: value descending, index ascending.
void expect_top(const std::vector<double>& scores, double floor, const int32_t* ids,
                const float* values, int64_t k, const char* what) {
  Ints order;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (scores[i] > floor) order.push_back(static_cast<int32_t>(i));
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  for (int64_t j = 0; j < k; ++j) {
    const bool filled = j < static_cast<int64_t>(order.size());
    expect(ids[j] == (filled ? order[j] : cfsae::kPadding), what);
    if (filled) expect(values[j] == scores[order[j]], what);
  }
}

void check_topk_encode() {
  const int64_t n = pick(0, 70), latents = pick(1, 300), dim = pick(1, 40), k = pick(1, latents);
  const Floats x = floats(n * dim), encoder = floats(latents * dim), bias = floats(latents),
               centre = floats(dim);
  const Execution how = any_execution();
  Ints indices(n * k);
  Floats values(n * k), mean(n), std(n);
  cfsae::cpu::topk_encode({x.data(), n, dim}, screened({encoder.data(), latents, dim}, how),
                          bias.data(), centre.data(), {n, k, indices.data(), values.data()},
                          nullptr, nullptr, how);
  for (int64_t b = 0; b < n; ++b) {
    std::vector<double> scores;
    for (int64_t l = 0; l < latents; ++l) {
      scores.push_back(bias[l] + dot(&x[b * dim], &encoder[l * dim], dim) -
                       dot(centre.data(), &encoder[l * dim], dim));
    }
    expect_top(scores, 0.0, &indices[b * k], &values[b * k], k, "topk_encode");
  }
  cfsae::cpu::topk_encode({x.data(), n, dim}, {encoder.data(), latents, dim}, bias.data(),
                          centre.data(), {n, k, indices.data(), values.data()}, mean.data(),
                          std.data(), how);
  Floats to_x(n * dim), to_encoder(latents * dim), to_bias(latents), to_centre(dim);
  const cfsae::cpu::TopkEncodeGrads grads{values.data(),   mean.data(),       std.data(),
                                          to_x.data(),     to_encoder.data(), to_bias.data(),
                                          to_centre.data()};
  cfsae::cpu::topk_encode_backward({x.data(), n, dim}, {encoder.data(), latents, dim},
                                   centre.data(), {n, k, indices.data(), values.data()},
                                   {mean.data(), std.data()}, grads, how);
  std::vector<double> want_bias(latents);
  for (int64_t j = 0; j < n * k; ++j) {
    if (indices[j] != cfsae::kPadding) want_bias[indices[j]] += values[j];
  }
  for (int64_t l = 0; l < latents; ++l) {
    expect(std::abs(to_bias[l] - want_bias[l]) < 1e-2 * (1 + want_bias[l]), "topk_encode_backward");
  }
}

void check_linear() {
  const int64_t n = pick(0, 70), rows = pick(1, 90), dim = pick(1, 80);
  const Floats x = floats(n * dim), weight = floats(rows * dim), bias = floats(rows);
  Floats out(n * rows);
  cfsae::cpu::linear({x.data(), n, dim}, {weight.data(), rows, dim}, bias.data(), out.data(),
                     any_execution());
  std::vector<double> want(n * rows);
  for (int64_t b = 0; b < n; ++b) {
    for (int64_t r = 0; r < rows; ++r) {
      want[b * rows + r] = bias[r] + dot(&x[b * dim], &weight[r * dim], dim);
    }
  }
  expect_equal(out, want, "linear");
}

void check_recommend() {
  const int64_t n = pick(0, 60), items = pick(1, 400), dim = pick(1, 40), k = pick(1, items + 5);
  const Csr seen(n, items);
  const Floats x = floats(n * dim), table = floats(items * dim), bias = floats(items);
  std::vector<uint8_t> allowed(items);
  for (uint8_t& byte : allowed) byte = static_cast<uint8_t>(pick(0, 4) > 0);
  Ints ids(n * k);
  Floats scores(n * k);
  const cfsae::RowsView seen_view = seen.view();
  cfsae::cpu::recommend({x.data(), n, dim}, {table.data(), items, dim}, bias.data(), &seen_view,
                        allowed.data(), {n, k, ids.data(), scores.data()}, any_execution());
  for (int64_t b = 0; b < n; ++b) {
    std::vector<double> want;
    for (int64_t i = 0; i < items; ++i) {
      want.push_back(allowed[i] ? bias[i] + dot(&x[b * dim], &table[i * dim], dim) : -INFINITY);
    }
    for (int64_t j = seen.offsets[b]; j < seen.offsets[b + 1]; ++j) want[seen.items[j]] = -INFINITY;
    expect_top(want, -INFINITY, &ids[b * k], &scores[b * k], k, "recommend");
  }
}

void check_decode_and_steer() {
  const int64_t n = pick(0, 40), k = pick(0, 9), latents = pick(9, 40), dim = pick(1, 80);
  Ints indices(n * k);
  for (int32_t& index : indices) index = static_cast<int32_t>(pick(-1, latents - 1));
  const Floats values = floats(n * k), dictionary = floats(latents * dim), bias = floats(dim),
               x = floats(n * dim), std = floats(n), mean = floats(n);
  const cfsae::CodeView code{n, k, indices.data(), values.data()};
  const Matrix atoms{dictionary.data(), latents, dim};
  const Execution how = any_execution();
  Floats out(n * dim);
  cfsae::cpu::sparse_decode(code, atoms, bias.data(), {mean.data(), std.data()}, out.data(), how);
  std::vector<double> want(n * dim);
  for (int64_t b = 0; b < n; ++b) {
    for (int64_t c = 0; c < dim; ++c) {
      double sum = bias[c];
      for (int64_t j = b * k; j < (b + 1) * k; ++j) {
        if (indices[j] >= 0) sum += double{values[j]} * dictionary[indices[j] * dim + c];
      }
      want[b * dim + c] = mean[b] + std[b] * sum;
    }
  }
  expect_equal(out, want, "sparse_decode");

  Floats to_values(n * k), to_dictionary(latents * dim), to_bias(dim), to_mean(n), to_std(n);
  cfsae::cpu::sparse_decode_backward(
      code, atoms, bias.data(), {mean.data(), std.data()}, {x.data(), n, dim},
      {to_values.data(), to_dictionary.data(), to_bias.data(), to_mean.data(), to_std.data()}, how);
  const std::vector<int64_t> offsets(n + 1, 0);
  const cfsae::KnobsView none{n, offsets.data(), nullptr, nullptr, nullptr};
  cfsae::cpu::steer_decode({x.data(), n, dim}, code, none, atoms, bias.data(), {},
                           cfsae::DecodeMode::kResidual, out.data(), how);
  expect(out == x, "steer_decode: a row without knobs");

  const std::vector<int64_t> shared{0, 2};
  const int32_t turned[] = {static_cast<int32_t>(latents - 1), 0};
  const float weights[] = {0.5f, -1.0f};
  const uint8_t kinds[] = {0, 2};
  const cfsae::KnobsView knobs{1, shared.data(), turned, weights, kinds};
  Ints steered(n * (k + 2));
  Floats steered_values(n * (k + 2)), direct(n * dim);
  cfsae::cpu::steer(code, knobs, {n, k + 2, steered.data(), steered_values.data()}, how);
  cfsae::cpu::sparse_decode({n, k + 2, steered.data(), steered_values.data()}, atoms, bias.data(),
                            {mean.data(), std.data()}, out.data(), how);
  cfsae::cpu::steer_decode({x.data(), n, dim}, code, knobs, atoms, bias.data(),
                           {mean.data(), std.data()}, cfsae::DecodeMode::kReconstruct,
                           direct.data(), how);
  expect_equal(direct, {out.begin(), out.end()}, "steer_decode: steer, then decode");
}

// Scores, shares and factors are small integers, which bf16 holds.
void check_cosine_tile() {
  const int64_t n = pick(0, 5), width = pick(0, 40), n_items = width + pick(1, 9);
  const int64_t first = pick(0, n_items - width);
  const Csr inputs(n, n_items), targets(n, n_items);
  const Floats scores = floats(n * width), on_scores = floats(n), on_targets = floats(n);
  std::vector<double> y(scores.begin(), scores.end());
  std::vector<double> squares(n, 0.0), dots(n, 0.0), slopes(n * width, 0.0);
  const auto each = [&](const Csr& of, int64_t b, const auto& body) {
    for (int64_t j = of.offsets[b]; j < of.offsets[b + 1]; ++j) {
      const int64_t c = of.items[j] - first;
      if (c >= 0 && c < width) body(j, b * width + c);
    }
  };
  for (int64_t b = 0; b < n; ++b) {
    each(inputs, b, [&](int64_t j, int64_t at) { y[at] -= inputs.values[j]; });
    for (int64_t at = b * width; at < (b + 1) * width; ++at) {
      y[at] = std::max(y[at], 0.0);
      squares[b] += y[at] * y[at];
      slopes[at] = on_scores[b] * y[at];
    }
    each(targets, b, [&](int64_t j, int64_t at) {
      dots[b] += y[at] * targets.values[j];
      if (y[at] > 0) slopes[at] += on_targets[b] * targets.values[j];
    });
  }
  std::vector<double> to_inputs(inputs.items.size(), 0.0);
  for (int64_t b = 0; b < n; ++b) {
    each(inputs, b, [&](int64_t j, int64_t at) { to_inputs[j] = -slopes[at]; });
  }
  Floats tile = scores, got_squares(n, 0.0f), got_dots(n, 0.0f);
  Floats got_inputs(inputs.items.size(), 0.0f);
  const Execution how = any_execution();
  const cfsae::cpu::ScoreTile view{tile.data(), false, n, width, first};
  cfsae::cpu::cosine_tile(inputs.view(), targets.view(), view, got_squares.data(), got_dots.data(),
                          how);
  expect_equal(tile, y, "cosine_tile");
  expect_equal(got_squares, squares, "cosine_tile squares");
  expect_equal(got_dots, dots, "cosine_tile dots");
  cfsae::cpu::cosine_tile_backward(inputs.view(), targets.view(), view, on_scores.data(),
                                   on_targets.data(), got_inputs.data(), how);
  expect_equal(tile, slopes, "cosine_tile_backward");
  expect_equal(got_inputs, to_inputs, "cosine_tile_backward inputs");
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 100;
  generator.seed(argc > 2 ? static_cast<unsigned>(std::atoi(argv[2])) : 1u);
  for (int round = 0; round < rounds; ++round) {
    check_encode_rows();
    check_topk_encode();
    check_linear();
    check_recommend();
    check_decode_and_steer();
    check_folded();
    check_cosine_tile();
  }
  std::printf("%d rounds passed\n", rounds);
  return 0;
}
