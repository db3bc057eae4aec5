// Workers take chunks of the matrix that fit L2; each keeps its own candidates for every query, and
// these are merged at the end. A total order on (value, index) makes the result independent of who
// took which chunk. Many queries: packed tiles. Few: plain dot products.
#include "cpu/top_scan.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "cpu/candidates.h"
#include "cpu/kernels.h"
#include "cpu/screened_scan.h"
#include "cpu/seen_items.h"
#include "parallel.h"

namespace cfsae::cpu {
namespace {

constexpr int64_t kDirectQueries = 16;      // up to here packing costs more than it saves
constexpr int64_t kChunkBytes = 256 << 10;  // of the matrix at a time, beside one panel of queries
constexpr int64_t kQueriesAtOnce = 2048;
constexpr int64_t kCandidateBytes = 16 << 20;  // per worker
constexpr float kNever = -std::numeric_limits<float>::infinity();

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

class Scanner {  // the scan of one range of queries
 public:
  Scanner(const TopScan& scan, int64_t first_query, int64_t n_queries, int64_t k,
          const Execution& execution)
      : scan_(scan),
        execution_(execution),
        kernels_(kernels(execution.isa)),
        queries_(scan.queries.row(first_query)),
        n_queries_(n_queries),
        k_(k),
        dim_(scan.rows.dim),
        direct_(n_queries <= kDirectQueries),
        packed_(direct_ ? 0 : round_up(n_queries, kernels_.panel) * dim_) {
    const int64_t work = n_queries * scan.rows.n_rows * dim_;
    workers_ = workers_for(work, execution.threads);
    const int64_t fits =
        kChunkBytes / (static_cast<int64_t>(sizeof(float)) * std::max<int64_t>(dim_, 1));
    const int64_t share = (scan.rows.n_rows + 4 * workers_ - 1) / (4 * workers_);
    chunk_ = round_up(std::max<int64_t>(1, std::min({fits, share, int64_t{1024}})), kernels_.block);
    if (scan.seen != nullptr) {
      seen_ = std::make_unique<SeenItems>(*scan.seen, first_query, n_queries, execution.threads);
    }
  }

  void run(int32_t* indices, float* values) {
    if (!direct_) pack_queries();
    const int64_t n_chunks = (scan_.rows.n_rows + chunk_ - 1) / chunk_;
    found_.resize(workers_);
    parallel_for(n_chunks, workers_, [&](int64_t chunk, int worker) {
      if (!found_[worker]) found_[worker] = new_candidates();
      const int64_t first = chunk * chunk_;
      const int64_t n = std::min(chunk_, scan_.rows.n_rows - first);
      direct_ ? scan_direct(first, n, *found_[worker]) : scan_tiles(first, n, *found_[worker]);
    });
    parallel_for(
        n_queries_, workers_for(n_queries_ * k_ * 64, execution_.threads),
        [&](int64_t query, int) { write(query, indices + query * k_, values + query * k_); });
  }

 private:
  std::unique_ptr<Candidates> new_candidates() const {
    const int64_t k = std::min(k_, scan_.rows.n_rows);
    return std::make_unique<Candidates>(n_queries_, round_up(n_queries_, kernels_.panel), k,
                                        Candidates::capacity_for(k, scan_.rows.n_rows),
                                        scan_.floor);
  }

  void pack_queries() {
    const int64_t panel = kernels_.panel, n_panels = (n_queries_ + panel - 1) / panel;
    parallel_for(n_panels, workers_for(n_queries_ * dim_, execution_.threads), [&](int64_t p, int) {
      kernels_.pack_queries(queries_ + p * panel * dim_, std::min(panel, n_queries_ - p * panel),
                            dim_, packed_.data() + p * panel * dim_);
    });
  }

  float bias(int64_t row) const {
    if (scan_.allowed != nullptr && scan_.allowed[row] == 0) return kNever;
    return scan_.bias == nullptr ? 0.0f : scan_.bias[row];
  }

  void offer(int64_t query, float value, int64_t row, Candidates& found) const {
    if (seen_ && seen_->has(query, static_cast<int32_t>(row))) return;
    found.push(query, value, row);
  }

