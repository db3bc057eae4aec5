// The folded kernels for AVX-512.
#include "cpu/folded_kernels_template.h"

namespace cfsae::cpu {

const FoldedKernels& folded_kernels_avx512() {
  static constexpr FoldedKernels kKernels = make_folded_kernels<16>();
  return kKernels;
}

}  // namespace cfsae::cpu
