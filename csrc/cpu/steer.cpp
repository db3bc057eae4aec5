// The steered code, sorted and padded. One small sort per row.
#include <algorithm>

#include "api.h"
#include "cpu/scratch.h"
#include "cpu/steer_row.h"
#include "parallel.h"

namespace cfsae::cpu {
namespace {

void write_row(std::vector<Slot>& slots, int32_t* indices, float* values, int64_t width) {
  const auto is_zero = [](const Slot& slot) { return static_cast<float>(slot.after) == 0.0f; };
  slots.erase(std::remove_if(slots.begin(), slots.end(), is_zero), slots.end());
  std::sort(slots.begin(), slots.end(), [](const Slot& a, const Slot& b) {
    const float x = static_cast<float>(a.after), y = static_cast<float>(b.after);
    return x != y ? x > y : a.latent < b.latent;
  });
  const int64_t n = static_cast<int64_t>(slots.size());
  for (int64_t j = 0; j < width; ++j) {
    indices[j] = j < n ? slots[j].latent : kPadding;
    values[j] = j < n ? static_cast<float>(slots[j].after) : 0.0f;
  }
}

}  // namespace

Status steer(const CodeView& code, const KnobsView& knobs, const CodeOut& out,
             const Execution& execution) {
  return guarded([&] {
    constexpr int64_t kRowsPerTask = 64, kOperationsPerSlot = 64;
    const int64_t n_tasks = (code.n_rows + kRowsPerTask - 1) / kRowsPerTask;
    const int workers = workers_for(out.n_rows * out.k * kOperationsPerSlot, execution.threads);
    parallel_for(n_tasks, workers, [&](int64_t task, int) {
      std::vector<Slot> slots;
      const int64_t last = std::min(code.n_rows, (task + 1) * kRowsPerTask);
      for (int64_t b = task * kRowsPerTask; b < last; ++b) {
        steer_row(code, knobs, b, slots);
        write_row(slots, out.indices + b * out.k, out.values + b * out.k, out.k);
      }
    });
  });
}

}  // namespace cfsae::cpu
