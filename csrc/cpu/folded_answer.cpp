// The whole line for a history: its embedding, code, knobs and the best items, one row after the
// other, so that what a row leaves for its next step is still in the cache.
#include <algorithm>
#include <memory>

#include "api.h"
#include "cpu/folded_rows.h"
#include "cpu/scratch.h"

namespace cfsae::cpu {
namespace {

int64_t most_knobs(const KnobsView* knobs) {
  if (knobs == nullptr) return 0;
  int64_t most = 0;
  for (int64_t row = 0; row < knobs->n_rows; ++row) {
    most = std::max(most, knobs->offsets[row + 1] - knobs->offsets[row]);
  }
  return most;
}

class Worker {  // with memory for one row
 public:
  Worker(const FoldedModel& model, const KnobsView* knobs, const Execution& execution)
      : model_(model),
        knobs_(knobs),
        execution_(execution),
        width_(model.k + most_knobs(knobs)),
        embedding_(model.items.dim),
        moved_(model.items.dim),
        latents_(model.k),
        steered_latents_(width_),
        values_(model.k),
        steered_values_(width_),
        for_latents_(model.encoder.n_rows, model.encoder.n_rows, execution),
        for_items_(model.items.n_rows, model.items.n_rows, execution) {}

  void answer(const RowsView& rows, int64_t b, bool exclude_seen, const uint8_t* allowed,
              const CodeOut& out) {
    const RowsView own{1, rows.offsets + b, rows.items, rows.values};
    embed(own);
    CodeView code = encode(own);
    const StatsView stats = model_.standardize ? StatsView{&mean_, &std_} : StatsView{};
    code = decode(code, stats, b);
    recommend_row({model_.decode_side, model_.items, model_.item_bias}, code, stats, moved_.data(),
                  {exclude_seen, own, allowed}, out, for_items_, execution_);
  }

 private:
  void embed(const RowsView& own) {
    if (own.offsets[0] == own.offsets[1]) {
      std::copy_n(model_.cold, model_.items.dim, embedding_.data());
    } else {
      require(encode_rows(own, model_.item_weight, nullptr, embedding_.data(), execution_));
    }
  }

  CodeView encode(const RowsView& own) {
    const EncodeEnd end{model_.encode_side, model_.encoder, model_.encoder_bias, model_.bias};
    encode_row(end, entries_of(own, 0), embedding_.data(),
               {1, model_.k, latents_.data(), values_.data()},
               model_.standardize ? &mean_ : nullptr, model_.standardize ? &std_ : nullptr,
               for_latents_, execution_);
    for (int64_t j = 0; j < model_.k; ++j) {
      if (values_[j] > model_.threshold) continue;
      latents_[j] = kPadding;
      values_[j] = 0.0f;
    }
    return {1, model_.k, latents_.data(), values_.data()};
  }

  // Into moved_. Returns the code that it is decoded from.
  CodeView decode(const CodeView& code, const StatsView& stats, int64_t b) {
    if (knobs_ == nullptr) {
      require(
          sparse_decode(code, model_.dictionary, model_.bias, stats, moved_.data(), execution_));
      return code;
    }
    KnobsView own = *knobs_;
    if (own.n_rows != 1) own = {1, own.offsets + b, own.latents, own.weights, own.kinds};
    require(steer_decode({embedding_.data(), 1, model_.items.dim}, code, own, model_.dictionary,
                         model_.bias, stats, DecodeMode::kReconstruct, moved_.data(), execution_));
    const CodeOut steered{1, width_, steered_latents_.data(), steered_values_.data()};
    require(steer(code, own, steered, execution_));
    return {1, width_, steered.indices, steered.values};
  }

  const FoldedModel& model_;
  const KnobsView* const knobs_;
  const Execution execution_;
  const int64_t width_;
  float mean_ = 0.0f, std_ = 1.0f;
  const Scratch<float> embedding_, moved_;
  const Scratch<int32_t> latents_, steered_latents_;
  const Scratch<float> values_, steered_values_;
  Screen for_latents_, for_items_;
};

}  // namespace

Status folded_answer(const FoldedModel& model, const RowsView& rows, const KnobsView* knobs,
                     bool exclude_seen, const uint8_t* allowed, const CodeOut& out,
                     const Execution& execution) {
  return guarded([&] {
    const auto make = [&](const Execution& how) {
      return std::make_unique<Worker>(model, knobs, how);
    };
    const auto answer = [&](int64_t b, Worker& worker, const Execution&) {
      worker.answer(rows, b, exclude_seen, allowed,
                    {1, out.k, out.indices + b * out.k, out.values + b * out.k});
    };
    for_each_row(rows.n_rows, rows.n_rows * model.k * model.items.n_rows, execution, make, answer);
  });
}

}  // namespace cfsae::cpu
