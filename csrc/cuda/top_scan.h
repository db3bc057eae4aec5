// The k best rows of a matrix for every query, without a (queries, rows) product ever in memory:
// what topk_encode and recommend share.
#pragma once

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

void take_top_scan(Workspace& workspace, int64_t n_queries, int64_t dim, int64_t n_rows, int64_t k,
                   Precision precision);
Status top_scan(const TopScan& scan, const CodeOut& out, Precision precision, Workspace& workspace,
                void* stream);

}  // namespace cfsae::cuda
