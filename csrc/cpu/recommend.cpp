// Top-N of embedding @ items.T + bias without seen and disallowed items, by tiles.
#include <limits>

#include "api.h"
#include "cpu/scratch.h"
#include "cpu/top_scan.h"

namespace cfsae::cpu {

Status recommend(const Matrix& embedding, const Matrix& items, const float* bias,
                 const RowsView* seen, const uint8_t* allowed, const CodeOut& out,
                 const Execution& execution) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  return guarded([&] {
    top_scan({embedding, items, bias, allowed, seen, kNothing, kNothing}, out, execution);
  });
}

}  // namespace cfsae::cpu
