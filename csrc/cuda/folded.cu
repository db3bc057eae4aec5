// topk_encode and recommend by int8 tables of products: a gather-sum gives every value within a
// bound. If T is the k-th largest approximate value and b the bound, a row of the matrix below
// T - 2 b is not among the k best. A first pass finds T, a second one sums again (nothing of size
// (B, L) is ever in memory) and computes what T does not exclude in fp32, in the order of
// Fp32Product, so that the answer is the dense scan's, bit for bit.
#include <cfloat>
#include <cmath>

#include "cuda/folded_sums.h"
#include "cuda/reduce.h"
#include "cuda/selector.h"
#include "cuda/standardise.h"
#include "cuda/top_scan.h"
#include "folded_bounds.h"

namespace cfsae::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarpSize;
constexpr int64_t kWantedWarps = 2112;  // 16 for each of 132 SMs
constexpr int kAhead = 4;               // reads of a row that are in flight, times 32 columns

struct Verdicts {  // of every row
  double* bounds;
  int* survivors;  // so far
  int* failed;     // the tables exclude too little
};

__device__ double bound_of(const FoldedEncoder& side, const Weighed& weighed, int64_t n,
                           int64_t dim, double mean, double std, double length) {
  return encode_bound(side, weighed, n, dim, mean, std, length);
}
__device__ double bound_of(const FoldedDecoder& side, const Weighed& weighed, int64_t n,
                           int64_t dim, double mean, double std, double length) {
  return decode_bound(side, weighed, n, dim, mean, std, length);
}

template <int kEncodes, typename Side>
__global__ void __launch_bounds__(kThreads, 8)
    bounds_kernel(Folded f, Side side, Matrix queries, Verdicts verdicts) {
  const int64_t b = blockIdx.x;
  const Entries entries = entries_of(f, b);
  Weighed weighed;
  for (int64_t j = entries.first + threadIdx.x; j < entries.last; j += kThreads) {
    if (!is_row(f.ids[j], f.table.n_rows)) continue;
    const double weight = f.weights == nullptr ? 1.0 : fabs(double{f.weights[j]});
    weighed.total += weight;
    weighed.error += weight * f.table.errors[f.ids[j]];
  }
  double squares = 0.0;
  for (int64_t c = threadIdx.x; c < queries.dim; c += kThreads) {
    const double x = queries.data[b * queries.dim + c];
    squares += x * x;
  }
  weighed.total = block_sum(weighed.total);
  weighed.error = block_sum(weighed.error);
  squares = block_sum(squares);
  if (threadIdx.x != 0) return;
  const double mean = f.stats.mean == nullptr ? 0.0 : f.stats.mean[b];
  const double std = f.stats.std == nullptr ? 1.0 : f.stats.std[b];
  const int64_t n = entries.last - entries.first;
  const double bound = bound_of(side, weighed, n, queries.dim, mean, std, sqrt(squares));
  // the embedding of a row without items may be anything
  const bool useless = bound == HUGE_VAL || (kEncodes != 0 && n == 0);
  verdicts.bounds[b] = bound;
  verdicts.survivors[b] = 0;
  verdicts.failed[b] = useless ? 1 : 0;
}

// Of the lanes in `hits`, whose rows lie `pitch` apart, those whose row the query has not seen.
__device__ unsigned without_seen(const TopScan& scan, int64_t b, int64_t first_row, int pitch,
                                 unsigned hits) {
  if (scan.seen_offsets == nullptr) return hits;
  unsigned kept = hits;
  for (unsigned left = hits; left != 0; left &= left - 1) {
    const int lane = __ffs(static_cast<int>(left)) - 1;
    if (has_seen(scan, b, first_row + lane * pitch)) kept &= ~(1u << lane);
  }
  return kept;
}

__device__ bool is_mine(unsigned lanes) { return (lanes >> Warp::thread() & 1) != 0; }

struct Place {  // a warp's row and share of the columns
  int64_t b, split;
};

__device__ Place place_of_warp() {
  return {blockIdx.x, int64_t{blockIdx.y} * kWarps + threadIdx.x / kWarpSize};
}

__device__ Selector selector_of(const Candidates& c, const Place& at, int64_t n_rows) {
  return {c.keys + (at.split * n_rows + at.b) * c.capacity, c.capacity, c.kept, 0, kNoKey};
}

// The best approximate values of every share.
template <int kVector>
__global__ void __launch_bounds__(kThreads, 8)
    look_kernel(TopScan scan, Folded f, Candidates candidates, const int* failed) {
  const Place at = place_of_warp();
  if (at.split >= candidates.splits) return;
  constexpr int kColumns = kWarpSize * kVector;
  Selector best = selector_of(candidates, at, scan.queries.n_rows);
  const int64_t n = failed[at.b] != 0 ? 0 : scan.rows.n_rows;
  for (int64_t first = at.split * kColumns; first < n; first += candidates.splits * kColumns) {
    const int64_t column = first + Warp::thread() * kVector;
    const Values<kVector> values = approximate<kVector>(f, scan.allowed, at.b, column);
#pragma unroll 1
    for (int v = 0; v < kVector; ++v) {
      const float value = pick(values, v);
      const Key key = isnan(value) ? kNoKey : make_key(value, column + v);
      const unsigned hits = without_seen(scan, at.b, first + v, kVector, best.hits_of(key));
      best.offer(is_mine(hits) ? key : kNoKey);
    }
  }
  best.cut();
}

