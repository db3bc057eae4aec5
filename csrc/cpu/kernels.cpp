// Chooses the instruction set at run time: a kernel that the machine lacks is never called.
#include "cpu/kernels.h"

#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace cfsae::cpu {
namespace {

// CFSAE_ISA names the highest instruction set that may be used; unset or unknown: any.
bool allowed(Isa isa) {
  static const Isa highest = [] {
    const char* const wanted = std::getenv("CFSAE_ISA");
    for (const Isa known : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
      if (wanted != nullptr && std::strcmp(wanted, name_of(known)) == 0) return known;
    }
    return Isa::kAvx512Vnni;
  }();
  return isa <= highest;
}

}  // namespace

bool supports(Isa isa) {
  if (!allowed(isa)) return false;
#if defined(__x86_64__)
  switch (isa) {
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::kAvx512:
      return supports(Isa::kAvx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl");
    case Isa::kAvx512Vnni:
      return supports(Isa::kAvx512) && __builtin_cpu_supports("avx512vnni");
    default:
      return true;
  }
#else
  return isa == Isa::kBest || isa == Isa::kBaseline;
#endif
}

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Vnni:
      return "avx512vnni";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kBaseline:
      return "baseline";
    default:
      return "best";
  }
}

const Kernels& kernels(Isa isa) {
#if defined(__x86_64__)
  static const Isa best = supports(Isa::kAvx512Vnni) ? Isa::kAvx512Vnni
                          : supports(Isa::kAvx512)   ? Isa::kAvx512
                          : supports(Isa::kAvx2)     ? Isa::kAvx2
                                                     : Isa::kBaseline;
  const Isa wanted = isa == Isa::kBest || !supports(isa) ? best : isa;
  if (wanted == Isa::kAvx512Vnni) return kernels_avx512vnni();
  if (wanted == Isa::kAvx512) return kernels_avx512();
  if (wanted == Isa::kAvx2) return kernels_avx2();
#else
  (void)isa;
#endif
  return kernels_baseline();
}

}  // namespace cfsae::cpu
