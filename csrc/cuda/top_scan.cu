// Blocks take a tile of queries and a share of the rows. Each warp keeps the candidates of its own
// queries while tiles of products pass by; a second kernel merges the shares. The order on
// (value, index) is total, so the split decides nothing.
//
// kExact: tf32 products keep more candidates than asked for; these are rescored in fp32, and a
// query whose answer the error bound does not prove is scanned again in fp32 (top_scan_exact.h).
// kBf16: both matrices are rounded first (rounded.h), which halves what the tiles read.
#include "cuda/rounded.h"
#include "cuda/selector.h"
#include "cuda/tiles.h"
#include "cuda/top_scan.h"
#include "cuda/top_scan_exact.h"

namespace cfsae::cuda {
namespace {

constexpr int kMergeThreads = 128;
constexpr int kFewQueries = 16, kManyQueries = 64;  // of a tile
constexpr int64_t kWantedBlocks =
    264;  // two for each of 132 SMs; more splits than needed are harmless
constexpr int64_t kMostSplits = 64;

bool are_few(int64_t n_queries) { return n_queries <= kFewQueries; }

// Few queries: many shares of the rows, so that every SM reads some of them.
int64_t n_splits(int64_t n_queries, int64_t n_rows) {
  const int64_t row_tiles = divide_up(n_rows, kTileRows);
  int64_t splits = 2 * kWantedBlocks;
  if (!are_few(n_queries)) {
    splits = least(kMostSplits, divide_up(kWantedBlocks, divide_up(n_queries, kManyQueries)));
  }
  return least(splits, row_tiles);
}

struct ScanShared {
  float bias[kTileRows];
  Key floors[kManyQueries];  // of the queries' selectors
  int counts[kManyQueries];
};

// The bias of each row of the tile; -inf where the row may not be returned.
__device__ void load_bias(const TopScan& scan, int64_t first_row, ScanShared& shared) {
  for (int r = threadIdx.x; r < kTileRows; r += kTileThreads) {
    const int64_t row = first_row + r;
    const bool out = row >= scan.rows.n_rows || (scan.allowed != nullptr && !scan.allowed[row]);
    shared.bias[r] = out                    ? __uint_as_float(0xff800000u)
                     : scan.bias == nullptr ? 0.0f
                                            : scan.bias[row];
  }
}

// Offers the products of one query with the tile to its selector.
__device__ void select(const TopScan& scan, int64_t query, int64_t first_row, const float* products,
                       const ScanShared& shared, Selector& selector) {
  for (int r = Warp::thread(); r < kTileRows; r += kWarpSize) {
    const float value = products[r] + shared.bias[r];
    Key key = value > scan.floor ? make_key(value, first_row + r) : kNoKey;
    const unsigned hits = selector.hits_of(key);
    if (hits == 0) continue;
    for (unsigned left = scan.seen_offsets == nullptr ? 0 : hits; left != 0; left &= left - 1) {
      const int lane = __ffs(static_cast<int>(left)) - 1;
      const int64_t row = first_row + r - Warp::thread() + lane;
      if (has_seen(scan, query, row) && lane == Warp::thread()) key = kNoKey;
    }
    selector.offer(key);
  }
}

struct Share {  // how the rows are split, and where each split keeps a query's candidates
  int64_t tiles_per_split;
  int kept, capacity;
  Key* keys;          // (splits, queries, capacity)
  const int* failed;  // null: all queries; else only tiles with a failed query
};

template <int kQueries>
__device__ bool any_failed(const int* failed, int64_t first_query, int64_t n_queries) {
  const int64_t query = first_query + threadIdx.x;
  const bool mine = query < least(first_query + kQueries, n_queries) && failed[query] != 0;
  return __syncthreads_or(mine) != 0;
}

__device__ Selector selector_of(const Share& share, Key* keys, int64_t query, int q,
                                const ScanShared& shared) {
  return {keys + query * share.capacity, share.capacity, share.kept, shared.counts[q],
          shared.floors[q]};
}

// Warp w keeps the candidates of queries w, w + 8, ... of the tile.
template <int kQueries, typename Product>
__global__ void __launch_bounds__(kTileThreads, 2)
    scan_kernel(TopScan scan, Share share, bool vectors) {
  constexpr int kWarps = kTileThreads / kWarpSize;
  float* const products = reinterpret_cast<float*>(dynamic_shared());
  ScanShared& shared = block_shared<ScanShared>();
  const int warp = threadIdx.x / kWarpSize;
  const int64_t n_queries = scan.queries.n_rows, first_query = int64_t{blockIdx.x} * kQueries;
  if (share.failed != nullptr && !any_failed<kQueries>(share.failed, first_query, n_queries)) {
    return;
  }
  Key* const keys = share.keys + int64_t{blockIdx.y} * n_queries * share.capacity;
  if (threadIdx.x < kQueries) {
    shared.floors[threadIdx.x] = kNoKey;
    shared.counts[threadIdx.x] = 0;
  }
  const int64_t first = blockIdx.y * share.tiles_per_split * kTileRows;
  const int64_t end = least(first + share.tiles_per_split * kTileRows, scan.rows.n_rows);
  for (int64_t row = first; row < end; row += kTileRows) {
    load_bias(scan, row, shared);
    multiply_tile<kQueries, Product>({scan.queries, scan.rows, first_query, row, vectors},
                                     products);
    for (int q = warp; q < kQueries && first_query + q < n_queries; q += kWarps) {
      Selector selector = selector_of(share, keys, first_query + q, q, shared);
      select(scan, first_query + q, row, products + q * kProductPitch, shared, selector);
      if (row + kTileRows >= end) selector.cut();
      __syncwarp();  // all lanes have read what lane 0 now writes
      if (Warp::thread() == 0) {
        shared.floors[q] = selector.floor;
        shared.counts[q] = selector.count;
      }
    }
    __syncthreads();  // before the products and the bias are written over
  }
}

// A warp per query: the best of all shares, sorted, into merged (queries, capacity).
__global__ void __launch_bounds__(kMergeThreads, 8)
    merge_kernel(Share share, int64_t splits, int64_t n_queries, Key* merged) {
  const int64_t query = int64_t{blockIdx.x} * (kMergeThreads / kWarpSize) + threadIdx.x / kWarpSize;
  if (query >= n_queries) return;
  if (share.failed != nullptr && share.failed[query] == 0) return;
  Selector best{merged + query * share.capacity, share.capacity, share.kept, 0, kNoKey};
  for (int64_t split = 0; split < splits; ++split) {
    const Key* const keys = share.keys + (split * n_queries + query) * share.capacity;
    for (int first = 0; first < share.kept; first += kWarpSize) {
      best.offer(keys[first + Warp::thread()]);  // those from `kept` on are candidates as well
    }
  }
  best.cut();
}

// A thread per slot of the result.
__global__ void __launch_bounds__(kMergeThreads)
    write_kernel(const Key* merged, int capacity, float empty, const int* failed, CodeOut out) {
  const int64_t i = int64_t{blockIdx.x} * kMergeThreads + threadIdx.x;
  if (i >= out.n_rows * out.k) return;
  const int64_t query = i / out.k, slot = i % out.k;
  if (failed != nullptr && failed[query] == 0) return;
  const Key key = slot < capacity ? merged[query * capacity + slot] : kNoKey;
  out.indices[i] = key == kNoKey ? kPadding : index_of(key);
  out.values[i] = key == kNoKey ? empty : value_of(key);
}

struct Plan {
  Share share;
  int64_t splits;
  Key* merged;  // (queries, capacity)
};

Plan take_plan(Workspace& workspace, int64_t n_queries, int64_t n_rows, int64_t kept) {
  Plan plan;
  plan.splits = n_splits(n_queries, n_rows);
  const int64_t tiles = divide_up(n_rows, kTileRows);
  plan.share.tiles_per_split = divide_up(tiles, plan.splits);
  plan.splits = divide_up(tiles, plan.share.tiles_per_split);  // none of them empty
  plan.share.kept = static_cast<int>(kept);
  plan.share.capacity = selector_capacity(kept);
  plan.share.keys = workspace.take<Key>(plan.splits * n_queries * plan.share.capacity);
  plan.share.failed = nullptr;
  plan.merged = workspace.take<Key>(n_queries * plan.share.capacity);
  return plan;
}

// Scans and merges: the best plan.share.kept of every query, or of the failed ones, in plan.merged.
template <int kQueries, typename Product>
Status scan_with(const TopScan& scan, const Plan& plan, void* stream) {
  const bool vectors = is_vectorizable(scan.queries.data, scan.queries.dim) &&
                       is_vectorizable(scan.rows.data, scan.rows.dim);
  const int64_t n_queries = scan.queries.n_rows;
  const Status status =
      launch(scan_kernel<kQueries, Product>,
             {divide_up(n_queries, kQueries), plan.splits, kTileThreads, tile_bytes<kQueries>()},
             stream, scan, plan.share, vectors);
  if (status != Status::kOk) return status;
  return launch(merge_kernel,
                {divide_up(n_queries, kMergeThreads / kWarpSize), 1, kMergeThreads, 0}, stream,
                plan.share, plan.splits, n_queries, plan.merged);
}

Status scan_fp32(const TopScan& scan, const Plan& plan, void* stream) {
  return are_few(scan.queries.n_rows)
             ? scan_with<kFewQueries, Fp32Product<kFewQueries>>(scan, plan, stream)
             : scan_with<kManyQueries, Fp32Product<kManyQueries>>(scan, plan, stream);
}

Status write(const Plan& plan, const TopScan& scan, const CodeOut& out, void* stream) {
  return launch(write_kernel, {divide_up(out.n_rows * out.k, kMergeThreads), 1, kMergeThreads, 0},
                stream, plan.merged, plan.share.capacity, scan.empty, plan.share.failed, out);
}

// Tensor cores pay from a tile of queries on; few queries are bound by reading the rows once.
bool uses_tensor_cores(Precision precision, int64_t n_queries, int64_t kept) {
  return precision != Precision::kFp32 && !are_few(n_queries) && kept <= kMostRescored;
}

Status scan_exact(TopScan scan, const CodeOut& out, int64_t kept, Workspace& workspace,
                  void* stream) {
  const float floor = scan.floor;
  Plan plan =
      take_plan(workspace, scan.queries.n_rows, scan.rows.n_rows, rescored(kept, scan.rows.n_rows));
  const Rescore rescore =
      take_rescore(workspace, scan, plan.merged, plan.share.kept, plan.share.capacity);
  Status status = row_norms(scan, rescore, stream);
  if (status != Status::kOk) return status;
  scan.floor = -HUGE_VALF;  // what tf32 puts just below the floor may stand above it
  status = scan_with<kManyQueries, Tf32Product<kManyQueries>>(scan, plan, stream);
  if (status != Status::kOk) return status;
  scan.floor = floor;
  status = rescore_and_prove(scan, rescore, out, stream);
  if (status != Status::kOk) return status;
  plan.share.failed = rescore.failed;  // usually none: their blocks leave at once
  status = scan_fp32(scan, plan, stream);
  return status == Status::kOk ? write(plan, scan, out, stream) : status;
}

// Unproven products on tensor cores.
Status scan_tensor(TopScan scan, const CodeOut& out, int64_t kept, Precision precision,
                   Workspace& workspace, void* stream) {
  const Plan plan = take_plan(workspace, scan.queries.n_rows, scan.rows.n_rows, kept);
  Status status = Status::kOk;
  if (precision == Precision::kBf16) {
    for (Matrix* const matrix : {&scan.queries, &scan.rows}) {
      const Matrix rounded = take_rounded(workspace, matrix->n_rows, matrix->dim);
      if (status == Status::kOk) status = round_matrix(*matrix, rounded, stream);
      *matrix = rounded;
    }
    if (status != Status::kOk) return status;
    status = scan_with<kManyQueries, Bf16Product<kManyQueries>>(scan, plan, stream);
  } else {
    status = scan_with<kManyQueries, Tf32Product<kManyQueries>>(scan, plan, stream);
  }
  return status == Status::kOk ? write(plan, scan, out, stream) : status;
}

}  // namespace

Candidates take_candidates(Workspace& workspace, int64_t splits, int64_t n_queries, int64_t kept) {
  Candidates candidates;
  candidates.splits = splits;
  candidates.kept = static_cast<int>(kept);
  candidates.capacity = selector_capacity(kept);
  candidates.keys = workspace.take<Key>(splits * n_queries * candidates.capacity);
  candidates.merged = workspace.take<Key>(n_queries * candidates.capacity);
  return candidates;
}

Status merge_candidates(const Candidates& candidates, int64_t n_queries, void* stream) {
  const Share share{0, candidates.kept, candidates.capacity, candidates.keys, nullptr};
  return launch(merge_kernel,
                {divide_up(n_queries, kMergeThreads / kWarpSize), 1, kMergeThreads, 0}, stream,
                share, candidates.splits, n_queries, candidates.merged);
}

void take_top_scan_of_failed(Workspace& workspace, int64_t n_queries, int64_t n_rows, int64_t k) {
  take_plan(workspace, n_queries, n_rows, least(k, n_rows));
}

Status top_scan_of_failed(const TopScan& scan, const CodeOut& out, const Candidates& candidates,
                          const int* failed, Workspace& workspace, void* stream) {
  Plan plan = take_plan(workspace, scan.queries.n_rows, scan.rows.n_rows, candidates.kept);
  plan.merged = candidates.merged;
  plan.share.failed = failed;
  const Status status = scan_fp32(scan, plan, stream);
  plan.share.failed = nullptr;
  return status == Status::kOk ? write(plan, scan, out, stream) : status;
}

void take_top_scan(Workspace& workspace, int64_t n_queries, int64_t dim, int64_t n_rows, int64_t k,
                   Precision precision) {
  const int64_t kept = least(k, n_rows);
  const bool tensor_cores = uses_tensor_cores(precision, n_queries, kept);
  const bool exact = tensor_cores && precision == Precision::kExact;
  const Plan plan = take_plan(workspace, n_queries, n_rows, exact ? rescored(kept, n_rows) : kept);
  TopScan sizes{};
  sizes.queries.n_rows = n_queries;
  if (exact) take_rescore(workspace, sizes, plan.merged, plan.share.kept, plan.share.capacity);
  if (!tensor_cores || precision != Precision::kBf16) return;
  take_rounded(workspace, n_queries, dim);
  take_rounded(workspace, n_rows, dim);
}

Status top_scan(const TopScan& scan, const CodeOut& out, Precision precision, Workspace& workspace,
                void* stream) {
  const int64_t kept = least(out.k, scan.rows.n_rows);
  if (scan.rows.n_rows > 0x7fffffff || kept > 1 << 24) return Status::kTooLarge;
  if (uses_tensor_cores(precision, scan.queries.n_rows, kept)) {
    return precision == Precision::kExact
               ? scan_exact(scan, out, kept, workspace, stream)
               : scan_tensor(scan, out, kept, precision, workspace, stream);
  }
  const Plan plan = take_plan(workspace, scan.queries.n_rows, scan.rows.n_rows, kept);
  const Status status = scan_fp32(scan, plan, stream);
  return status == Status::kOk ? write(plan, scan, out, stream) : status;
}

}  // namespace cfsae::cuda
