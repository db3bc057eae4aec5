// Checks knobs, multiplies MIX by alpha and turns relative ADDs into absolute ones, row by row.
#include "onnxruntime/knobs.h"

#include <algorithm>
#include <cmath>

namespace cfsae::ort {
namespace {

double sum_of_row(const CodeView& code, int64_t b) {
  double sum = 0.0;
  for (int64_t j = b * code.k; j < (b + 1) * code.k; ++j) sum += code.values[j];
  return sum;
}

void check_knob(int64_t kind, float weight, int64_t at) {
  const std::string where = " at position " + std::to_string(at);
  if (kind < 0 || kind > kAddRelative) {
    throw BadInput("knob_kinds must be 0 (mix), 1 (scale), 2 (add) or 3 (add, relative), got " +
                   std::to_string(kind) + where);
  }
  if (!std::isfinite(weight)) throw BadInput("knob_weights must be finite" + where);
  if (kind < static_cast<int64_t>(KnobKind::kAdd) && weight < 0.0f) {
    throw BadInput("knob_weights must not be negative for mix and scale, got " +
                   std::to_string(weight) + where + "; use add to push away");
  }
}

}  // namespace

CheckedKnobs::CheckedKnobs(const Context& context, size_t first, const CodeView& code,
                           int64_t n_latents) {
  const Span<int64_t> ids = context.int64s(first, "knob_latents", {kAny});
  const Span<float> weights = context.floats(first + 1, "knob_weights", {ids.size()});
  const Span<int64_t> kinds = context.int64s(first + 2, "knob_kinds", {ids.size()});
  const Span<int64_t> offsets = context.int64s(first + 3, "knob_offsets", {kAny});
  const float alpha = context.real(first + 4, "alpha");
  if (!(alpha >= 0.0f && alpha <= 1.0f)) {
    throw BadInput("alpha must lie in [0, 1], got " + std::to_string(alpha));
  }
  const int64_t n_rows = offsets.size() - 1;
  if (n_rows != 1 && n_rows != code.n_rows) {
    throw BadInput("knob_offsets must have 2 entries or one more than there are rows, " +
                   std::to_string(code.n_rows + 1) + ", got " + std::to_string(n_rows + 1));
  }
  check_offsets("knob_offsets", offsets, ids.size());
  const std::vector<int32_t> latents = checked_ids("knob_latents", ids, n_latents);
  for (int64_t b = 0; b < code.n_rows; ++b) {
    const int64_t row = n_rows == 1 ? 0 : b;
    add_row(weights, kinds, latents, offsets.data[row], offsets.data[row + 1], alpha,
            sum_of_row(code, b));
  }
}

void CheckedKnobs::add_row(const Span<float>& weights, const Span<int64_t>& kinds,
                           const std::vector<int32_t>& latents, int64_t first, int64_t last,
                           float alpha, double activation) {
  const size_t start = latents_.size();
  for (int64_t j = first; j < last; ++j) {
    const int64_t kind = kinds.data[j];
    check_knob(kind, weights.data[j], j);
    const bool relative = kind == kAddRelative;
    const double factor = relative                                       ? activation
                          : kind == static_cast<int64_t>(KnobKind::kMix) ? alpha
                                                                         : 1.0;
    latents_.push_back(latents[static_cast<size_t>(j)]);
    weights_.push_back(static_cast<float>(weights.data[j] * factor));
    kinds_.push_back(relative ? static_cast<uint8_t>(KnobKind::kAdd) : static_cast<uint8_t>(kind));
  }
  offsets_.push_back(static_cast<int64_t>(latents_.size()));
  check_row(start);
}

void CheckedKnobs::check_row(size_t first) const {
  constexpr double kSumTolerance = 1e-5;  // float32 weights that sum to 1 may pass it by rounding
  double mixed = 0.0;
  std::vector<int32_t> scaled;
  for (size_t j = first; j < latents_.size(); ++j) {
    if (kinds_[j] == static_cast<uint8_t>(KnobKind::kMix)) mixed += weights_[j];
    if (kinds_[j] == static_cast<uint8_t>(KnobKind::kScale)) scaled.push_back(latents_[j]);
  }
  if (mixed > 1.0 + kSumTolerance) {
    throw BadInput("knob_weights * alpha must sum to at most 1 over a row's mix knobs, got " +
                   std::to_string(mixed));
  }
  std::sort(scaled.begin(), scaled.end());
  const auto twice = std::adjacent_find(scaled.begin(), scaled.end());
  if (twice != scaled.end()) {
    throw BadInput("knobs must scale a latent at most once per row, got latent " +
                   std::to_string(*twice) + " twice; multiply the weights");
  }
}

int64_t CheckedKnobs::most_knobs() const {
  int64_t most = 0;
  for (size_t b = 0; b + 1 < offsets_.size(); ++b) {
    most = std::max(most, offsets_[b + 1] - offsets_[b]);
  }
  return most;
}

int64_t CheckedKnobs::most_latents() const {
  int64_t most = 0;
  std::vector<int32_t> row;
  for (size_t b = 0; b + 1 < offsets_.size(); ++b) {
    row.assign(latents_.begin() + offsets_[b], latents_.begin() + offsets_[b + 1]);
    std::sort(row.begin(), row.end());
    most = std::max<int64_t>(most, std::unique(row.begin(), row.end()) - row.begin());
  }
  return most;
}

}  // namespace cfsae::ort
