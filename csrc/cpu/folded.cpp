// topk_encode and recommend by tables of products: a gather-sum over int8 rows gives every value
// within a bound, and the few that it cannot exclude are computed as the dense path does.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "api.h"
#include "cpu/folded_rows.h"
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

}  // namespace

void encode_row(const EncodeEnd& end, const Entries& entries, const float* embedding,
                const CodeOut& code, float* mean, float* std, Screen& screen,
                const Execution& execution) {
  const int64_t dim = end.encoder.dim;
  float mean_b = 0.0f, std_b = 1.0f;
  if (mean != nullptr) {
    const RowStats stats = row_stats(embedding, dim);
    mean_b = *mean = static_cast<float>(stats.mean);
    std_b = *std = static_cast<float>(stats.deviation + kStdEpsilon);
  }
  const Scratch<float> query(dim);
  centre_row(embedding, mean_b, std_b, end.centre, dim, query.data());
  const auto& [items, values, n] = entries;
  const FoldedEncoder& folded = end.folded;
  const double bound = encode_bound(folded, weigh(folded.products, items, values, n), n, dim,
                                    mean_b, std_b, length_of(query.data(), dim));
  if (n > 0 && bound < kWorthless) {
    screen.compute({folded.products,
                    items,
                    values,
                    n,
                    1.0f / std_b,
                    {{folded.sums, -mean_b / std_b}, {folded.offsets, 1.0f}, {}}});
    const ExactTail tail{end.encoder, end.bias, query.data(), 0.0f, 0.0f};
    if (screen.top(tail, bound, code.k, code.indices, code.values)) return;
  }
  require(topk_encode({embedding, 1, dim}, end.encoder, end.bias, end.centre, code, mean, std,
                      execution));
}

void recommend_row(const DecodeEnd& end, const CodeView& code, const StatsView& stats,
                   const float* embedding, const Asked& asked, const CodeOut& out, Screen& screen,
                   const Execution& execution) {
  const FoldedDecoder& folded = end.folded;
  const int64_t dim = end.items.dim;
  const float mean = stats.mean == nullptr ? 0.0f : *stats.mean;
  const float std = stats.std == nullptr ? 1.0f : *stats.std;
  const double bound =
      decode_bound(folded, weigh(folded.products, code.indices, code.values, code.k), code.k, dim,
                   mean, std, length_of(embedding, dim));
  if (bound < kWorthless) {
    ScreenSum sum{folded.products,
                  code.indices,
                  code.values,
                  code.k,
                  std,
                  {{folded.sums, mean}, {folded.shifts, std}, {end.bias, 1.0f}}};
    sum.allowed = asked.allowed;
    if (asked.seen != nullptr) {
      sum.excluded = asked.seen->items + asked.seen->offsets[0];
      sum.n_excluded = asked.seen->offsets[1] - asked.seen->offsets[0];
    }
    screen.compute(sum);
    const ExactTail tail{end.items, end.bias, embedding, kNothing, kNothing};
    if (screen.top(tail, bound, out.k, out.indices, out.values)) return;
  }
  require(recommend({embedding, 1, dim}, end.items, end.bias, asked.seen, asked.allowed, out,
                    execution));
}

Status folded_topk_encode(const RowsView& rows, const FoldedEncoder& folded,
                          const Matrix& embedding, const Matrix& encoder, const float* bias,
                          const float* centre, const CodeOut& code, float* mean, float* std,
                          const Execution& execution) {
  const EncodeEnd end{folded, encoder, bias, centre};
  const auto encode = [&](int64_t b, Screen& screen, const Execution& how) {
    const CodeOut out{1, code.k, code.indices + b * code.k, code.values + b * code.k};
    encode_row(end, entries_of(rows, b), embedding.row(b), out,
               mean == nullptr ? nullptr : mean + b, std == nullptr ? nullptr : std + b, screen,
               how);
  };
  return guarded([&] {
    const int64_t entries = rows.offsets[rows.n_rows] - rows.offsets[0];
    for_each_row(rows.n_rows, encoder.n_rows, entries * encoder.n_rows, execution, encode);
  });
}

Status folded_recommend(const CodeView& code, const StatsView& stats, const FoldedDecoder& folded,
                        const Matrix& embedding, const Matrix& items, const float* bias,
                        const RowsView* seen, const uint8_t* allowed, const CodeOut& out,
                        const Execution& execution) {
  const DecodeEnd end{folded, items, bias};
  const auto decode = [&](int64_t b, Screen& screen, const Execution& how) {
    const CodeView its{1, code.k, code.indices + b * code.k, code.values + b * code.k};
    const StatsView own{stats.mean == nullptr ? nullptr : stats.mean + b,
                        stats.std == nullptr ? nullptr : stats.std + b};
    RowsView hidden{};
    if (seen != nullptr) hidden = {1, seen->offsets + b, seen->items, nullptr};
    recommend_row(end, its, own, embedding.row(b), {seen == nullptr ? nullptr : &hidden, allowed},
                  {1, out.k, out.indices + b * out.k, out.values + b * out.k}, screen, how);
  };
  return guarded([&] {
    for_each_row(code.n_rows, items.n_rows, code.n_rows * code.k * items.n_rows, execution, decode);
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
