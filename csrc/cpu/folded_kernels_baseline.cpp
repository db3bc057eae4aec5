// The folded kernels for whatever the compiler targets by default.
#include "cpu/folded_kernels_template.h"

namespace cfsae::cpu {

const FoldedKernels& folded_kernels_baseline() {
  static constexpr FoldedKernels kKernels = make_folded_kernels<4>();
  return kKernels;
}

}  // namespace cfsae::cpu