// Nothing with an approximate value below it is among the best.
__device__ float line_of(const TopScan& scan, const Candidates& c, int64_t b, double bound) {
  const Key kth = c.merged[b * c.capacity + c.kept - 1];
  double line = double{scan.floor} - bound;
  if (kth != kNoKey) line = fmax(line, double{value_of(kth)} - 2.0 * bound);
  return fmaxf(-FLT_MAX, nextafterf(static_cast<float>(line), -HUGE_VALF));
}

// The dot product in the order of Fp32Product, by a warp: every lane gets it.
__device__ float dot_in_order(const float* query, const float* row, int64_t dim) {
  float sum = 0.0f;
  for (int64_t first = 0; first < dim; first += kAhead * kWarpSize) {
    float q[kAhead], r[kAhead];
#pragma unroll
    for (int s = 0; s < kAhead; ++s) {
      const int64_t c = first + s * kWarpSize + Warp::thread();
      q[s] = c < dim ? query[c] : 0.0f;
      r[s] = c < dim ? row[c] : 0.0f;
    }
#pragma unroll
    for (int s = 0; s < kAhead; ++s) {
      const int n = static_cast<int>(least<int64_t>(kWarpSize, dim - first - s * kWarpSize));
#pragma unroll 4
      for (int i = 0; i < n; ++i) {
        sum += __shfl_sync(kAllLanes, q[s], i) * __shfl_sync(kAllLanes, r[s], i);
      }
    }
  }
  return sum;
}

// A lane's exact key if it is one of `hits`, else none.
__device__ Key exact_key(const TopScan& scan, int64_t b, int64_t first_row, int pitch,
                         unsigned hits) {
  Key key = kNoKey;
  for (unsigned left = hits; left != 0; left &= left - 1) {
    const int lane = __ffs(static_cast<int>(left)) - 1;
    const int64_t row = first_row + lane * pitch, dim = scan.rows.dim;
    float value = dot_in_order(scan.queries.data + b * dim, scan.rows.data + row * dim, dim);
    value += scan.bias == nullptr ? 0.0f : scan.bias[row];
    if (lane == Warp::thread() && value > scan.floor) key = make_key(value, row);
  }
  return key;
}

// Counts the survivors of row b; true, and the row has failed, where there are more than `most`.
__device__ bool too_many(const Verdicts& verdicts, int64_t b, unsigned hits, int most) {
  int before = 0;
  if (Warp::thread() == 0) before = atomicAdd(&verdicts.survivors[b], __popc(hits));
  const bool over = __shfl_sync(kAllLanes, before, 0) + __popc(hits) > most;
  if (over && Warp::thread() == 0) atomicExch(&verdicts.failed[b], 1);
  return over;
}

// The best exact values of what every share cannot exclude.
template <int kVector>
__global__ void __launch_bounds__(kThreads, 4)
    decide_kernel(TopScan scan, Folded f, Candidates candidates, Verdicts verdicts, int most) {
  const Place at = place_of_warp();
  if (at.split >= candidates.splits) return;
  constexpr int kColumns = kWarpSize * kVector;
  Selector best = selector_of(candidates, at, scan.queries.n_rows);
  const float line = line_of(scan, candidates, at.b, verdicts.bounds[at.b]);
  // another warp may find the row failed meanwhile: whatever is kept of it then is not used
  bool go_on = __shfl_sync(kAllLanes, verdicts.failed[at.b], 0) == 0;
  const int64_t n = scan.rows.n_rows, step = candidates.splits * kColumns;
  for (int64_t first = at.split * kColumns; go_on && first < n; first += step) {
    const int64_t column = first + Warp::thread() * kVector;
    const Values<kVector> values = approximate<kVector>(f, scan.allowed, at.b, column);
#pragma unroll 1
    for (int v = 0; go_on && v < kVector; ++v) {
      unsigned hits = __ballot_sync(kAllLanes, pick(values, v) >= line);
      hits = without_seen(scan, at.b, first + v, kVector, hits);
      if (hits == 0) continue;
      go_on = !too_many(verdicts, at.b, hits, most);
      if (go_on) best.offer(exact_key(scan, at.b, first + v, kVector, hits));
    }
  }
  best.cut();
}

struct Plan {
  Verdicts verdicts;
  Candidates candidates;
};

int64_t n_splits(int64_t n_rows, int64_t n_columns) {
  const int64_t chunks = divide_up(n_columns, kWarpSize * 4);
  return least(chunks, divide_up(kWantedWarps, most<int64_t>(1, n_rows)));
}

