// A sparse matrix turned round on the device: for every target the rows that name it, in rising
// order. A stable radix sort by target, so that gradients are gathered deterministically.
#pragma once

#include "cuda/platform.h"
#include "cuda/workspace.h"

namespace cfsae::cuda {

struct Entries {  // entry j: row, target (out of range: skipped) and weight
  int64_t n, n_targets;
  const int64_t* offsets;  // of n_rows rows, outside: skipped; null: row j / width
  int64_t n_rows, width;
  const int32_t* targets;
  const float* values;  // null: 1
  const float* scale;   // per row, multiplies the value; null: 1
};

struct Grouped {  // target t owns rows and weights starts[t] .. starts[t + 1]
  int64_t* starts;
  int32_t* rows;
  float* weights;
  uint32_t *keys[2], *order[2], *counts;  // of the sort
};

Grouped take_grouped(Workspace& workspace, int64_t n, int64_t n_targets);
Status group(const Entries& entries, const Grouped& grouped, void* stream);

// out[t] = sum of the weights of target t.
Status weight_sums(const Grouped& grouped, int64_t n_targets, float* out, void* stream);

}  // namespace cfsae::cuda
