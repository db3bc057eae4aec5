// nvcuda::wmma and bf16 for g++. Element e of a tile lives in lane e % 32, slot e / 32: as good as
// any, since CUDA leaves the mapping open and kernels must not rely on it.
#pragma once

#include "cuda.h"

struct __nv_bfloat16 {
  uint16_t bits;
};

inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  const unsigned bits = __float_as_uint(value);
  if (std::isnan(value)) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
}

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
namespace precision {
struct tf32 {};
}  // namespace precision
enum layout_t { mem_row_major, mem_col_major };

template <typename Use, int M, int N, int K, typename T, typename Layout = void>
struct fragment {
  static constexpr int kRows = std::is_same<Use, matrix_b>::value ? K : M;
  static constexpr int kColumns = std::is_same<Use, matrix_a>::value ? K : N;
  static constexpr int num_elements = kRows * kColumns / 32;
  float x[num_elements];
};

template <typename Fragment>
void fill_fragment(Fragment& fragment, float value) {
  for (float& element : fragment.x) element = value;
}

inline float __float_to_tf32(float value) {  // to nearest, 10 bits of mantissa
  return __uint_as_float((__float_as_uint(value) + 0x1000u) & ~0x1fffu);
}

template <typename T>
void check_tile(const T* tile, unsigned pitch) {
  if (reinterpret_cast<uintptr_t>(tile) % 32 != 0 || pitch * sizeof(T) % 16 != 0) {
    emulator::Block::current->fail("wmma: a tile starts at 32 bytes, its pitch is 16 n bytes");
  }
}

inline float as_float(float stored) { return stored; }
inline float as_float(__nv_bfloat16 stored) { return __uint_as_float(unsigned{stored.bits} << 16); }

template <typename Use, int M, int N, int K, typename T, typename Layout, typename Stored>
void load_matrix_sync(fragment<Use, M, N, K, T, Layout>& to, const Stored* tile, unsigned pitch,
                      EMULATOR_SITE) {
  using Fragment = fragment<Use, M, N, K, T, Layout>;
  check_tile(tile, pitch);
  emulator::vote(0xffffffffu, 0, &emulator::resolve_ballot, {file, line});
  const unsigned lane = emulator::Block::current->thread().lane;
  for (int slot = 0; slot < Fragment::num_elements; ++slot) {
    const int e = slot * 32 + static_cast<int>(lane);
    const int r = e / Fragment::kColumns, c = e % Fragment::kColumns;
    constexpr bool kByColumn = std::is_same<Layout, col_major>::value;
    to.x[slot] = as_float(kByColumn ? tile[c * pitch + r] : tile[r * pitch + c]);
  }
}

template <int M, int N, int K>
void store_matrix_sync(float* tile, const fragment<accumulator, M, N, K, float>& from,
                       unsigned pitch, layout_t layout, EMULATOR_SITE) {
  check_tile(tile, pitch);
  emulator::vote(0xffffffffu, 0, &emulator::resolve_ballot, {file, line});
  const unsigned lane = emulator::Block::current->thread().lane;
  for (int slot = 0; slot < from.num_elements; ++slot) {
    const int e = slot * 32 + static_cast<int>(lane), r = e / N, c = e % N;
    (layout == mem_col_major ? tile[c * pitch + r] : tile[r * pitch + c]) = from.x[slot];
  }
}

template <typename D, typename A, typename B>
struct Operands {
  D* sum;
  const A* a;
  const B* b;
};

// What the tensor core reads of a tf32 operand: the low bits are not there. bf16 has fewer.
inline float operand(float value) { return __uint_as_float(__float_as_uint(value) & ~0x1fffu); }

template <int M, int N, int K, typename D, typename A, typename B>
__attribute__((no_sanitize("thread"))) void multiply(emulator::Lane* const* lanes, unsigned) {
  float a[M * K], b[K * N], sum[M * N];
  const auto of = [lanes](int lane) {
    return static_cast<const Operands<D, A, B>*>(lanes[lane]->payload);
  };
  for (int e = 0; e < M * K; ++e) a[e] = operand(of(e % 32)->a->x[e / 32]);
  for (int e = 0; e < K * N; ++e) b[e] = operand(of(e % 32)->b->x[e / 32]);
  for (int e = 0; e < M * N; ++e) sum[e] = of(e % 32)->sum->x[e / 32];
  for (int i = 0; i < M; ++i) {
    for (int k = 0; k < K; ++k) {
      for (int j = 0; j < N; ++j) sum[i * N + j] += a[i * K + k] * b[k * N + j];
    }
  }
  for (int e = 0; e < M * N; ++e) of(e % 32)->sum->x[e / 32] = sum[e];
}

template <int M, int N, int K, typename T, typename LayoutA, typename LayoutB>
void mma_sync(fragment<accumulator, M, N, K, float>& to,
              const fragment<matrix_a, M, N, K, T, LayoutA>& a,
              const fragment<matrix_b, M, N, K, T, LayoutB>& b,
              const fragment<accumulator, M, N, K, float>& from, EMULATOR_SITE) {
  using D = fragment<accumulator, M, N, K, float>;
  using A = fragment<matrix_a, M, N, K, T, LayoutA>;
  using B = fragment<matrix_b, M, N, K, T, LayoutB>;
  D sum = from;
  Operands<D, A, B> operands{&sum, &a, &b};
  emulator::Lane lane;
  lane.mask = 0xffffffffu;
  lane.payload = &operands;
  lane.resolve = &multiply<M, N, K, D, A, B>;
  emulator::Block::current->collective(lane, {file, line});
  to = sum;
}

}  // namespace nvcuda::wmma
