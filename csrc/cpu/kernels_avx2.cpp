// Kernels for AVX2 + FMA: 6 x 2 accumulators of the 16 registers.
#include "cpu/kernels_template.h"

namespace cfsae::cpu {

const Kernels& kernels_avx2() {
  static constexpr Kernels kKernels = make_kernels<8, 6, 2>();
  return kKernels;
}

}  // namespace cfsae::cpu
