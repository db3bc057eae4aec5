// AdamW in one pass over parameters, gradient and both moments: 16 bytes read and 12 written per
// parameter, nothing else. The bias corrections are worked out on the host, in double.
#include <cmath>

#include "cuda/platform.h"

namespace cfsae::cuda {
namespace {

constexpr int kThreads = 256, kPerThread = 4;

struct Step {  // what one step needs of its Adam
  float beta1, beta2, epsilon, keep, step_size, second_scale;
};

__global__ void __launch_bounds__(kThreads)
    adam_kernel(Step s, int64_t n, const float* __restrict__ grad, float* __restrict__ parameters,
                float* __restrict__ first, float* __restrict__ second) {
  const int64_t start = int64_t{blockIdx.x} * kThreads * kPerThread + threadIdx.x;
#pragma unroll
  for (int part = 0; part < kPerThread; ++part) {
    const int64_t i = start + part * kThreads;
    if (i >= n) return;
    const float g = grad[i];
    const float m = first[i] + (1.0f - s.beta1) * (g - first[i]);
    const float v = s.beta2 * second[i] + (1.0f - s.beta2) * g * g;
    const float scale = sqrtf(v) * s.second_scale + s.epsilon;
    parameters[i] = parameters[i] * s.keep - s.step_size * (m / scale);
    first[i] = m;
    second[i] = v;
  }
}

}  // namespace

Status adam(const Adam& adam, int64_t n, const float* grad, float* parameters, float* first,
            float* second, const Execution& execution) {
  const double step = static_cast<double>(adam.step);
  const double first_left = 1.0 - std::pow(double{adam.beta1}, step);
  const double second_left = 1.0 - std::pow(double{adam.beta2}, step);
  const Step s{adam.beta1,
               adam.beta2,
               adam.epsilon,
               static_cast<float>(1.0 - double{adam.lr} * adam.weight_decay),
               static_cast<float>(adam.lr / first_left),
               static_cast<float>(1.0 / std::sqrt(second_left))};
  return launch(adam_kernel, {divide_up(n, kThreads * kPerThread), 1, kThreads, 0},
                execution.stream, s, n, grad, parameters, first, second);
}

}  // namespace cfsae::cuda