Plan take_plan(Workspace& workspace, int64_t n_rows, int64_t n_columns, int64_t k) {
  Plan plan;
  plan.verdicts.bounds = workspace.take<double>(n_rows);
  plan.verdicts.survivors = workspace.take<int>(n_rows);
  plan.verdicts.failed = workspace.take<int>(n_rows);
  plan.candidates =
      take_candidates(workspace, n_splits(n_rows, n_columns), n_rows, least(k, n_columns));
  return plan;
}

// Rescoring more than a sixteenth of the matrix, a row at a time, costs what a dense scan does.
int most_survivors(int64_t kept, int64_t n) {
  return static_cast<int>(most(n / 16, 4 * kept + 64));
}

template <int kVector>
Status screen(const TopScan& scan, const Folded& f, const Plan& plan, void* stream) {
  const Candidates& c = plan.candidates;
  const int64_t n_rows = scan.queries.n_rows;
  const Grid grid{n_rows, divide_up(c.splits, kWarps), kThreads, 0};
  Status status = launch(look_kernel<kVector>, grid, stream, scan, f, c, plan.verdicts.failed);
  if (status != Status::kOk) return status;
  status = merge_candidates(c, n_rows, stream);
  if (status != Status::kOk) return status;
  status = launch(decide_kernel<kVector>, grid, stream, scan, f, c, plan.verdicts,
                  most_survivors(c.kept, scan.rows.n_rows));
  return status == Status::kOk ? merge_candidates(c, n_rows, stream) : status;
}

template <int kEncodes, typename Side>
Status top(const TopScan& scan, const Folded& f, const Side& side, const CodeOut& out,
           Workspace& workspace, void* stream) {
  const int64_t n_rows = scan.queries.n_rows, n = scan.rows.n_rows;
  if (n > 0x7fffffff || least(out.k, n) > 1 << 24) return Status::kTooLarge;
  const Plan plan = take_plan(workspace, n_rows, n, out.k);
  Status status = launch(bounds_kernel<kEncodes, Side>, {n_rows, 1, kThreads, 0}, stream, f, side,
                         scan.queries, plan.verdicts);
  if (status != Status::kOk) return status;
  status =
      reads_four(f.table) ? screen<4>(scan, f, plan, stream) : screen<1>(scan, f, plan, stream);
  if (status != Status::kOk) return status;
  return top_scan_of_failed(scan, out, plan.candidates, plan.verdicts.failed, workspace, stream);
}

void take_top(Workspace& workspace, int64_t n_rows, int64_t n_columns, int64_t k) {
  take_plan(workspace, n_rows, n_columns, k);
  take_top_scan_of_failed(workspace, n_rows, n_columns, k);
}

}  // namespace

int64_t folded_topk_encode_bytes(int64_t n_rows, int64_t dim, int64_t n_latents, int64_t k) {
  Workspace workspace(nullptr);
  workspace.take<float>(n_rows * dim);
  take_top(workspace, n_rows, n_latents, k);
  return workspace.bytes();
}

Status folded_topk_encode(const RowsView& rows, const FoldedEncoder& folded,
                          const Matrix& embedding, const Matrix& encoder, const float* bias,
                          const float* centre, const CodeOut& code, float* mean, float* std,
                          const Execution& execution) {
  void* const stream = execution.stream;
  Workspace workspace(execution.workspace);
  float* const centred = workspace.take<float>(embedding.n_rows * embedding.dim);
  const Status status = standardise(embedding, centre, mean, std, centred, stream);
  if (status != Status::kOk) return status;
  const Matrix queries{centred, embedding.n_rows, embedding.dim};
  const TopScan scan{queries, encoder, bias, nullptr, nullptr, nullptr, 0.0f, 0.0f};
  const Folded f{folded.products, rows.offsets,   0,       rows.items, rows.values, {mean, std},
                 folded.sums,     folded.offsets, nullptr, true};
  return top<1>(scan, f, folded, code, workspace, stream);
}

int64_t folded_recommend_bytes(int64_t n_rows, int64_t n_items, int64_t n) {
  Workspace workspace(nullptr);
  take_top(workspace, n_rows, n_items, n);
  return workspace.bytes();
}

Status folded_recommend(const CodeView& code, const StatsView& stats, const FoldedDecoder& folded,
                        const Matrix& embedding, const Matrix& items, const float* bias,
                        const RowsView* seen, const uint8_t* allowed, const CodeOut& out,
                        const Execution& execution) {
  Workspace workspace(execution.workspace);
  const TopScan scan{embedding,
                     items,
                     bias,
                     allowed,
                     seen == nullptr ? nullptr : seen->offsets,
                     seen == nullptr ? nullptr : seen->items,
                     -HUGE_VALF,
                     -HUGE_VALF};
  const Folded f{folded.products, nullptr,     code.k,        code.indices, code.values,
                 stats,           folded.sums, folded.shifts, bias,         false};
  return top<0>(scan, f, folded, out, workspace, execution.stream);
}

}  // namespace cfsae::cuda
