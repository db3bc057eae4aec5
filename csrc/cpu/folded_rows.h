// The folded ops on one row: what folded_topk_encode and folded_recommend do with each, and
// folded_answer one after the other.
#pragma once

#include <cstdint>

#include "api.h"
#include "cpu/folded_screen.h"

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
  const RowsView* seen;    // one row, or null
  const uint8_t* allowed;  // null: all
};

// mean and std: null, or one number each to be written. The screen has a column for every latent.
void encode_row(const EncodeEnd& end, const Entries& entries, const float* embedding,
                const CodeOut& code, float* mean, float* std, Screen& screen,
                const Execution& execution);

// The screen has a column for every item.
void recommend_row(const DecodeEnd& end, const CodeView& code, const StatsView& stats,
                   const float* embedding, const Asked& asked, const CodeOut& out, Screen& screen,
                   const Execution& execution);

}  // namespace cfsae::cpu
