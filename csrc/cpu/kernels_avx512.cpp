// Kernels for AVX-512 F/BW/DQ/VL: 8 x 2 accumulators of the 32 registers.
#include "cpu/kernels_template.h"

namespace cfsae::cpu {

const Kernels& kernels_avx512() {
  static constexpr Kernels kKernels = make_kernels<16, 8, 2>();
  return kKernels;
}

}  // namespace cfsae::cpu
