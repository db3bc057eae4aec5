// Turning the knobs of one row inside a block: its latents are sorted and merged in shared memory,
// in double precision as on the CPU; z' differs from z only there.
#pragma once

#include "cuda/ordered.h"
#include "cuda/reduce.h"

namespace cfsae::cuda {

inline constexpr int64_t kMostSlots = 2048;  // k + knobs of a row: 57 KB of shared memory

struct Slots {  // in dynamic shared memory; slot p is a latent where is_first says so
  double *before, *after;
  float* weights;  // free for the op
  Key* keys;       // descending: the complement of (latent, place among code and knobs)
  int n;           // a power of two
};

inline int slots_of(int64_t n) { return next_power_of_two(most<int64_t>(n, 2)); }  // keys align
inline int64_t slots_bytes(int n) { return n * int64_t{2 * sizeof(double) + 4 + sizeof(Key)}; }

__device__ inline Slots slots_in_shared(int n) {
  unsigned char* const memory = dynamic_shared();
  Slots slots;
  slots.n = n;
  slots.before = reinterpret_cast<double*>(memory);
  slots.after = slots.before + n;
  slots.weights = reinterpret_cast<float*>(slots.after + n);
  slots.keys = reinterpret_cast<Key*>(slots.weights + n);
  return slots;
}

__device__ __forceinline__ int32_t latent_of(Key key) { return static_cast<int32_t>(~key >> 32); }
__device__ __forceinline__ int place_of(Key key) { return static_cast<int>(~key & 0xffffffffu); }

__device__ __forceinline__ bool is_first(const Slots& slots, int p) {
  return slots.keys[p] != kNoKey &&
         (p == 0 || latent_of(slots.keys[p]) != latent_of(slots.keys[p - 1]));
}

__device__ inline int64_t knob_row(const KnobsView& knobs, int64_t b) {
  return knobs.n_rows == 1 ? 0 : b;
}

// Code and knobs as sorted keys: ascending latents, the code before the knobs, both in order.
__device__ inline void load_slots(const CodeView& code, const KnobsView& knobs, int64_t b,
                                  const Slots& slots) {
  const int64_t first = knobs.offsets[knob_row(knobs, b)];
  const int64_t n_knobs = knobs.offsets[knob_row(knobs, b) + 1] - first;
  for (int p = threadIdx.x; p < slots.n; p += blockDim.x) {
    int32_t latent = kPadding;
    if (p < code.k) {
      const int64_t j = b * code.k + p;
      latent = isnan(code.values[j]) ? kPadding : code.indices[j];
    } else if (p < code.k + n_knobs) {
      latent = knobs.latents[first + p - code.k];
    }
    const Key key = (Key{static_cast<uint32_t>(latent)} << 32) | static_cast<uint32_t>(p);
    slots.keys[p] = latent == kPadding ? kNoKey : ~key;
  }
  sort_descending<WholeBlock>(slots.keys, slots.n);
}

// act(weight) for the knobs of a kind on the latent whose run starts at p, in the row's order.
template <typename Act>
__device__ void for_each_knob(const CodeView& code, const KnobsView& knobs, int64_t first_knob,
                              const Slots& slots, int p, KnobKind kind, const Act& act) {
  const int32_t latent = latent_of(slots.keys[p]);
  for (; p < slots.n && slots.keys[p] != kNoKey && latent_of(slots.keys[p]) == latent; ++p) {
    const int place = place_of(slots.keys[p]);
    if (place < code.k) continue;
    const int64_t knob = first_knob + place - code.k;
    if (knobs.kinds[knob] == static_cast<uint8_t>(kind)) act(double{knobs.weights[knob]});
  }
}

// Sums what the code holds of each latent and applies SCALE; returns the row's total.
__device__ inline double scale_slots(const CodeView& code, const KnobsView& knobs, int64_t b,
                                     int64_t first, const Slots& slots) {
  double total = 0.0;
  for (int p = threadIdx.x; p < slots.n; p += blockDim.x) {
    double before = 0.0;
    if (is_first(slots, p)) {
      const int32_t latent = latent_of(slots.keys[p]);
      for (int q = p; q < slots.n && slots.keys[q] != kNoKey; ++q) {
        const int place = place_of(slots.keys[q]);
        if (latent_of(slots.keys[q]) != latent || place >= code.k) break;
        before += code.values[b * code.k + place];
      }
      double after = before;
      for_each_knob(code, knobs, first, slots, p, KnobKind::kScale,
                    [&](double weight) { after *= weight; });
      slots.after[p] = after;
      total += after;
    }
    slots.before[p] = before;
  }
  return block_sum(total);
}

// Fills before and after at the first slot of every latent. Every thread of the block calls it, and
// may read its own slots (threadIdx.x, + blockDim.x, ...) after it; a barrier shows those of
// others.
__device__ inline void steer_row(const CodeView& code, const KnobsView& knobs, int64_t b,
                                 const Slots& slots) {
  const int64_t first = knobs.offsets[knob_row(knobs, b)];
  const int64_t last = knobs.offsets[knob_row(knobs, b) + 1];
  load_slots(code, knobs, b, slots);
  const double total = scale_slots(code, knobs, b, first, slots);
  double alpha = 0.0;
  for (int64_t j = first + threadIdx.x; j < last; j += blockDim.x) {
    if (knobs.kinds[j] == static_cast<uint8_t>(KnobKind::kMix)) alpha += knobs.weights[j];
  }
  alpha = block_sum(alpha);
  const double keep = total == 0.0 ? 1.0 : 1.0 - least(1.0, alpha);
  for (int p = threadIdx.x; p < slots.n; p += blockDim.x) {
    if (!is_first(slots, p)) continue;
    double after = keep * slots.after[p];
    if (total != 0.0) {  // an empty code has no activation to move
      for_each_knob(code, knobs, first, slots, p, KnobKind::kMix,
                    [&](double weight) { after += total * weight; });
    }
    for_each_knob(code, knobs, first, slots, p, KnobKind::kAdd,
                  [&](double weight) { after += weight; });
    slots.after[p] = isnan(after) ? 0.0 : after;
  }
}

}  // namespace cfsae::cuda
