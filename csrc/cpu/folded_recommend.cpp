// code -> scores -> top-N by the table of products: rows one by one, or a batch strip by strip.
#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "api.h"
#include "cpu/folded_rows.h"
#include "folded_bounds.h"
#include "parallel.h"

namespace cfsae::cpu {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();

float or_zero(const float* one) { return one == nullptr ? 0.0f : *one; }
float or_one(const float* one) { return one == nullptr ? 1.0f : *one; }

double bound_of(const DecodeEnd& end, const CodeView& code, const StatsView& stats,
                const float* embedding) {
  const int64_t dim = end.items.dim;
  const Weighed weighed = weigh(end.folded.products, code.indices, code.values, code.k);
  return decode_bound(end.folded, weighed, code.k, dim, or_zero(stats.mean), or_one(stats.std),
                      length_of(embedding, dim));
}

ScreenSum sum_of(const DecodeEnd& end, const CodeView& code, const StatsView& stats,
                 const Asked& asked) {
  const float mean = or_zero(stats.mean), std = or_one(stats.std);
  ScreenSum sum{end.folded.products,
                code.indices,
                code.values,
                code.k,
                std,
                {{end.folded.sums, mean}, {end.folded.shifts, std}, {end.bias, 1.0f}}};
  sum.allowed = asked.allowed;
  if (asked.masked) {
    sum.excluded = asked.seen.items + asked.seen.offsets[0];
    sum.n_excluded = asked.seen.offsets[1] - asked.seen.offsets[0];
  }
  return sum;
}

ExactTail tail_of(const DecodeEnd& end, const float* embedding) {
  return {end.items, end.bias, embedding, kNothing, kNothing};
}

void recommend_densely(const DecodeEnd& end, const float* embedding, const Asked& asked,
                       const CodeOut& out, const Execution& execution) {
  require(recommend({embedding, 1, end.items.dim}, end.items, end.bias, asked.hidden(),
                    asked.allowed, out, execution));
}

}  // namespace

void recommend_row(const DecodeEnd& end, const CodeView& code, const StatsView& stats,
                   const float* embedding, const Asked& asked, const CodeOut& out, Screen& screen,
                   const Execution& execution) {
  const double bound = bound_of(end, code, stats, embedding);
  if (bound < kWorthless && screen.top(sum_of(end, code, stats, asked), tail_of(end, embedding),
                                       bound, out.k, out.indices, out.values)) {
    return;
  }
  recommend_densely(end, embedding, asked, out, execution);
}

namespace {

struct Row {
  CodeView code;
  StatsView stats;
  Asked asked;
};

// Rows of a batch by strips of columns: what one row brings of the table, others find in the cache.
class Strips {
 public:
  // operations: of all rows.
  Strips(const DecodeEnd& end, const Matrix& embedding, int64_t k, int64_t operations,
         const Execution& execution)
      : end_(end),
        embedding_(embedding),
        k_(k),
        one_thread_{1, execution.isa},
        workers_(workers_for(operations, execution.threads)),
        screens_(workers_),
        rows_(embedding.n_rows) {}

  // row(b): its Row; out(b): where its answer goes.
  template <typename RowOf, typename OutOf>
  void run(const RowOf& row, const OutOf& out) {
    const int64_t n_items = end_.items.n_rows;
    const int64_t n_strips = (n_items + kColumns - 1) / kColumns;
    const int64_t blocks = (n_items + kFoldedBlock - 1) / kFoldedBlock;
    const int64_t width = (blocks + n_strips - 1) / n_strips * kFoldedBlock;
    for (int64_t first = 0; first < n_items; first += width) {
      const int64_t last = std::min(n_items, first + width);
      parallel_for(embedding_.n_rows, workers_, [&](int64_t b, int worker) {
        std::unique_ptr<Screen>& screen = screens_[worker];
        if (!screen) screen = std::make_unique<Screen>(n_items, width, one_thread_);
        add(b, row(b), first, last, *screen);
        if (last == n_items) decide(b, row(b), *screen, out(b));
      });
    }
  }

 private:
  // of a table of 8,192 rows 100 MB, which the last cache holds, and 150 KB of the terms
  static constexpr int64_t kColumns = 12288;

  struct State {
    double bound;
    Found found;
  };

  void add(int64_t b, const Row& row, int64_t first, int64_t last, Screen& screen) {
    State& its = rows_[b];
    if (first == 0) its.bound = bound_of(end_, row.code, row.stats, embedding_.row(b));
    if (!(its.bound < kWorthless)) return;
    screen.add(sum_of(end_, row.code, row.stats, row.asked), first, last, its.bound, kNothing, k_,
               its.found);
  }

  void decide(int64_t b, const Row& row, const Screen& screen, const CodeOut& out) {
    State& its = rows_[b];
    const float* const embedding = embedding_.row(b);
    if (its.bound < kWorthless && screen.decide(tail_of(end_, embedding), its.bound, k_, its.found,
                                                out.indices, out.values)) {
      return;
    }
    recommend_densely(end_, embedding, row.asked, out, one_thread_);
  }

  const DecodeEnd& end_;
  const Matrix& embedding_;
  const int64_t k_;
  const Execution one_thread_;
  const int workers_;
  std::vector<std::unique_ptr<Screen>> screens_;
  std::vector<State> rows_;
};

}  // namespace

Status folded_recommend(const CodeView& code, const StatsView& stats, const FoldedDecoder& folded,
                        const Matrix& embedding, const Matrix& items, const float* bias,
                        const RowsView* seen, const uint8_t* allowed, const CodeOut& out,
                        const Execution& execution) {
  const DecodeEnd end{folded, items, bias};
  const auto row = [&](int64_t b) -> Row {
    RowsView own{};
    if (seen != nullptr) own = {1, seen->offsets + b, seen->items, nullptr};
    return {{1, code.k, code.indices + b * code.k, code.values + b * code.k},
            {stats.mean == nullptr ? nullptr : stats.mean + b,
             stats.std == nullptr ? nullptr : stats.std + b},
            {seen != nullptr, own, allowed}};
  };
  const auto out_of = [&](int64_t b) -> CodeOut {
    return {1, out.k, out.indices + b * out.k, out.values + b * out.k};
  };
  return guarded([&] {
    if (code.n_rows == 1) {
      const Row its = row(0);
      Screen screen(items.n_rows, items.n_rows, execution);
      recommend_row(end, its.code, its.stats, embedding.row(0), its.asked, out, screen, execution);
      return;
    }
    const int64_t operations = code.n_rows * code.k * items.n_rows;
    Strips(end, embedding, out.k, operations, execution).run(row, out_of);
  });
}

}  // namespace cfsae::cpu
