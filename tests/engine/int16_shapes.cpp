// int16_product on random shapes, instruction sets and thread counts, in buffers of exact size,
// within what rounding may do to numbers of up to 2.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "api.h"

namespace {

std::mt19937 generator;

int64_t pick(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(generator);
}

std::vector<float> floats(int64_t n) {
  std::vector<float> out(n);
  for (float& value : out) value = static_cast<float>(pick(-2, 2));
  return out;
}

cfsae::cpu::StridedMatrix lying(const std::vector<float>& data, int64_t n, int64_t m, bool turned) {
  return {data.data(), n, m, turned ? 1 : m, turned ? n : 1};
}

void check(cfsae::Isa isa) {
  const int64_t m = pick(0, 300), k = pick(0, 600), n = pick(0, 70);
  const std::vector<float> a = floats(m * k), b = floats(k * n);
  std::vector<float> out = floats(m * n), before = out;
  const bool add = pick(0, 1) == 1;
  const auto left = lying(a, m, k, pick(0, 1) == 1), right = lying(b, k, n, pick(0, 1) == 1);
  const cfsae::Execution how{static_cast<int>(pick(1, 3)), isa};
  cfsae::cpu::int16_product(left, right, add, out.data(), how);
  for (int64_t r = 0; r < m; ++r) {
    for (int64_t c = 0; c < n; ++c) {
      double want = add ? before[r * n + c] : 0.0;
      for (int64_t j = 0; j < k; ++j) {
        want += left.data[r * left.row_step + j * left.column_step] *
                right.data[j * right.row_step + c * right.column_step];
      }
      if (std::abs(out[r * n + c] - want) <= 2e-3 * k) continue;
      std::printf("failed: %g instead of %g\n", out[r * n + c], want);
      std::exit(1);
    }
  }
}

}  // namespace

int main() {
  for (int round = 0; round < 12; ++round) {
    for (const cfsae::Isa isa : {cfsae::Isa::kBaseline, cfsae::Isa::kAvx512Vnni}) {
      if (cfsae::cpu::supports(isa)) check(isa);
    }
  }
  std::printf("passed\n");
  return 0;
}
