// A knob turned by a live user. The steered code is c * code + what the turned latents differ by
// it, so the kept scores of the code are scaled and only the turned latents' rows are read.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "api.h"
#include "cpu/folded_screen.h"
#include "cpu/steer_row.h"
#include "folded_bounds.h"

namespace cfsae::cpu {
namespace {

struct Turned {
  double factor = 0.0;        // of the kept scores
  double left = 0.0;          // sum of the weights that were rounded away
  Weighed kept;               // of the code, times factor
  std::vector<int32_t> ids;   // rows to add
  std::vector<float> values;  // their weights
};

bool is_turned(const KnobsView& knobs, int32_t latent) {
  const int32_t* const first = knobs.latents + knobs.offsets[0];
  const int32_t* const last = knobs.latents + knobs.offsets[1];
  return std::find(first, last, latent) != last;
}

double wanted_of(const Slot& slot, bool residual) {
  return static_cast<float>(residual ? slot.after - slot.before : slot.after);
}

Turned split(const std::vector<Slot>& slots, const KnobsView& knobs, const FoldedTable& table,
             bool residual) {
  Turned turned;
  double largest = 0.0;
  for (const Slot& slot : slots) {
    if (std::abs(slot.before) <= largest || is_turned(knobs, slot.latent)) continue;
    largest = std::abs(slot.before);
    turned.factor = static_cast<float>(wanted_of(slot, residual) / slot.before);
  }
  for (const Slot& slot : slots) {
    const double kept = turned.factor * slot.before;
    const double rest = wanted_of(slot, residual) - kept;
    turned.kept.total += std::abs(kept);
    turned.kept.error += std::abs(kept) * table.errors[slot.latent];
    if (std::abs(rest) <= 8.0 * kUnit * (std::abs(kept) + std::abs(slot.before))) {
      turned.left += std::abs(rest);
    } else {
      turned.ids.push_back(slot.latent);
      turned.values.push_back(static_cast<float>(rest));
    }
  }
  return turned;
}

}  // namespace

Status folded_turn(const LiveScores& live, const Matrix& embedding, const CodeView& code,
                   const StatsView& stats, const KnobsView& knobs, const Matrix& dictionary,
                   const float* bias, DecodeMode mode, const FoldedDecoder& folded,
                   const Matrix& items, const float* item_bias, const RowsView* seen,
                   const uint8_t* allowed, const CodeOut& out, const Execution& execution) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  const bool residual = mode == DecodeMode::kResidual;
  const Scratch<float> moved(dictionary.dim);
  const Status decoded =
      steer_decode(embedding, code, knobs, dictionary, bias, stats, mode, moved.data(), execution);
  if (decoded != Status::kOk) return decoded;
  return guarded([&] {
    const float mean = stats.mean == nullptr ? 0.0f : stats.mean[0];
    const float std = stats.std == nullptr ? 1.0f : stats.std[0];
    std::vector<Slot> slots;
    steer_row(code, knobs, 0, slots);
    const Turned turned = split(slots, knobs, folded.products, residual);
    const int64_t n = static_cast<int64_t>(turned.ids.size());
    Weighed weighed = weigh(folded.products, turned.ids.data(), turned.values.data(), n);
    weighed.total += turned.kept.total + turned.left;
    weighed.error += turned.kept.error + turned.left * folded.atom_norm * folded.item_norm;
    // residual: the kept dense scores are dot products of the same size, with the same rounding
    const double length = length_of(moved.data(), items.dim) +
                          (residual ? length_of(embedding.data, items.dim) : 0.0);
    const double bound =
        decode_bound(folded, weighed, code.k + n, items.dim, residual ? 0.0f : mean, std, length);
    const double kept = std * turned.factor;  // 0: what was kept need not even be finite
    const bool in_float = kept == 0.0 || (std::abs(kept) > 1e-30 && std::abs(kept) < 1e30);
    if (bound < kWorthless && in_float) {
      Screen screen(items.n_rows, items.n_rows, execution);
      ScreenSum sum{folded.products,
                    turned.ids.data(),
                    turned.values.data(),
                    n,
                    std,
                    {{folded.sums, mean}, {folded.shifts, std}, {item_bias, 1.0f}}};
      if (residual) {
        sum.terms[0] = {live.dense, 1.0f};
        sum.terms[1] = sum.terms[2] = {};
      }
      if (kept != 0.0) sum.terms[3] = {live.code, static_cast<float>(kept)};
      sum.allowed = allowed;
      if (seen != nullptr) {
        sum.excluded = seen->items + seen->offsets[0];
        sum.n_excluded = seen->offsets[1] - seen->offsets[0];
      }
      const ExactTail tail{items, item_bias, moved.data(), kNothing, kNothing};
      if (screen.top(sum, tail, bound, out.k, out.indices, out.values)) return;
    }
    require(
        recommend({moved.data(), 1, items.dim}, items, item_bias, seen, allowed, out, execution));
  });
}

}  // namespace cfsae::cpu
