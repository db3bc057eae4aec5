// Least significant digit first, 8 bits a pass, as many passes as the number of targets needs. Each
// pass: count the digits of every tile, scan the counts (digit by digit, tile by tile), scatter.
// Within a tile entries keep their order: rounds of 256, warps in order, lanes in order.
#include "cuda/grouped.h"

namespace cfsae::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarpSize;
constexpr int kDigitBits = 8, kDigits = 1 << kDigitBits;
constexpr int kTile = 8 * kThreads;

int64_t n_tiles(int64_t n) { return divide_up(n, kTile); }

int n_passes(int64_t n_targets) {  // the largest key is n_targets: skipped entries
  int passes = 1;
  while (n_targets >> (passes * kDigitBits) != 0) ++passes;
  return passes;
}

__device__ __forceinline__ int digit_of(uint32_t key, int shift) {
  return static_cast<int>(key >> shift & (kDigits - 1));
}

__global__ void __launch_bounds__(kThreads)
    start_kernel(Entries entries, uint32_t* keys, uint32_t* order) {
  const int64_t j = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (j >= entries.n) return;
  const bool outside = entries.offsets != nullptr &&
                       (j < entries.offsets[0] || j >= entries.offsets[entries.n_rows]);
  const uint32_t target = static_cast<uint32_t>(entries.targets[j]);
  const uint32_t none = static_cast<uint32_t>(entries.n_targets);
  keys[j] = outside ? none : least(target, none);
  order[j] = static_cast<uint32_t>(j);
}

struct DigitCounts {
  uint32_t of[kDigits];
};

__global__ void __launch_bounds__(kThreads)
    count_kernel(const uint32_t* keys, int64_t n, int shift, uint32_t* counts) {
  DigitCounts& mine = block_shared<DigitCounts>();
  mine.of[threadIdx.x] = 0;
  __syncthreads();
  const int64_t first = int64_t{blockIdx.x} * kTile;
  for (int64_t j = first + threadIdx.x; j < first + kTile && j < n; j += kThreads) {
    atomicAdd(&mine.of[digit_of(keys[j], shift)], 1u);  // a count: the order is of no account
  }
  __syncthreads();
  counts[int64_t{threadIdx.x} * gridDim.x + blockIdx.x] = mine.of[threadIdx.x];
}

struct ScanSums {
  uint32_t of[kWarps];
};

// Exclusive sums of all counts in place; one block, 256 at a time with a carry. n: tiles of 256.
__global__ void __launch_bounds__(kThreads) scan_kernel(uint32_t* counts, int64_t n) {
  ScanSums& sums = block_shared<ScanSums>();
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  uint32_t carry = 0;
  for (int64_t first = 0; first < n; first += kThreads) {
    const int64_t i = first + threadIdx.x;
    const uint32_t own = counts[i];
    uint32_t sum = own;
    for (int step = 1; step < kWarpSize; step *= 2) {
      const uint32_t below = __shfl_up_sync(kAllLanes, sum, step);
      if (lane >= step) sum += below;
    }
    if (lane == kWarpSize - 1) sums.of[warp] = sum;
    __syncthreads();
    uint32_t before = carry;
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) before += sums.of[w];
      carry += sums.of[w];
    }
    counts[i] = before + sum - own;
    __syncthreads();  // before the sums are written again
  }
}

struct ScatterShared {
  uint32_t next[kDigits];             // where the tile's next entry of a digit goes
  uint32_t of_warp[kWarps][kDigits];  // counts of the round, then starts
};

__global__ void __launch_bounds__(kThreads)
    scatter_kernel(const uint32_t* keys, const uint32_t* order, int64_t n, int shift,
                   const uint32_t* starts, uint32_t* keys_out, uint32_t* order_out) {
  ScatterShared& shared = block_shared<ScatterShared>();
  const int t = threadIdx.x, lane = t % kWarpSize, warp = t / kWarpSize;
  shared.next[t] = starts[int64_t{t} * gridDim.x + blockIdx.x];
  for (int w = 0; w < kWarps; ++w) shared.of_warp[w][t] = 0;
  __syncthreads();
  const int64_t first = int64_t{blockIdx.x} * kTile, end = least(first + kTile, n);
  for (int64_t round = first; round < end; round += kThreads) {
    const int64_t j = round + t;
    const bool valid = j < n;
    const uint32_t key = valid ? keys[j] : 0;
    const int digit = valid ? digit_of(key, shift) : kDigits;
    const unsigned peers = __match_any_sync(kAllLanes, digit);
    const int rank = __popc(peers & ((1u << lane) - 1));
    if (valid && rank == 0) shared.of_warp[warp][digit] = __popc(peers);
    __syncthreads();
    for (int w = 0; w < kWarps; ++w) {  // thread t owns digit t
      const uint32_t count = shared.of_warp[w][t];
      shared.of_warp[w][t] = shared.next[t];
      shared.next[t] += count;
    }
    __syncthreads();
    if (valid) {
      const int64_t to = int64_t{shared.of_warp[warp][digit]} + rank;
      keys_out[to] = key;
      order_out[to] = order[j];
    }
    __syncthreads();
    for (int w = 0; w < kWarps; ++w) shared.of_warp[w][t] = 0;
    __syncthreads();
  }
}

