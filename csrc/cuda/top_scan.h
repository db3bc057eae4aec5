// The k best rows of a matrix for every query, without a (queries, rows) product ever in memory:
// what topk_encode and recommend share.
#pragma once

#include "cuda/ordered.h"
#include "cuda/platform.h"
#include "cuda/workspace.h"

namespace cfsae::cuda {

struct TopScan {
  Matrix queries, rows;
  const float* bias;            // of the rows; null: 0
  const uint8_t* allowed;       // of the rows; null: all
  const int64_t* seen_offsets;  // rows never returned for a query; null: none
  const int32_t* seen_items;
  float floor;  // values must be above it
  float empty;  // value of an empty slot
};

// Whether the query has seen the row, asked by the whole warp at once.
__device__ inline bool has_seen(const TopScan& scan, int64_t query, int64_t row) {
  bool found = false;
  for (int64_t j = scan.seen_offsets[query] + Warp::thread(); j < scan.seen_offsets[query + 1];
       j += kWarpSize) {
    found |= scan.seen_items[j] == row;
  }
  return __any_sync(kAllLanes, found) != 0;
}

// What each of `splits` parts of the rows offers to every query, and the best of all.
struct Candidates {
  int64_t splits;
  int kept, capacity;  // of a query: `kept` keys, sorted, in an array of `capacity`
  Key *keys, *merged;  // (splits, queries, capacity), (queries, capacity)
};

Candidates take_candidates(Workspace& workspace, int64_t splits, int64_t n_queries, int64_t kept);
Status merge_candidates(const Candidates& candidates, int64_t n_queries, void* stream);

void take_top_scan(Workspace& workspace, int64_t n_queries, int64_t dim, int64_t n_rows, int64_t k,
                   Precision precision);
Status top_scan(const TopScan& scan, const CodeOut& out, Precision precision, Workspace& workspace,
                void* stream);

// out from candidates.merged, where failed queries first get what a scan in fp32 finds.
void take_top_scan_of_failed(Workspace& workspace, int64_t n_queries, int64_t n_rows, int64_t k);
Status top_scan_of_failed(const TopScan& scan, const CodeOut& out, const Candidates& candidates,
                          const int* failed, Workspace& workspace, void* stream);

}  // namespace cfsae::cuda
