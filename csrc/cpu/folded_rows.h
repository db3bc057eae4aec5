// The folded ops on one row: what folded_topk_encode and folded_recommend do with each, and
// folded_answer one after the other.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "api.h"
#include "cpu/folded_screen.h"
#include "cpu/scratch.h"
#include "parallel.h"

namespace cfsae::cpu {

struct EncodeEnd {
  const FoldedEncoder& folded;
  const Matrix& encoder;
  const float *bias, *centre;
};

struct DecodeEnd {
  const FoldedDecoder& folded;
  const Matrix& items;
  const float* bias;  // null: 0
};

struct Entries {  // of one history
  const int32_t* items;
  const float* values;  // null: all 1
  int64_t n;
};

inline Entries entries_of(const RowsView& rows, int64_t b) {
  const int64_t first = rows.offsets[b];
  return {rows.items + first, rows.values == nullptr ? nullptr : rows.values + first,
          rows.offsets[b + 1] - first};
}

struct Asked {
  bool masked;
  RowsView seen;           // of one row, if masked
  const uint8_t* allowed;  // null: all

  const RowsView* hidden() const { return masked ? &seen : nullptr; }
};

// body(b, worker's own) for every row: rows in parallel where there are several, else one row whose
// columns may be. make(how) makes what a worker keeps from row to row.
template <typename Make, typename Body>
void for_each_row(int64_t n_rows, int64_t operations, const Execution& execution, const Make& make,
                  const Body& body) {
  const bool alone = n_rows <= 1;
  const Execution how{alone ? execution.threads : 1, execution.isa};
  const int workers = alone ? 1 : workers_for(operations, execution.threads);
  std::vector<decltype(make(how))> own(workers);
  parallel_for(n_rows, workers, [&](int64_t b, int worker) {
    if (!own[worker]) own[worker] = make(how);
    body(b, *own[worker], how);
  });
}

// mean and std: null, or one number each to be written. The screen has a column for every latent.
void encode_row(const EncodeEnd& end, const Entries& entries, const float* embedding,
                const CodeOut& code, float* mean, float* std, Screen& screen,
                const Execution& execution);

// The screen has a column for every item.
void recommend_row(const DecodeEnd& end, const CodeView& code, const StatsView& stats,
                   const float* embedding, const Asked& asked, const CodeOut& out, Screen& screen,
                   const Execution& execution);

}  // namespace cfsae::cpu