  void scan_direct(int64_t first, int64_t n, Candidates& found) const {
    const Scratch<float> products(n_queries_ * n);
    kernels_.dots(queries_, n_queries_, scan_.rows.row(first), n, dim_, products.data());
    for (int64_t query = 0; query < n_queries_; ++query) {
      for (int64_t r = 0; r < n; ++r) {
        const float value = products[query * n + r] + bias(first + r);
        if (value > found.floors()[query]) offer(query, value, first + r, found);
      }
    }
  }

  void scan_tiles(int64_t first, int64_t n, Candidates& found) const {
    const int64_t block = kernels_.block, panel = kernels_.panel, padded = round_up(n, block);
    const Scratch<float> rows(padded * dim_), biases(padded), out(block * panel);
    for (int64_t r = 0; r < padded; ++r) biases[r] = r < n ? bias(first + r) : kNever;
    for (int64_t r = 0; r < n; r += block) {
      kernels_.pack_rows(scan_.rows.row(first + r), std::min(block, n - r), dim_,
                         rows.data() + r * dim_);
    }
    for (int64_t query = 0; query < n_queries_; query += panel) {
      for (int64_t r = 0; r < n; r += block) {
        const uint32_t hits =
            kernels_.tile(packed_.data() + query * dim_, rows.data() + r * dim_, dim_,
                          biases.data() + r, found.floors() + query, out.data());
        if (hits != 0) collect(hits, query, first + r, out.data(), found);
      }
    }
  }

  void collect(uint32_t hits, int64_t query, int64_t row, const float* tile,
               Candidates& found) const {
    for (; hits != 0; hits &= hits - 1) {
      const int64_t r = __builtin_ctz(hits);
      const float* const values = tile + r * kernels_.panel;
      for (int64_t q = 0; q < kernels_.panel; ++q) {
        if (values[q] > found.floors()[query + q]) offer(query + q, values[q], row + r, found);
      }
    }
  }

  void write(int64_t query, int32_t* indices, float* values) const {
    std::vector<Key> keys;
    for (const auto& found : found_) {
      if (!found) continue;
      keys.insert(keys.end(), found->keys(query), found->keys(query) + found->count(query));
    }
    const int64_t n = std::min<int64_t>(k_, static_cast<int64_t>(keys.size()));
    std::partial_sort(keys.begin(), keys.begin() + n, keys.end(), std::greater<Key>());
    for (int64_t j = 0; j < k_; ++j) {
      indices[j] = j < n ? index_of(keys[j]) : kPadding;
      values[j] = j < n ? value_of(keys[j]) : scan_.empty;
    }
  }

  const TopScan& scan_;
  const Execution& execution_;
  const Kernels& kernels_;
  const float* const queries_;
  const int64_t n_queries_, k_, dim_;
  const bool direct_;
  const Scratch<float> packed_;
  int workers_ = 1;
  int64_t chunk_ = 1;
  std::unique_ptr<SeenItems> seen_;
  std::vector<std::unique_ptr<Candidates>> found_;
};

}  // namespace

void top_scan(const TopScan& scan, const CodeOut& out, const Execution& execution) {
  if (screening_pays(scan, execution) && screened_scan(scan, out, execution)) return;
  exact_scan(scan, out, execution);
}

void exact_scan(const TopScan& scan, const CodeOut& out, const Execution& execution) {
  const int64_t kept = std::max<int64_t>(1, std::min(out.k, scan.rows.n_rows));
  const int64_t bytes_per_query =
      Candidates::capacity_for(kept, scan.rows.n_rows) * static_cast<int64_t>(sizeof(Key));
  const int64_t at_once = std::max<int64_t>(
      32, std::min(kQueriesAtOnce, kCandidateBytes / std::max<int64_t>(bytes_per_query, 1)));
  for (int64_t query = 0; query < out.n_rows; query += at_once) {
    const int64_t n = std::min(at_once, out.n_rows - query);
    Scanner(scan, query, n, out.k, execution)
        .run(out.indices + query * out.k, out.values + query * out.k);
  }
}

}  // namespace cfsae::cpu
