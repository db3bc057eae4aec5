// int16_product on any machine: the same whole numbers, in plain loops.
#include "cpu/int16_kernels_template.h"

namespace cfsae::cpu {
namespace {

int16_t low(int32_t lane) { return static_cast<int16_t>(lane & 0xffff); }
int16_t high(int32_t lane) { return static_cast<int16_t>(lane >> 16); }

void multiply(const Int16Left& left, const int32_t* right, const float* right_scales,
              int64_t n_pairs, bool add, float* out, int64_t stride) {
  for (int r = 0; r < kInt16Left; ++r) {
    int32_t sums[kInt16Right] = {};
    for (int64_t pair = 0; pair < n_pairs; ++pair) {
      const int32_t two = left.data[r * left.row_step + pair * left.pair_step];
      const int32_t* const values = right + pair * kInt16Right;
      for (int c = 0; c < kInt16Right; ++c) {
        sums[c] += low(two) * low(values[c]) + high(two) * high(values[c]);
      }
    }
    float* const to = out + r * stride;
    for (int c = 0; c < kInt16Right; ++c) {
      const float value = static_cast<float>(sums[c]) * (left.scales[r] * right_scales[c]);
      to[c] = add ? to[c] + value : value;
    }
  }
}

}  // namespace

const Int16Kernels& int16_kernels_baseline() {
  static constexpr Int16Kernels kKernels = {pack, multiply};
  return kKernels;
}

}  // namespace cfsae::cpu