// The row of entry j: the last one that starts at or before it.
__device__ int64_t row_of(const Entries& entries, int64_t j) {
  if (entries.offsets == nullptr) return j / entries.width;
  int64_t low = 0, high = entries.n_rows;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (entries.offsets[middle] <= j ? low : high) = middle;
  }
  return low;
}

__global__ void __launch_bounds__(kThreads)
    entries_kernel(Entries entries, const uint32_t* order, int32_t* rows, float* weights) {
  const int64_t p = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (p >= entries.n) return;
  const int64_t j = order[p];
  const int64_t row = row_of(entries, j);
  const float value = entries.values == nullptr ? 1.0f : entries.values[j];
  rows[p] = static_cast<int32_t>(row);
  weights[p] = entries.scale == nullptr ? value : value * entries.scale[row];
}

// starts[t]: how many keys are smaller than t.
__global__ void __launch_bounds__(kThreads)
    starts_kernel(const uint32_t* keys, int64_t n, int64_t n_targets, int64_t* starts) {
  const int64_t t = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (t > n_targets) return;
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (keys[middle] < t) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  starts[t] = low;
}

__global__ void __launch_bounds__(kThreads)
    weight_sums_kernel(Grouped grouped, int64_t n_targets, float* out) {
  const int64_t t = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (t >= n_targets) return;
  float sum = 0.0f;
  for (int64_t p = grouped.starts[t]; p < grouped.starts[t + 1]; ++p) sum += grouped.weights[p];
  out[t] = sum;
}

Status sort_pass(const Grouped& g, int64_t n, int pass, void* stream) {
  const int from = pass % 2, to = 1 - from, shift = pass * kDigitBits;
  const int64_t tiles = n_tiles(n);
  Status status =
      launch(count_kernel, {tiles, 1, kThreads, 0}, stream, g.keys[from], n, shift, g.counts);
  if (status != Status::kOk) return status;
  status = launch(scan_kernel, {1, 1, kThreads, 0}, stream, g.counts, tiles * kDigits);
  if (status != Status::kOk) return status;
  return launch(scatter_kernel, {tiles, 1, kThreads, 0}, stream, g.keys[from], g.order[from], n,
                shift, g.counts, g.keys[to], g.order[to]);
}

}  // namespace

Grouped take_grouped(Workspace& workspace, int64_t n, int64_t n_targets) {
  Grouped g;
  g.starts = workspace.take<int64_t>(n_targets + 1);
  g.rows = workspace.take<int32_t>(n);
  g.weights = workspace.take<float>(n);
  for (uint32_t*& keys : g.keys) keys = workspace.take<uint32_t>(n);
  for (uint32_t*& order : g.order) order = workspace.take<uint32_t>(n);
  g.counts = workspace.take<uint32_t>(n_tiles(n) * kDigits);
  return g;
}

Status group(const Entries& entries, const Grouped& g, void* stream) {
  const int64_t n = entries.n, blocks = divide_up(n, kThreads);
  if (n > 0xffffffff || entries.n_targets > 0x7fffffff) return Status::kTooLarge;
  Status status =
      launch(start_kernel, {blocks, 1, kThreads, 0}, stream, entries, g.keys[0], g.order[0]);
  const int passes = n_passes(entries.n_targets);
  for (int pass = 0; pass < passes && status == Status::kOk; ++pass) {
    status = sort_pass(g, n, pass, stream);
  }
  if (status != Status::kOk) return status;
  status = launch(entries_kernel, {blocks, 1, kThreads, 0}, stream, entries, g.order[passes % 2],
                  g.rows, g.weights);
  if (status != Status::kOk) return status;
  return launch(starts_kernel, {divide_up(entries.n_targets + 1, kThreads), 1, kThreads, 0}, stream,
                g.keys[passes % 2], n, entries.n_targets, g.starts);
}

Status weight_sums(const Grouped& grouped, int64_t n_targets, float* out, void* stream) {
  return launch(weight_sums_kernel, {divide_up(n_targets, kThreads), 1, kThreads, 0}, stream,
                grouped, n_targets, out);
}

}  // namespace cfsae::cuda
