#include "cpu/screened_scan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/screen.h"
#include "cpu/sieve.h"
#include "parallel.h"

namespace cfsae::cpu {
namespace {

constexpr int64_t kQueriesToQuantise = 48;  // fewer do not pay for quantising the matrix
constexpr int64_t kChunkBytes = 256 << 10;  // of the quantised matrix at a time
constexpr int64_t kQueriesAtOnce = 256;     // share what is read of the matrix
constexpr float kNothing = -std::numeric_limits<float>::infinity();

class Screening {  // of one range of queries
 public:
  Screening(const TopScan& scan, const ScreenView& rows, int64_t first_query, int64_t n_queries,
            int64_t k, const Execution& execution)
      : scan_(scan),
        execution_(execution),
        kernels_(kernels(execution.isa)),
        tile_(kernels_.screen(n_queries)),
        rows_(rows),
        first_query_(first_query),
        n_queries_(n_queries),
        n_panels_((n_queries + tile_.queries - 1) / tile_.queries),
        workers_(workers_for(n_queries * scan.rows.n_rows * scan.rows.dim, execution.threads)),
        packed_(n_panels_ * panel_bytes()),
        usable_(n_panels_ * tile_.queries),
        panels_(n_panels_),
        sieve_(scan, first_query, n_queries, k, workers_, execution) {}

  // Leaves what the screen cannot exclude; `first` is the deciding's place of the first query.
  // Queries that cannot be bounded, or have too many that look alike, are left unanswered.
  void run(Deciding& deciding, int64_t first) {
    quantise();
    screen();
    parallel_for(n_queries_, workers_for(n_queries_ << 12, execution_.threads),
                 [&](int64_t q, int) {
                   if (!usable_[q] || sieve_.overflowed(q)) return;
                   sieve_.merge(q, deciding.answer(first + q));
                 });
  }

 private:
  int64_t panel_bytes() const { return tile_.queries * rows_.steps * kScreenWidth; }
  const float* query(int64_t q) const { return scan_.queries.row(first_query_ + q); }

  void quantise() {
    const int64_t width = tile_.queries;
    parallel_for(n_panels_, workers_for(n_queries_ * scan_.rows.dim, execution_.threads),
                 [&](int64_t p, int) {
                   const int64_t first = p * width;
                   const int64_t n = std::min(width, n_queries_ - first);
                   panels_[p] =
                       quantise_queries({query(first), n, scan_.rows.dim}, tile_.queries, kernels_,
                                        packed_.data() + p * panel_bytes(), usable_.data() + first);
                 });
  }

  void screen() {
    const int64_t blocks = (scan_.rows.n_rows + kScreenBlock - 1) / kScreenBlock;
    const int64_t block_bytes = kScreenBlock * rows_.steps * kScreenWidth;
    const int64_t share = (blocks + 4 * workers_ - 1) / (4 * workers_);
    const int64_t per_chunk =
        std::max<int64_t>(1, std::min(share, kChunkBytes / std::max<int64_t>(block_bytes, 1)));
    parallel_for((blocks + per_chunk - 1) / per_chunk, workers_, [&](int64_t chunk, int worker) {
      const int64_t first = chunk * per_chunk;
      screen_chunk(first, std::min(per_chunk, blocks - first), sieve_.of_worker(worker));
    });
  }

  void screen_chunk(int64_t first_block, int64_t n_blocks, std::vector<Survivors>& found) const {
    const int64_t first = first_block * kScreenBlock, n = n_blocks * kScreenBlock;
    const Scratch<float> bias(n), slack(n);
    for (int64_t r = 0; r < n; ++r) {
      const int64_t row = first + r;
      const bool out =
          row >= scan_.rows.n_rows || (scan_.allowed != nullptr && scan_.allowed[row] == 0);
      bias[r] = out ? kNothing : scan_.bias == nullptr ? 0.0f : scan_.bias[row];
      slack[r] = bias[r] == kNothing ? 0.0f : std::fabs(bias[r]) * 0x1p-21f + 1e-36f;
    }
    for (int64_t p = 0; p < n_panels_; ++p) {
      ScreenQueries queries = panels_[p];
      ScreenSink* sinks[kMostScreenQueries];
      for (int q = 0; q < tile_.queries; ++q) {
        const int64_t query = p * tile_.queries + q;
        const bool judged = query < n_queries_ && usable_[query];
        queries.floor[q] = judged ? found[query].floor() : Survivors::kEverything;
        sinks[q] = judged ? found[query].sink() : nullptr;
      }
      for (int64_t at = 0; at < n; at += kScreenBlock) {
        const int64_t row = first + at;
        const ScreenRows rows{rows_.block(row),  rows_.scale + row, rows_.norm + row,
                              rows_.error + row, bias.data() + at,  slack.data() + at};
        uint32_t any = tile_.run(queries, rows, rows_.steps, static_cast<int32_t>(row), sinks);
        for (; any != 0; any &= any - 1) {
          const int q = __builtin_ctz(any);
          const int64_t query = p * tile_.queries + q;
          queries.floor[q] = sieve_.settle(found[query], query, row);
        }
      }
    }
  }

