// A row that the tf32 scan dropped has a tf32 value of at most the last candidate's, and an exact
// value of at most that plus a bound on the rounding of its products (Cauchy and Schwarz). If the
// k-th exact value stands above, no dropped row belongs to the answer.
#include "cuda/reduce.h"
#include "cuda/top_scan_exact.h"

namespace cfsae::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarpSize;
// Each factor is rounded to 11 bits: twice 2^-11, and the product of both; sums lose 2^-22 a term.
constexpr float kRounding = 1.0f / 1024 + 1.0f / (1 << 22), kPerTerm = 1.0f / (1 << 22);
constexpr float kSlack = 1.0f / (1 << 20);  // of adding the bias, relative

__global__ void __launch_bounds__(kThreads)
    query_norms_kernel(Matrix queries, float* norms, unsigned* row_norm) {
  const int64_t q = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarpSize;
  if (blockIdx.x == 0 && threadIdx.x == 0) *row_norm = 0;
  if (q >= queries.n_rows) return;
  const float* const row = queries.data + q * queries.dim;
  const float square = warp_dot(row, row, queries.dim);
  if (threadIdx.x % kWarpSize == 0) norms[q] = sqrtf(square);
}

// The largest of non-negative floats is the largest of their bits; a NaN is larger still.
__global__ void __launch_bounds__(kThreads) row_norm_kernel(Matrix rows, unsigned* row_norm) {
  const int64_t r = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarpSize;
  if (r >= rows.n_rows) return;
  const float* const row = rows.data + r * rows.dim;
  const float square = warp_dot(row, row, rows.dim);
  if (threadIdx.x % kWarpSize == 0) {
    atomicMax(row_norm, __float_as_uint(sqrtf(square)) & 0x7fffffffu);
  }
}

// Exact keys of the candidates of one query, sorted, in shared memory.
__device__ void rescore(const TopScan& scan, const Rescore& r, int64_t query, Key* keys) {
  const Key* const candidates = r.candidates + query * r.capacity;
  const float* const q = scan.queries.data + query * scan.queries.dim;
  for (int i = threadIdx.x / kWarpSize; i < r.capacity; i += kWarps) {
    const Key candidate = i < r.kept ? candidates[i] : kNoKey;  // the same for the whole warp
    Key key = kNoKey;
    if (candidate != kNoKey) {
      const int64_t row = index_of(candidate);
      float value = warp_dot(q, scan.rows.data + row * scan.rows.dim, scan.rows.dim);
      if (scan.bias != nullptr) value += scan.bias[row];
      if (value > scan.floor) key = make_key(value, row);
    }
    if (threadIdx.x % kWarpSize == 0) keys[i] = key;
  }
  sort_descending<WholeBlock>(keys, r.capacity);
}

// Whether no dropped row can belong to the k best.
__device__ bool is_proven(const TopScan& scan, const Rescore& r, int64_t query, const Key* keys,
                          int64_t k) {
  const Key last = r.candidates[query * r.capacity + r.kept - 1];
  if (r.kept == scan.rows.n_rows || last == kNoKey) return true;  // nothing was dropped
  const float norms = r.query_norms[query] * __uint_as_float(*r.row_norm);
  const float dim = static_cast<float>(scan.rows.dim);
  const Key kth = keys[k - 1];  // what was dropped leaves more than k candidates
  const float worst = kth == kNoKey ? scan.floor : value_of(kth);
  const float bound =
      (kRounding + kPerTerm * dim) * norms + kSlack * (fabsf(value_of(last)) + fabsf(worst));
  return value_of(last) + bound < worst;  // false if anything is NaN
}

__global__ void __launch_bounds__(kThreads) rescore_kernel(TopScan scan, Rescore r, CodeOut out) {
  Key* const keys = reinterpret_cast<Key*>(dynamic_shared());
  const int64_t query = blockIdx.x;
  rescore(scan, r, query, keys);
  for (int64_t j = threadIdx.x; j < out.k; j += kThreads) {
    const Key key = j < r.capacity ? keys[j] : kNoKey;
    out.indices[query * out.k + j] = key == kNoKey ? kPadding : index_of(key);
    out.values[query * out.k + j] = key == kNoKey ? scan.empty : value_of(key);
  }
  if (threadIdx.x == 0) r.failed[query] = is_proven(scan, r, query, keys, out.k) ? 0 : 1;
}

}  // namespace

Rescore take_rescore(Workspace& workspace, const TopScan& scan, const Key* candidates, int kept,
                     int capacity) {
  Rescore r;
  r.candidates = candidates;
  r.kept = kept;
  r.capacity = capacity;
  r.query_norms = workspace.take<float>(scan.queries.n_rows);
  r.row_norm = workspace.take<unsigned>(1);
  r.failed = workspace.take<int>(scan.queries.n_rows);
  return r;
}

Status row_norms(const TopScan& scan, const Rescore& r, void* stream) {
  const Status status =
      launch(query_norms_kernel, {divide_up(scan.queries.n_rows, kWarps), 1, kThreads, 0}, stream,
             scan.queries, r.query_norms, r.row_norm);
  if (status != Status::kOk) return status;
  return launch(row_norm_kernel, {divide_up(scan.rows.n_rows, kWarps), 1, kThreads, 0}, stream,
                scan.rows, r.row_norm);
}

Status rescore_and_prove(const TopScan& scan, const Rescore& r, const CodeOut& out, void* stream) {
  return launch(rescore_kernel,
                {scan.queries.n_rows, 1, kThreads, r.capacity * int64_t{sizeof(Key)}}, stream, scan,
                r, out);
}

}  // namespace cfsae::cuda
