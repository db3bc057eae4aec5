// Rescoring: candidates that tf32 products chose become an exact fp32 answer, or a failed query.
#pragma once

#include "cuda/ordered.h"
#include "cuda/top_scan.h"

namespace cfsae::cuda {

inline constexpr int64_t kMostRescored = 512;  // k up to here

// Candidates per query. The more, the wider the gap that the error bound may not exceed.
inline int64_t rescored(int64_t kept, int64_t n_rows) {
  return least(n_rows, most(2 * kept, kept + 32));
}

struct Rescore {
  const Key* candidates;  // (queries, capacity), sorted, `kept` of them
  int kept, capacity;
  float* query_norms;  // (queries)
  unsigned* row_norm;  // the largest norm of a row, as bits
  int* failed;         // (queries): not proven
};

Rescore take_rescore(Workspace& workspace, const TopScan& scan, const Key* candidates, int kept,
                     int capacity);
Status row_norms(const TopScan& scan, const Rescore& rescore, void* stream);
Status rescore_and_prove(const TopScan& scan, const Rescore& rescore, const CodeOut& out,
                         void* stream);

}  // namespace cfsae::cuda
