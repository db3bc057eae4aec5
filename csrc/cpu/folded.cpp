// topk_encode and recommend by tables of products: a gather-sum over int8 rows gives every value
// within a bound, and the few that it cannot exclude are computed as the dense path does.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "api.h"
#include "cpu/folded_screen.h"
#include "cpu/row_sum.h"
#include "cpu/standardise.h"
#include "folded_bounds.h"
#include "parallel.h"

namespace cfsae::cpu {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();

// Rows in parallel where there are several, else the columns of one row; body(b, screen, how).
template <typename Body>
void for_each_row(int64_t n_rows, int64_t columns, int64_t operations, const Execution& execution,
                  const Body& body) {
  const bool alone = n_rows <= 1;
  const Execution how{alone ? execution.threads : 1, execution.isa};
  const int workers = alone ? 1 : workers_for(operations, execution.threads);
  std::vector<std::unique_ptr<Screen>> screens(workers);
  parallel_for(n_rows, workers, [&](int64_t b, int worker) {
    if (!screens[worker]) screens[worker] = std::make_unique<Screen>(columns, how);
    body(b, *screens[worker], how);
  });
}

void require(Status status) {
  if (status != Status::kOk) throw std::bad_alloc();
}

}  // namespace

Status folded_topk_encode(const RowsView& rows, const FoldedEncoder& folded,
                          const Matrix& embedding, const Matrix& encoder, const float* bias,
                          const float* centre, const CodeOut& code, float* mean, float* std,
                          const Execution& execution) {
  const int64_t n_latents = encoder.n_rows, dim = encoder.dim;
  const auto encode_row = [&](int64_t b, Screen& screen, const Execution& how) {
    const int64_t first = rows.offsets[b], n = rows.offsets[b + 1] - first;
    const int32_t* const items = rows.items + first;
    const float* const values = rows.values == nullptr ? nullptr : rows.values + first;
    const CodeOut out{1, code.k, code.indices + b * code.k, code.values + b * code.k};
    float mean_b = 0.0f, std_b = 1.0f;
    if (mean != nullptr) {
      const RowStats stats = row_stats(embedding.row(b), dim);
      mean_b = mean[b] = static_cast<float>(stats.mean);
      std_b = std[b] = static_cast<float>(stats.deviation + kStdEpsilon);
    }
    const Scratch<float> query(dim);
    centre_row(embedding.row(b), mean_b, std_b, centre, dim, query.data());
    const double bound = encode_bound(folded, weigh(folded.products, items, values, n), n, dim,
                                      mean_b, std_b, length_of(query.data(), dim));
    if (n > 0 && bound < kWorthless) {
      screen.compute({folded.products,
                      items,
                      values,
                      n,
                      1.0f / std_b,
                      {{folded.sums, -mean_b / std_b}, {folded.offsets, 1.0f}, {}}});
      const ExactTail tail{encoder, bias, query.data(), 0.0f, 0.0f};
      if (screen.top(tail, bound, out.k, out.indices, out.values)) return;
    }
    require(topk_encode({embedding.row(b), 1, dim}, encoder, bias, centre, out,
                        mean == nullptr ? nullptr : mean + b, std == nullptr ? nullptr : std + b,
                        how));
  };
  return guarded([&] {
    const int64_t entries = rows.offsets[rows.n_rows] - rows.offsets[0];
    for_each_row(rows.n_rows, n_latents, entries * n_latents, execution, encode_row);
  });
}

Status folded_recommend(const CodeView& code, const StatsView& stats, const FoldedDecoder& folded,
                        const Matrix& embedding, const Matrix& items, const float* bias,
                        const RowsView* seen, const uint8_t* allowed, const CodeOut& out,
                        const Execution& execution) {
  const auto recommend_row = [&](int64_t b, Screen& screen, const Execution& how) {
    const int32_t* const latents = code.indices + b * code.k;
    const float* const values = code.values + b * code.k;
    const float mean = stats.mean == nullptr ? 0.0f : stats.mean[b];
    const float std = stats.std == nullptr ? 1.0f : stats.std[b];
    const CodeOut to{1, out.k, out.indices + b * out.k, out.values + b * out.k};
    RowsView own{};
    if (seen != nullptr) own = {1, seen->offsets + b, seen->items, nullptr};
    const double bound =
        decode_bound(folded, weigh(folded.products, latents, values, code.k), code.k, items.dim,
                     mean, std, length_of(embedding.row(b), items.dim));
    if (bound < kWorthless) {
      ScreenSum sum{
          folded.products, latents, values,
          code.k,          std,     {{folded.sums, mean}, {folded.shifts, std}, {bias, 1.0f}}};
      sum.allowed = allowed;
      if (seen != nullptr) {
        sum.excluded = own.items + own.offsets[0];
        sum.n_excluded = own.offsets[1] - own.offsets[0];
      }
      screen.compute(sum);
      const ExactTail tail{items, bias, embedding.row(b), kNothing, kNothing};
      if (screen.top(tail, bound, to.k, to.indices, to.values)) return;
    }
    require(recommend({embedding.row(b), 1, items.dim}, items, bias,
                      seen == nullptr ? nullptr : &own, allowed, to, how));
  };
  return guarded([&] {
    for_each_row(code.n_rows, items.n_rows, code.n_rows * code.k * items.n_rows, execution,
                 recommend_row);
  });
}

Status folded_scores(const CodeView& code, const FoldedTable& products, float* out,
                     const Execution& execution) {
  const FoldedKernels& kernels = folded_kernels(execution.isa);
  return guarded([&] {
    const int workers = workers_for(code.n_rows * code.k * products.dim, execution.threads);
    parallel_for(code.n_rows, workers, [&](int64_t b, int) {
      RowSum rows(kernels);
      rows.set(products, code.indices + b * code.k, code.values + b * code.k, code.k);
      float* const sum = out + b * products.dim;
      std::fill_n(sum, products.dim, 0.0f);
      rows.add(0, products.dim, sum);
    });
  });
}

}  // namespace cfsae::cpu