  const TopScan& scan_;
  const Execution& execution_;
  const Kernels& kernels_;
  const ScreenTile tile_;
  const ScreenView rows_;
  const int64_t first_query_, n_queries_, n_panels_;
  const int workers_;
  const Scratch<int8_t> packed_;
  const Scratch<bool> usable_;
  std::vector<ScreenQueries> panels_;
  Sieve sieve_;
};

bool bounded(const TopScan& scan) {  // -inf takes a row out; NaN and inf have no bound
  if (scan.bias == nullptr) return true;
  return std::all_of(scan.bias, scan.bias + scan.rows.n_rows, [](float bias) {
    return bias <= 1e30f && (bias >= -1e30f || bias == kNothing);
  });
}

void answer_exactly(const TopScan& scan, int64_t query, const CodeOut& out,
                    const Execution& execution) {
  RowsView seen{};
  TopScan one = scan;
  one.queries = {scan.queries.row(query), 1, scan.queries.dim};
  if (scan.seen != nullptr) {
    seen = {1, scan.seen->offsets + query, scan.seen->items, scan.seen->values};
    one.seen = &seen;
  }
  exact_scan(one, {1, out.k, out.indices + query * out.k, out.values + query * out.k}, execution);
}

}  // namespace

bool screening_pays(const TopScan& scan, const Execution& execution) {
  if (kernels(execution.isa).screen == nullptr || scan.rows.dim == 0) return false;
  return scan.rows.screen != nullptr || scan.queries.n_rows >= kQueriesToQuantise;
}

bool screened_scan(const TopScan& scan, const CodeOut& out, const Execution& execution) {
  if (!bounded(scan)) return false;
  const Matrix& rows = scan.rows;
  const Scratch<uint8_t> own(rows.screen == nullptr ? screen_bytes(rows.n_rows, rows.dim) : 0);
  if (rows.screen == nullptr && make_screen(rows, own.data(), execution) != Status::kOk) {
    throw std::bad_alloc();
  }
  const uint8_t* const screen = rows.screen == nullptr ? own.data() : rows.screen;
  const ScreenView view = view_screen(screen, rows.n_rows, rows.dim);
  if (!view.usable) return false;
  // Many queries: each worker takes some through the whole matrix. Few: all take part in each.
  const int64_t work = out.n_rows * rows.n_rows * rows.dim;
  const int workers = workers_for(work, execution.threads);
  const bool by_queries = out.n_rows >= 2 * kMostScreenQueries * workers;
  const int64_t share = (out.n_rows + workers - 1) / workers;
  const int64_t panels = (share + kMostScreenQueries - 1) / kMostScreenQueries;
  const int64_t each =
      std::min(kQueriesAtOnce, by_queries ? panels * kMostScreenQueries : kQueriesAtOnce);
  const int64_t at_once = by_queries ? workers * each : each;
  const Execution within{by_queries ? 1 : execution.threads, execution.isa};
  for (int64_t first = 0; first < out.n_rows; first += at_once) {
    const int64_t n = std::min(at_once, out.n_rows - first);
    Deciding deciding(scan, first, n, out.k, execution);
    parallel_for((n + each - 1) / each, by_queries ? workers : 1, [&](int64_t task, int) {
      const int64_t from = task * each;
      Screening screening(scan, view, first + from, std::min(each, n - from), out.k, within);
      screening.run(deciding, from);
    });
    deciding.run(out.indices + first * out.k, out.values + first * out.k);
    for (int64_t q = 0; q < n; ++q) {
      if (!deciding.answers(q)) answer_exactly(scan, first + q, out, execution);
    }
  }
  return true;
}

}  // namespace cfsae::cpu
