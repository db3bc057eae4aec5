// Kernels for whatever the compiler targets by default: SSE2 on x86-64, NEON on Arm.
#include "cpu/kernels_template.h"

namespace cfsae::cpu {

const Kernels& kernels_baseline() {
#if defined(__x86_64__)
  static constexpr Kernels kKernels = make_kernels<4, 4, 2>();  // 16 registers
#else
  static constexpr Kernels kKernels = make_kernels<4, 8, 2>();  // 32 registers
#endif
  return kKernels;
}

}  // namespace cfsae::cpu
