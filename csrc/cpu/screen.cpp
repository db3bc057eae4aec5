#include "cpu/screen.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "cpu/scratch.h"
#include "parallel.h"

namespace cfsae::cpu {
namespace {

constexpr float kLongest = 1e15f;  // largest entry: products of two lengths stay finite
constexpr float kUp = 1.001f;      // more than any float sum here can be off
constexpr int64_t kWidest =
    130000;                      // columns: what a sum of products of bytes ends at fits 32 bits
constexpr int64_t kHeader = 64;  // bytes, of which the first says whether it is usable

struct Bounds {
  float norm, error;
};

Bounds bounds_of(const Quantised& row, int64_t dim) {
  const bool tiny = row.scale == 0.0f;  // its squares may be too small for a float
  const float norm =
      tiny ? row.largest * std::sqrt(static_cast<float>(dim)) * kUp : std::sqrt(row.squares) * kUp;
  const float error = tiny ? norm : std::sqrt(row.errors) * kUp + norm * 1e-6f;
  return {norm, error};
}

bool fits(const Quantised& row) { return row.largest <= kLongest; }  // NaN does not

struct Layout {
  int64_t n_blocks, steps, rows, data, bytes;

  Layout(int64_t n_rows, int64_t dim)
      : n_blocks((n_rows + kScreenBlock - 1) / kScreenBlock),
        steps((dim + kScreenWidth - 1) / kScreenWidth),
        rows(n_blocks * kScreenBlock),
        data(rows * steps * kScreenWidth),
        bytes(kHeader + data + 3 * rows * static_cast<int64_t>(sizeof(float))) {}
};

// Each of n rows of 4 * steps bytes gives its dwords to every n-th place.
template <typename Byte>
void interleave_dwords(const Byte* rows, int64_t n, int64_t steps, uint32_t flip, void* to) {
  const int64_t length = steps * kScreenWidth;
  for (int64_t step = 0; step < steps; ++step) {
    for (int64_t r = 0; r < n; ++r) {
      uint32_t four;
      std::memcpy(&four, rows + r * length + step * kScreenWidth, sizeof four);
      four ^= flip;
      std::memcpy(static_cast<char*>(to) + (step * n + r) * kScreenWidth, &four, sizeof four);
    }
  }
}

}  // namespace

int64_t screen_bytes(int64_t n_rows, int64_t dim) { return Layout(n_rows, dim).bytes; }

bool has_screens() { return kernels(Isa::kBest).screen != nullptr; }

Status make_screen(const Matrix& matrix, uint8_t* screen, const Execution& execution) {
  return guarded([&] {
    const Layout layout(matrix.n_rows, matrix.dim);
    const Kernels& k = kernels(execution.isa);
    const ScreenView view = view_screen(screen, matrix.n_rows, matrix.dim);
    float* const scale = const_cast<float*>(view.scale);
    float* const norm = const_cast<float*>(view.norm);
    float* const error = const_cast<float*>(view.error);
    const int64_t length = layout.steps * kScreenWidth;
    std::atomic<bool> usable{matrix.dim <= kWidest};
    const int workers = workers_for(matrix.n_rows * matrix.dim, execution.threads);
    parallel_for(layout.rows / kScreenRows, workers, [&](int64_t group, int) {
      const Scratch<int8_t> rows(kScreenRows * length);
      for (int64_t r = 0; r < kScreenRows; ++r) {
        const int64_t row = group * kScreenRows + r;
        Bounds bounds{0.0f, 0.0f};
        Quantised found{0.0f, 0.0f, 0.0f, 0.0f};
        if (row < matrix.n_rows) {
          found = k.quantise(matrix.row(row), matrix.dim, length, rows.data() + r * length);
          bounds = bounds_of(found, matrix.dim);
          if (!fits(found)) usable = false;
        } else {
          std::memset(rows.data() + r * length, 0, length);
        }
        scale[row] = found.scale;
        norm[row] = bounds.norm;
        error[row] = bounds.error;
      }
      interleave_dwords(rows.data(), kScreenRows, layout.steps, 0x80808080u,
                        const_cast<uint8_t*>(view.block(group * kScreenRows)));
    });
    std::memset(screen, 0, kHeader);
    screen[0] = usable;
  });
}

ScreenView view_screen(const uint8_t* screen, int64_t n_rows, int64_t dim) {
  const Layout layout(n_rows, dim);
  const auto* const floats = reinterpret_cast<const float*>(screen + kHeader + layout.data);
  return {screen[0] != 0, layout.steps,         screen + kHeader,
          floats,         floats + layout.rows, floats + 2 * layout.rows};
}

ScreenQueries quantise_queries(const Matrix& rows, int width, const Kernels& kernels,
                               int8_t* packed, bool* usable) {
  const int64_t dim = rows.dim, steps = (dim + kScreenWidth - 1) / kScreenWidth;
  const int64_t length = steps * kScreenWidth;
  const Scratch<int8_t> bytes(width * length);
  const float rounding = static_cast<float>(dim + 64) * std::ldexp(1.0f, -23);
  ScreenQueries queries{};
  queries.data = packed;
  for (int q = 0; q < kMostScreenQueries; ++q) {
    queries.floor[q] = std::numeric_limits<float>::infinity();
  }
  for (int q = 0; q < width; ++q) {
    int8_t* const its = bytes.data() + q * length;
    if (q >= rows.n_rows) {
      std::memset(its, 0, length);
      continue;
    }
    const Quantised found = kernels.quantise(rows.row(q), dim, length, its);
    const Bounds bounds = bounds_of(found, dim);
    usable[q] = fits(found);
    int32_t sum = 0;
    for (int64_t i = 0; i < length; ++i) sum += its[i];
    queries.offset[q] = 128 * sum;
    queries.scale[q] = found.scale;
    queries.norm_weight[q] = kUp * (bounds.error + bounds.norm * rounding);
    queries.error_weight[q] = kUp * (bounds.norm + bounds.error);
  }
  interleave_dwords(bytes.data(), width, steps, 0, packed);
  return queries;
}

}  // namespace cfsae::cpu
