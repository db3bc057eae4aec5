// For every query the k best rows of a matrix by dot product + bias: the heart of topk_encode and
// recommend. Products live in registers and L2 only; (queries, rows) is never stored.
#pragma once

#include <cstdint>

#include "api.h"

namespace cfsae::cpu {

struct TopScan {
  Matrix queries, rows;
  const float* bias;       // per row of the matrix; null: 0
  const uint8_t* allowed;  // per row of the matrix; null: all
  const RowsView* seen;    // per query, rows that must not come back; null: none
  float floor;             // only values above it are kept; NaN never is
  float empty;             // the value of an empty slot
};

// Writes the out.k best, sorted by value descending, ties to the smaller index.
void top_scan(const TopScan& scan, const CodeOut& out, const Execution& execution);

// The same in fp32 throughout.
void exact_scan(const TopScan& scan, const CodeOut& out, const Execution& execution);

}  // namespace cfsae::cpu
