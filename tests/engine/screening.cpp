// What judges a screen's survivors, on every instruction set, beside sorting and a plain loop.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "api.h"
#include "cpu/kernels.h"

namespace {

using cfsae::Isa;
using cfsae::cpu::Kernels;
using cfsae::cpu::ScreenSink;

constexpr float kNothing = -std::numeric_limits<float>::infinity();
std::mt19937 generator(1);

void require(bool held, const char* what) {
  if (held) return;
  std::printf("failed: %s\n", what);
  std::exit(1);
}

// Values of which a share is -inf, as blocks of excluded items have it.
std::vector<float> draw(int64_t n, double nothing) {
  std::normal_distribution<float> normal;
  std::bernoulli_distribution excluded(nothing);
  std::vector<float> values(n);
  for (float& value : values) value = excluded(generator) ? kNothing : normal(generator);
  return values;
}

void check_reached_by(const Kernels& kernels, int64_t n, int64_t k, double nothing) {
  const std::vector<float> values = draw(n, nothing);
  std::vector<float> sorted = values;
  std::sort(sorted.begin(), sorted.end(), std::greater<float>());
  const float found = kernels.reached_by(k, values.data(), n);
  const float kth = k <= n ? sorted[k - 1] : kNothing;
  require(found <= kth, "fewer than k reach it");
  require((found == kNothing) == (kth == kNothing), "-inf only where fewer than k are above it");
  const auto reach =
      std::count_if(values.begin(), values.end(), [&](float v) { return v >= found; });
  require(kth == kNothing || reach <= k + k / 8 + 1, "many more than k reach it");
}

void check_keep_above(const Kernels& kernels, int64_t n) {
  std::vector<float> lowers = draw(n, 0.0), uppers = draw(n, 0.1);
  std::vector<int32_t> indices(n);
  for (int64_t j = 0; j < n; ++j) indices[j] = static_cast<int32_t>(3 * j);
  const float floor = n > 0 ? uppers[n / 2] : 0.0f;
  std::vector<int64_t> want;
  for (int64_t j = 0; j < n; ++j) {
    if (uppers[j] > floor) want.push_back(j);
  }
  const std::vector<float> all_lowers = lowers, all_uppers = uppers;
  ScreenSink sink{indices.data(), lowers.data(), uppers.data(), n};
  kernels.keep_above(floor, &sink);
  require(sink.size == static_cast<int64_t>(want.size()), "as many as are above the floor");
  for (size_t at = 0; at < want.size(); ++at) {
    require(indices[at] == 3 * want[at] && lowers[at] == all_lowers[want[at]] &&
                uppers[at] == all_uppers[want[at]],
            "those above the floor, in order");
  }
}

}  // namespace

int main() {
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Vnni}) {
    if (!cfsae::cpu::supports(isa)) continue;
    const Kernels& kernels = cfsae::cpu::kernels(isa);
    for (int round = 0; round < 400; ++round) {
      const int64_t n = static_cast<int64_t>(generator() % 300);
      const int64_t k = 1 + static_cast<int64_t>(generator() % 40);
      for (const double nothing : {0.0, 0.5, 0.95, 1.0}) check_reached_by(kernels, n, k, nothing);
      check_keep_above(kernels, n);
    }
  }
  std::printf("passed\n");
  return 0;
}
