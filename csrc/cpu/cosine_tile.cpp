// What ELSA's loss does to a tile of scores between its matrix products, in one pass each way:
// forward takes the own share off, clips at zero and sums; backward turns scores into slopes.
#include <algorithm>
#include <cstring>
#include <vector>

#include "api.h"
#include "cpu/scratch.h"
#include "parallel.h"

namespace cfsae::cpu {
namespace {

constexpr int64_t kRowsPerTask = 16;
constexpr int kLanes = 16;  // partial sums

struct Fp32 {
  using Stored = float;
  static float widen(float x) { return x; }
  static float narrow(float x) { return x; }
};

struct Bf16 {
  using Stored = uint16_t;
  static float widen(uint16_t x) {
    const uint32_t bits = uint32_t{x} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  static uint16_t narrow(float x) {  // to the nearest, ties to even; NaN stays NaN
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return static_cast<uint16_t>(nan ? 0x7fc0u : rounded);
  }
};

// body(j, c) for every entry of row b that lies in the tile: entry j, column c.
template <typename Body>
void for_entries(const RowsView& rows, int64_t b, const ScoreTile& tile, const Body& body) {
  for (int64_t j = rows.offsets[b]; j < rows.offsets[b + 1]; ++j) {
    const int64_t column = rows.items[j] - tile.first_item;
    if (column >= 0 && column < tile.width) body(j, column);
  }
}

float value_of(const RowsView& rows, int64_t j) {
  return rows.values == nullptr ? 1.0f : rows.values[j];
}

template <typename Type>
void clip(typename Type::Stored* y, int64_t width) {
  for (int64_t c = 0; c < width; ++c) {
    const float score = Type::widen(y[c]);
    y[c] = Type::narrow(score < 0.0f ? 0.0f : score);
  }
}

template <typename Type>
float sum_of_squares(const typename Type::Stored* y, int64_t width) {
  float sums[kLanes] = {};
  int64_t c = 0;
  for (; c + kLanes <= width; c += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float score = Type::widen(y[c + lane]);
      sums[lane] += score * score;
    }
  }
  double sum = 0.0;
  for (; c < width; ++c) sum += double{Type::widen(y[c])} * Type::widen(y[c]);
  for (const float partial : sums) sum += partial;
  return static_cast<float>(sum);
}

template <typename Type>
void forward_row(const RowsView& inputs, const RowsView& targets, const ScoreTile& tile, int64_t b,
                 float* square, float* dot) {
  auto* const y = static_cast<typename Type::Stored*>(tile.scores) + b * tile.width;
  for_entries(inputs, b, tile, [&](int64_t j, int64_t c) {
    y[c] = Type::narrow(Type::widen(y[c]) - value_of(inputs, j));
  });
  clip<Type>(y, tile.width);
  *square += sum_of_squares<Type>(y, tile.width);
  double sum = 0.0;
  for_entries(targets, b, tile, [&](int64_t j, int64_t c) {
    sum += double{Type::widen(y[c])} * value_of(targets, j);
  });
  *dot += static_cast<float>(sum);
}

template <typename Type>
void backward_row(const RowsView& inputs, const RowsView& targets, const ScoreTile& tile, int64_t b,
                  float on_scores, float on_target, float* grad_inputs) {
  auto* const y = static_cast<typename Type::Stored*>(tile.scores) + b * tile.width;
  std::vector<std::pair<int64_t, float>> pulls;  // of targets whose score was above zero
  for_entries(targets, b, tile, [&](int64_t j, int64_t c) {
    if (Type::widen(y[c]) > 0.0f) pulls.emplace_back(c, on_target * value_of(targets, j));
  });
  for (int64_t c = 0; c < tile.width; ++c) y[c] = Type::narrow(Type::widen(y[c]) * on_scores);
  for (const auto& [c, pull] : pulls) y[c] = Type::narrow(Type::widen(y[c]) + pull);
  for_entries(inputs, b, tile, [&](int64_t j, int64_t c) { grad_inputs[j] = -Type::widen(y[c]); });
}

template <typename Body>
Status for_each_row(const ScoreTile& tile, const Execution& execution, const Body& body) {
  return guarded([&] {
    const int64_t n_tasks = (tile.n_rows + kRowsPerTask - 1) / kRowsPerTask;
    const int workers = workers_for(2 * tile.n_rows * tile.width, execution.threads);
    parallel_for(n_tasks, workers, [&](int64_t task, int) {
      const int64_t last = std::min(tile.n_rows, (task + 1) * kRowsPerTask);
      for (int64_t b = task * kRowsPerTask; b < last; ++b) body(b);
    });
  });
}

}  // namespace

Status cosine_tile(const RowsView& inputs, const RowsView& targets, const ScoreTile& tile,
                   float* squares, float* dots, const Execution& execution) {
  return for_each_row(tile, execution, [&](int64_t b) {
    (tile.bf16 ? forward_row<Bf16> : forward_row<Fp32>)(inputs, targets, tile, b, squares + b,
                                                        dots + b);
  });
}

Status cosine_tile_backward(const RowsView& inputs, const RowsView& targets, const ScoreTile& tile,
                            const float* on_scores, const float* on_targets, float* grad_inputs,
                            const Execution& execution) {
  return for_each_row(tile, execution, [&](int64_t b) {
    (tile.bf16 ? backward_row<Bf16> : backward_row<Fp32>)(inputs, targets, tile, b, on_scores[b],
                                                          on_targets[b], grad_inputs);
  });
}

}  // namespace cfsae::cpu
