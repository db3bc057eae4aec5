// left @ right in whole numbers of 16 bits. right is packed once; each task packs some rows of
// left, block of the sum by block, and multiplies panel by panel what lies in L1 and L2.
#include <algorithm>
#include <vector>

#include "cpu/int16_kernels.h"
#include "cpu/scratch.h"
#include "parallel.h"

namespace cfsae::cpu {
namespace {

constexpr int64_t kPanelsTogether = 8;    // of right: in L2, and rows of out are written in runs
constexpr int64_t kMostPacked = 1 << 22;  // numbers of right that are held at a time: 8 MB
constexpr int64_t kMostTerms = 1 << 13;   // of a sum, among them
constexpr int64_t kMostRowsPerTask = 256;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

const Int16Kernels& int16_kernels(Isa isa) {
#if defined(__x86_64__)
  const bool wanted = isa == Isa::kBest || isa == Isa::kAvx512Vnni || !supports(isa);
  if (wanted && supports(Isa::kAvx512Vnni)) return int16_kernels_avx512vnni();
#else
  (void)isa;
#endif
  return int16_kernels_baseline();
}

StridedMatrix block(const StridedMatrix& of, int64_t row, int64_t n_rows, int64_t at) {
  const int64_t column = at * kInt16Depth;
  return {of.data + row * of.row_step + column * of.column_step, std::min(n_rows, of.n_rows - row),
          std::min<int64_t>(kInt16Depth, of.n_columns - column), of.row_step, of.column_step};
}

struct Packed {  // rows of a matrix, by blocks of its columns
  Packed(int64_t n_rows, int64_t n_blocks, int width)
      : width(width),
        panels(ceil_div(n_rows, kInt16Group) * kInt16Group / width),
        data(n_blocks * panels * int16_panel(width)),
        scales(n_blocks * panels * width) {}
  int32_t* panel(int64_t at, int64_t i) const {
    return data.data() + (at * panels + i) * int16_panel(width);
  }
  float* scale(int64_t at, int64_t i) const { return scales.data() + (at * panels + i) * width; }
  int64_t width, panels;
  Scratch<int32_t> data;
  Scratch<float> scales;
};

struct Product {
  const Int16Kernels& k;
  float* out;
  int64_t n_columns, stride;

  // (rows <= kInt16Left) x (columns <= kInt16Right) of out.
  void tile(const Int16Left& left, const int32_t* right, const float* scales, int64_t n_pairs,
            bool add, int64_t rows, int64_t columns, float* to) const {
    if (rows == kInt16Left && columns == kInt16Right) {
      k.tile(left, right, scales, n_pairs, add, to, stride);
      return;
    }
    float edge[kInt16Left * kInt16Right];
    k.tile(left, right, scales, n_pairs, false, edge, kInt16Right);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        const float value = edge[r * kInt16Right + c];
        to[r * stride + c] = add ? to[r * stride + c] + value : value;
      }
    }
  }

  // Adds block `at` of the sum to the rows of out that begin at `first`; left holds those alone.
  void add_block(const Packed& left, const Packed& right, int64_t at, int64_t n_pairs,
                 int64_t first, int64_t n_rows, bool add) const {
    for (int64_t j = 0; j * kInt16Right < n_columns; j += kPanelsTogether) {
      for (int64_t row = 0; row < n_rows; row += kInt16Left) {
        const Int16Left rows = {left.panel(0, row / left.width),
                                left.width == 1 ? int16_panel(1) : 1, left.width,
                                left.scale(0, row / left.width)};
        for (int64_t i = j; i < j + kPanelsTogether && i * kInt16Right < n_columns; ++i) {
          const int64_t column = i * kInt16Right;
          tile(rows, right.panel(at, i), right.scale(at, i), n_pairs, add,
               std::min<int64_t>(kInt16Left, n_rows - row),
               std::min<int64_t>(kInt16Right, n_columns - column),
               out + (first + row) * stride + column);
        }
      }
    }
  }
};

// out (with rows `stride` apart) (+)= left @ right, where right is packed as a whole.
void multiply(const StridedMatrix& left, const StridedMatrix& right, bool add, float* out,
              int64_t stride, const Execution& execution) {
  const int64_t n_rows = left.n_rows, n_columns = right.n_columns, depth = left.n_columns;
  const Int16Kernels& k = int16_kernels(execution.isa);
  const int workers = workers_for(n_rows * n_columns * depth, execution.threads);
  const int64_t n_blocks = ceil_div(depth, kInt16Depth);
  const StridedMatrix across = {right.data, n_columns, depth, right.column_step, right.row_step};
  const Packed columns(n_columns, n_blocks, kInt16Right);
  parallel_for(n_blocks * columns.panels, workers, [&](int64_t task, int) {
    const int64_t at = task / columns.panels, j = task % columns.panels;
    k.pack(block(across, j * kInt16Right, kInt16Right, at), kInt16Right, columns.panel(at, j),
           columns.scale(at, j));
  });
  const int64_t fair = ceil_div(ceil_div(n_rows, 2 * workers), kInt16Group) * kInt16Group;
  const int64_t rows_per_task = std::min(kMostRowsPerTask, fair);
  std::vector<Packed> own;
  const int width = left.column_step == 1 ? 1 : kInt16Left;
  for (int w = 0; w < workers; ++w) own.emplace_back(rows_per_task, 1, width);
  const Product product = {k, out, n_columns, stride};
  parallel_for(ceil_div(n_rows, rows_per_task), workers, [&](int64_t task, int worker) {
    const int64_t first = task * rows_per_task;
    for (int64_t at = 0; at < n_blocks; ++at) {
      const StridedMatrix rows = block(left, first, rows_per_task, at);
      k.pack(rows, width, own[worker].panel(0, 0), own[worker].scale(0, 0));
      product.add_block(own[worker], columns, at, int16_pairs(rows.n_columns), first, rows.n_rows,
                        add || at > 0);
    }
  });
}

}  // namespace

Status int16_product(const StridedMatrix& left, const StridedMatrix& right, bool add, float* out,
                     const Execution& execution) {
  const int64_t n_columns = right.n_columns, depth = left.n_columns;
  if (depth == 0 && !add) std::fill_n(out, left.n_rows * n_columns, 0.0f);
  if (left.n_rows == 0) return Status::kOk;
  return guarded([&] {
    const int64_t terms = std::min(depth, kMostTerms);
    const int64_t strip = terms == 0 ? 1 : kMostPacked / terms / kInt16Group * kInt16Group;
    for (int64_t column = 0; column < n_columns; column += strip) {
      for (int64_t term = 0; term < depth; term += terms) {
        const StridedMatrix some = {left.data + term * left.column_step, left.n_rows,
                                    std::min(terms, depth - term), left.row_step, left.column_step};
        const StridedMatrix its = {right.data + term * right.row_step + column * right.column_step,
                                   some.n_columns, std::min(strip, n_columns - column),
                                   right.row_step, right.column_step};
        multiply(some, its, add || term > 0, out + column, n_columns, execution);
      }
    }
  });
}

}  // namespace cfsae::cpu
