// topk_encode by a table of products: a gather-sum over int8 rows gives every value within a bound,
// and the few that it cannot exclude are computed as the dense path does.
#include <algorithm>
#include <cmath>
#include <memory>

#include "api.h"
#include "cpu/folded_rows.h"
#include "cpu/row_sum.h"
#include "cpu/standardise.h"
#include "folded_bounds.h"
#include "parallel.h"

namespace cfsae::cpu {

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
    const ScreenSum sum{
        folded.products, items,
        values,          n,
        1.0f / std_b,    {{folded.sums, -mean_b / std_b}, {folded.offsets, 1.0f}, {}}};
    const ExactTail tail{end.encoder, end.bias, query.data(), 0.0f, 0.0f};
    if (screen.top(sum, tail, bound, code.k, code.indices, code.values)) return;
  }
  require(topk_encode({embedding, 1, dim}, end.encoder, end.bias, end.centre, code, mean, std,
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
    const auto make = [&](const Execution& how) {
      return std::make_unique<Screen>(encoder.n_rows, encoder.n_rows, how);
    };
    for_each_row(rows.n_rows, entries * encoder.n_rows, execution, make, encode);
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
