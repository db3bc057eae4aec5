// top_scan in two passes: 8-bit products and their error bounds exclude nearly all rows, and what
// is left is decided in fp32 by the same sums as a scan of few queries, to the bit.
#pragma once

#include "cpu/top_scan.h"

namespace cfsae::cpu {

// Whether the machine can and the shape makes it pay: a matrix that was quantised before always,
// others where many queries share the cost.
bool screening_pays(const TopScan& scan, const Execution& execution);

// False, with nothing written: the numbers are not ones that can be bounded.
bool screened_scan(const TopScan& scan, const CodeOut& out, const Execution& execution);

}  // namespace cfsae::cpu
