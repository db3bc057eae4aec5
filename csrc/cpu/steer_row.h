// The steering algebra of one row, the engine's only copy: scale, then mix, then add.
#pragma once

#include <cstdint>
#include <vector>

#include "api.h"

namespace cfsae::cpu {

struct Slot {
  int32_t latent;
  double before, after;
};

inline bool has_knobs(const KnobsView& knobs, int64_t b) {
  const int64_t row = knobs.n_rows == 1 ? 0 : b;
  return knobs.offsets[row + 1] > knobs.offsets[row];
}

// Fills slots with every latent that row b of the code holds or its knobs turn, by rising latent.
void steer_row(const CodeView& code, const KnobsView& knobs, int64_t b, std::vector<Slot>& slots);

}  // namespace cfsae::cpu
