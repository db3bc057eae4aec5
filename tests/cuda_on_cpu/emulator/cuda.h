// CUDA C++ for g++: the part of the language and of its intrinsics that the kernels use. A kernel
// that needs more does not compile here, which is the point.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "block.h"
#include "launch.h"
#include "memory.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(threads, ...) EMULATOR_BOUND(threads)  // see launch.h
#define threadIdx (::emulator::Block::current->thread().index)
#define blockIdx (::emulator::Block::current->index)
#define blockDim (::emulator::Block::current->block_dim)
#define gridDim (::emulator::Block::current->grid_dim)

struct alignas(16) float4 {
  float x, y, z, w;
};

inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

using std::fabs;
using std::isnan;

namespace emulator {

template <typename T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "at most 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <typename T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

inline constexpr uint64_t kNoLane = 0xBADBADBADBADBADull;  // what an absent lane gives

// `from(lane, argument, width)` names the lane that is read.
template <typename From>
void resolve_shuffle(Lane* const* lanes, unsigned mask) {
  for (int l = 0; l < static_cast<int>(kWarp); ++l) {
    if ((mask >> l & 1) == 0) continue;
    const int from = From::lane(l, lanes[l]->argument, lanes[l]->width);
    lanes[l]->result = (mask >> from & 1) != 0 ? lanes[from]->value : kNoLane;
  }
}

struct FromIndex {
  static int lane(int own, int index, int width) {
    return (own & ~(width - 1)) + (index & (width - 1));
  }
};
struct FromXor {
  static int lane(int own, int bits, int width) {
    const int from = own ^ bits;
    return from < (own & ~(width - 1)) + width ? from : own;
  }
};
struct FromBelow {
  static int lane(int own, int delta, int width) {
    return own - delta < (own & ~(width - 1)) ? own : own - delta;
  }
};
struct FromAbove {
  static int lane(int own, int delta, int width) {
    return own + delta >= (own & ~(width - 1)) + width ? own : own + delta;
  }
};

inline void resolve_ballot(Lane* const* lanes, unsigned mask) {
  unsigned votes = 0;
  for (unsigned l = 0; l < kWarp; ++l) {
    if ((mask >> l & 1) != 0 && lanes[l]->value != 0) votes |= 1u << l;
  }
  for (unsigned l = 0; l < kWarp; ++l) {
    if ((mask >> l & 1) != 0) lanes[l]->result = votes;
  }
}

inline void resolve_match(Lane* const* lanes, unsigned mask) {
  for (unsigned l = 0; l < kWarp; ++l) {
    if ((mask >> l & 1) == 0) continue;
    lanes[l]->result = 0;
    for (unsigned m = 0; m < kWarp; ++m) {
      if ((mask >> m & 1) != 0 && lanes[m]->value == lanes[l]->value) lanes[l]->result |= 1u << m;
    }
  }
}

inline void resolve_add(Lane* const* lanes, unsigned mask) {
  uint64_t sum = 0;
  for (unsigned l = 0; l < kWarp; ++l) {
    if ((mask >> l & 1) != 0) sum += lanes[l]->value;
  }
  for (unsigned l = 0; l < kWarp; ++l) {
    if ((mask >> l & 1) != 0) lanes[l]->result = sum;
  }
}

template <typename From, typename T>
T shuffle(unsigned mask, T value, int argument, int width, Site site) {
  Lane lane;
  lane.mask = mask;
  lane.argument = argument;
  lane.width = width;
  lane.value = to_bits(value);
  lane.resolve = &resolve_shuffle<From>;
  return from_bits<T>(Block::current->collective(lane, site));
}

inline uint64_t vote(unsigned mask, uint64_t value, Resolve resolve, Site site) {
  Lane lane;
  lane.mask = mask;
  lane.value = value;
  lane.resolve = resolve;
  return Block::current->collective(lane, site);
}

// One thread at a time runs, so plain code is atomic; it may be interrupted before, never within.
template <typename T, typename Update>
__attribute__((no_sanitize("thread"))) T atomically(T* at, const Update& update) {
  Block::current->maybe_preempt(4);
  on_access(at, sizeof(T), Kind::kAtomic);
  const T before = *at;
  *at = update(before);
  return before;
}

}  // namespace emulator

#define EMULATOR_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(EMULATOR_SITE) { emulator::Block::current->barrier({file, line}, 0); }
inline int __syncthreads_count(int predicate, EMULATOR_SITE) {
  return static_cast<int>(emulator::Block::current->barrier({file, line}, predicate != 0));
}
inline int __syncthreads_or(int predicate, EMULATOR_SITE) {
  return __syncthreads_count(predicate, file, line) != 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATOR_SITE) {
  emulator::vote(mask, 0, nullptr, {file, line});
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, EMULATOR_SITE) {
  return emulator::shuffle<emulator::FromIndex>(mask, value, lane, width, {file, line});
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, EMULATOR_SITE) {
  return emulator::shuffle<emulator::FromXor>(mask, value, bits, width, {file, line});
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_SITE) {
  return emulator::shuffle<emulator::FromBelow>(mask, value, static_cast<int>(delta), width,
                                                {file, line});
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_SITE) {
  return emulator::shuffle<emulator::FromAbove>(mask, value, static_cast<int>(delta), width,
                                                {file, line});
}
inline unsigned __ballot_sync(unsigned mask, int predicate, EMULATOR_SITE) {
  return static_cast<unsigned>(
      emulator::vote(mask, predicate != 0, &emulator::resolve_ballot, {file, line}));
}
inline int __any_sync(unsigned mask, int predicate, EMULATOR_SITE) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, EMULATOR_SITE) {
  return __ballot_sync(mask, !predicate, file, line) == 0;
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value, EMULATOR_SITE) {
  return static_cast<unsigned>(
      emulator::vote(mask, emulator::to_bits(value), &emulator::resolve_match, {file, line}));
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned value, EMULATOR_SITE) {
  return static_cast<unsigned>(emulator::vote(mask, value, &emulator::resolve_add, {file, line}));
}

template <typename T>
T atomicAdd(T* at, T value) {
  return emulator::atomically(at, [value](T before) { return before + value; });
}
template <typename T>
T atomicMax(T* at, T value) {
  return emulator::atomically(at, [value](T before) { return before < value ? value : before; });
}
template <typename T>
T atomicOr(T* at, T value) {
  return emulator::atomically(at, [value](T before) { return before | value; });
}
template <typename T>
T atomicExch(T* at, T value) {
  return emulator::atomically(at, [value](T) { return value; });
}
template <typename T>
T atomicCAS(T* at, T expected, T value) {
  return emulator::atomically(at, [=](T before) { return before == expected ? value : before; });
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline unsigned __float_as_uint(float value) {
  return emulator::from_bits<unsigned>(emulator::to_bits(value));
}
inline float __uint_as_float(unsigned bits) {
  return emulator::from_bits<float>(emulator::to_bits(bits));
}
