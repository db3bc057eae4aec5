// What the engine's tests draw, and how they complain. Buffers are of the exact size on the heap.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "api.h"

using cfsae::Execution;
using cfsae::Isa;
using cfsae::Matrix;
using Floats = std::vector<float>;
using Ints = std::vector<int32_t>;

inline std::mt19937 generator;

inline int64_t pick(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(generator);
}

inline Floats floats(int64_t n) {  // small integers: float32 arithmetic is exact
  Floats out(n);
  for (float& value : out) value = static_cast<float>(pick(-2, 2));
  return out;
}

inline Execution any_execution() {
  std::vector<Isa> isas;
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Vnni}) {
    if (cfsae::cpu::supports(isa)) isas.push_back(isa);
  }
  return {static_cast<int>(pick(1, 3)), isas[pick(0, static_cast<int64_t>(isas.size()) - 1)]};
}

inline void expect(bool holds, const char* what) {
  if (holds) return;
  std::printf("failed: %s\n", what);
  std::exit(1);
}

inline void expect_equal(const Floats& got, const std::vector<double>& want, const char* what) {
  for (size_t i = 0; i < got.size(); ++i) expect(std::abs(got[i] - want[i]) < 1e-3, what);
}

struct Csr {
  std::vector<int64_t> offsets;
  Ints items;
  Floats values;

  Csr(int64_t n_rows, int64_t n_items) {
    offsets.push_back(0);
    for (int64_t b = 0; b < n_rows; ++b) offsets.push_back(offsets.back() + pick(0, 6));
    for (int64_t j = 0; j < offsets.back(); ++j) {
      items.push_back(static_cast<int32_t>(pick(0, n_items - 1)));
    }
    values = floats(offsets.back());
  }
  cfsae::RowsView view() const {
    return {static_cast<int64_t>(offsets.size()) - 1, offsets.data(), items.data(), values.data()};
  }
};

inline double dot(const float* a, const float* b, int64_t n) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += double{a[i]} * b[i];
  return sum;
}
