// The steered code, sorted and padded. A block per row: knobs are few and so is k.
#include "cuda/steer_row.h"

namespace cfsae::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads)
    steer_kernel(CodeView code, KnobsView knobs, CodeOut out, int n_slots) {
  const int64_t b = blockIdx.x;
  const Slots slots = slots_in_shared(n_slots);
  steer_row(code, knobs, b, slots);
  Key* const sorted = reinterpret_cast<Key*>(slots.before);  // no longer needed
  for (int p = threadIdx.x; p < slots.n; p += kThreads) {
    const float value = is_first(slots, p) ? static_cast<float>(slots.after[p]) : 0.0f;
    sorted[p] = value == 0.0f ? kNoKey : make_key(value, latent_of(slots.keys[p]));
  }
  sort_descending<WholeBlock>(sorted, slots.n);
  for (int64_t j = threadIdx.x; j < out.k; j += kThreads) {
    const Key key = j < slots.n ? sorted[j] : kNoKey;
    out.indices[b * out.k + j] = key == kNoKey ? kPadding : index_of(key);
    out.values[b * out.k + j] = key == kNoKey ? 0.0f : value_of(key);
  }
}

}  // namespace

Status steer(const CodeView& code, const KnobsView& knobs, int64_t most_knobs, const CodeOut& out,
             const Execution& execution) {
  if (code.k + most_knobs > kMostSlots) return Status::kTooLarge;
  const int n_slots = slots_of(code.k + most_knobs);
  return launch(steer_kernel, {code.n_rows, 1, kThreads, slots_bytes(n_slots)}, execution.stream,
                code, knobs, out, n_slots);
}

}  // namespace cfsae::cuda
