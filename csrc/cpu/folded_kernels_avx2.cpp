// The folded kernels for AVX2 + FMA.
#include "cpu/folded_kernels_template.h"

namespace cfsae::cpu {

const FoldedKernels& folded_kernels_avx2() {
  static constexpr FoldedKernels kKernels = make_folded_kernels<8>();
  return kKernels;
}

}  // namespace cfsae::cpu
