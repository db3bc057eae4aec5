// Steering injection, fused: the steered code of a row lives in shared memory and is decoded from
// there; only the embedding is written. A block per row and 1024 columns; the steering itself (a
// sort of a few dozen latents) is repeated by the blocks of a row rather than written and read.
#include "cuda/steer_row.h"

namespace cfsae::cuda {
namespace {

constexpr int kThreads = 256, kColumns = 4;  // columns of a thread, kThreads apart

struct Injection {
  const float* embedding;
  CodeView code;
  KnobsView knobs;
  Matrix dictionary;
  const float* bias;
  StatsView stats;
  DecodeMode mode;
  float* out;
};

// What the dictionary is gathered with: z' - z or z', 0 where a slot is no latent.
__device__ void weigh(const Slots& slots, DecodeMode mode) {
  for (int p = threadIdx.x; p < slots.n; p += kThreads) {
    const double before = mode == DecodeMode::kResidual ? slots.before[p] : 0.0;
    slots.weights[p] = is_first(slots, p) ? static_cast<float>(slots.after[p] - before) : 0.0f;
  }
  __syncthreads();
}

struct Sums {
  float of[kColumns];
};

// The weighted atoms of the steered code, and the bias, at columns first, first + kThreads, ...
__device__ Sums decode(const Injection& in, int64_t b, int64_t first, const Slots& slots) {
  const int64_t dim = in.dictionary.dim;
  steer_row(in.code, in.knobs, b, slots);
  weigh(slots, in.mode);
  Sums sums{};
  for (int i = 0; i < kColumns; ++i) {
    const int64_t c = first + i * kThreads;
    if (in.mode == DecodeMode::kReconstruct && in.bias != nullptr && c < dim) {
      sums.of[i] = in.bias[c];
    }
  }
  for (int p = 0; p < slots.n && slots.keys[p] != kNoKey; ++p) {
    const float weight = slots.weights[p];
    const int64_t latent = latent_of(slots.keys[p]);
    if (weight == 0.0f || latent < 0 || latent >= in.dictionary.n_rows) continue;
    const float* const atom = in.dictionary.data + latent * dim;
    for (int i = 0; i < kColumns; ++i) {
      const int64_t c = first + i * kThreads;
      if (c < dim) sums.of[i] += weight * atom[c];
    }
  }
  return sums;
}

__global__ void __launch_bounds__(kThreads) steer_decode_kernel(Injection in, int n_slots) {
  const int64_t b = blockIdx.x, dim = in.dictionary.dim, row = knob_row(in.knobs, b);
  const int64_t first = int64_t{blockIdx.y} * kThreads * kColumns + threadIdx.x;
  const bool residual = in.mode == DecodeMode::kResidual;
  // the whole block at once: without knobs the embedding stays, bit for bit
  const bool stays = residual && in.knobs.offsets[row] == in.knobs.offsets[row + 1];
  Sums sums{};
  if (!stays) sums = decode(in, b, first, slots_in_shared(n_slots));
  const float mean = in.stats.mean == nullptr ? 0.0f : in.stats.mean[b];
  const float std = in.stats.std == nullptr ? 1.0f : in.stats.std[b];
  for (int i = 0; i < kColumns; ++i) {
    const int64_t c = first + i * kThreads;
    if (c >= dim) continue;
    const float before = residual ? in.embedding[b * dim + c] : mean;
    in.out[b * dim + c] = stays ? before : before + std * sums.of[i];
  }
}

}  // namespace

Status steer_decode(const Matrix& embedding, const CodeView& code, const KnobsView& knobs,
                    int64_t most_knobs, const Matrix& dictionary, const float* bias,
                    const StatsView& stats, DecodeMode mode, float* out,
                    const Execution& execution) {
  if (code.k + most_knobs > kMostSlots) return Status::kTooLarge;
  const int n_slots = slots_of(code.k + most_knobs);
  const Injection in{embedding.data, code, knobs, dictionary, bias, stats, mode, out};
  return launch(
      steer_decode_kernel,
      {code.n_rows, divide_up(dictionary.dim, kThreads * kColumns), kThreads, slots_bytes(n_slots)},
      execution.stream, in, n_slots);
}

}  // namespace cfsae::cuda
