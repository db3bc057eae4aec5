// Steering and decoding in one: the steered code of a row lives in scratch and is never written.
#include <algorithm>
#include <cstring>

#include "api.h"
#include "cpu/kernels.h"
#include "cpu/scratch.h"
#include "cpu/steer_row.h"
#include "parallel.h"

namespace cfsae::cpu {
namespace {

struct Sum {  // what the dictionary is gathered with
  std::vector<int32_t> ids;
  std::vector<float> weights;

  void set(const std::vector<Slot>& slots, DecodeMode mode) {
    ids.clear();
    weights.clear();
    for (const Slot& slot : slots) {
      const double z = mode == DecodeMode::kResidual ? slot.after - slot.before : slot.after;
      if (static_cast<float>(z) == 0.0f) continue;
      ids.push_back(slot.latent);
      weights.push_back(static_cast<float>(z));
    }
  }
};

}  // namespace

Status steer_decode(const Matrix& embedding, const CodeView& code, const KnobsView& knobs,
                    const Matrix& dictionary, const float* bias, const StatsView& stats,
                    DecodeMode mode, float* out, const Execution& execution) {
  return guarded([&] {
    constexpr int64_t kRowsPerTask = 16;
    const Kernels& k = kernels(execution.isa);
    const int64_t dim = dictionary.dim;
    const bool residual = mode == DecodeMode::kResidual;
    const int64_t n_tasks = (code.n_rows + kRowsPerTask - 1) / kRowsPerTask;
    const int workers = workers_for(code.n_rows * (code.k + 1) * dim, execution.threads);
    const auto decode_row = [&](int64_t b, std::vector<Slot>& slots, Sum& sum) {
      float* const row = out + b * dim;
      const float* const base = embedding.row(b);
      if (residual && !has_knobs(knobs, b)) {
        std::memcpy(row, base, dim * sizeof(float));
        return;
      }
      steer_row(code, knobs, b, slots);
      sum.set(slots, mode);
      if (residual || bias == nullptr) {
        std::fill_n(row, dim, 0.0f);
      } else {
        std::memcpy(row, bias, dim * sizeof(float));
      }
      k.gather_sum(dictionary.data, dim, dim, sum.ids.data(), sum.weights.data(),
                   static_cast<int64_t>(sum.ids.size()), row);
      const float mean = stats.mean == nullptr ? 0.0f : stats.mean[b];
      const float std = stats.std == nullptr ? 1.0f : stats.std[b];
      for (int64_t c = 0; c < dim; ++c) row[c] = (residual ? base[c] : mean) + std * row[c];
    };
    parallel_for(n_tasks, workers, [&](int64_t task, int) {
      std::vector<Slot> slots;
      Sum sum;
      const int64_t last = std::min(code.n_rows, (task + 1) * kRowsPerTask);
      for (int64_t b = task * kRowsPerTask; b < last; ++b) decode_row(b, slots, sum);
    });
  });
}

}  // namespace cfsae::cpu
