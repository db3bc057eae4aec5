// Chooses the folded kernels as kernels.cpp chooses the others.
#include "cpu/folded_kernels.h"

namespace cfsae::cpu {

const FoldedKernels& folded_kernels(Isa isa) {
#if defined(__x86_64__)
  static const Isa best = supports(Isa::kAvx512Vnni) ? Isa::kAvx512Vnni
                          : supports(Isa::kAvx512)   ? Isa::kAvx512
                          : supports(Isa::kAvx2)     ? Isa::kAvx2
                                                     : Isa::kBaseline;
  const Isa wanted = isa == Isa::kBest || !supports(isa) ? best : isa;
  if (wanted == Isa::kAvx512Vnni) return folded_kernels_avx512vnni();
  if (wanted == Isa::kAvx512) return folded_kernels_avx512();
  if (wanted == Isa::kAvx2) return folded_kernels_avx2();
#else
  (void)isa;
#endif
  return folded_kernels_baseline();
}

}  // namespace cfsae::cpu
