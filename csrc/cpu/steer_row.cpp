// Steering in double precision over the few latents concerned: z' differs from z only there.
#include "cpu/steer_row.h"

#include <algorithm>
#include <cmath>

namespace cfsae::cpu {
namespace {

void merge_latents(std::vector<Slot>& slots) {
  const auto by_latent = [](const Slot& a, const Slot& b) { return a.latent < b.latent; };
  std::stable_sort(slots.begin(), slots.end(), by_latent);
  size_t kept = 0;
  for (const Slot& slot : slots) {
    if (kept > 0 && slots[kept - 1].latent == slot.latent) {
      slots[kept - 1].before += slot.before;
    } else {
      slots[kept++] = slot;
    }
  }
  slots.resize(kept);
  for (Slot& slot : slots) slot.after = slot.before;
}

}  // namespace

void steer_row(const CodeView& code, const KnobsView& knobs, int64_t b, std::vector<Slot>& slots) {
  const int64_t row = knobs.n_rows == 1 ? 0 : b;
  const int64_t first = knobs.offsets[row], last = knobs.offsets[row + 1];
  slots.clear();
  for (int64_t j = b * code.k; j < (b + 1) * code.k; ++j) {
    if (code.indices[j] != kPadding && !std::isnan(code.values[j])) {
      slots.push_back({code.indices[j], code.values[j], 0.0});
    }
  }
  for (int64_t j = first; j < last; ++j) slots.push_back({knobs.latents[j], 0.0, 0.0});
  merge_latents(slots);

  const auto turn = [&](KnobKind kind, const auto& act) {
    for (int64_t j = first; j < last; ++j) {
      if (knobs.kinds[j] != static_cast<uint8_t>(kind)) continue;
      const auto at =
          std::lower_bound(slots.begin(), slots.end(), knobs.latents[j],
                           [](const Slot& slot, int32_t latent) { return slot.latent < latent; });
      act(*at, double{knobs.weights[j]});
    }
  };
  turn(KnobKind::kScale, [](Slot& slot, double weight) { slot.after *= weight; });
  double total = 0.0, alpha = 0.0;
  for (const Slot& slot : slots) total += slot.after;
  if (total != 0.0) {  // an empty code has no activation to move
    turn(KnobKind::kMix, [&](Slot&, double weight) { alpha += weight; });
    for (Slot& slot : slots) slot.after *= 1.0 - std::min(1.0, alpha);
    turn(KnobKind::kMix, [&](Slot& slot, double weight) { slot.after += total * weight; });
  }
  turn(KnobKind::kAdd, [](Slot& slot, double weight) { slot.after += weight; });
  for (Slot& slot : slots) slot.after = std::isnan(slot.after) ? 0.0 : slot.after;
}

}  // namespace cfsae::cpu
