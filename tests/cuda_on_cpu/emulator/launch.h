// Starting a grid: limits checked, blocks in an order drawn from the seed, failures injected.
//
// __launch_bounds__ travels with its kernel: the compiler puts as many no-ops at the kernel's entry
// as it allows threads, and a launch counts them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <vector>

#include "block.h"

#if defined(__x86_64__)  // sizeof: g++ takes a literal here, or what it has folded already
#define EMULATOR_BOUND(threads) __attribute__((patchable_function_entry(sizeof(char[threads]))))
#else
#define EMULATOR_BOUND(threads)  // not checked there
#endif

namespace emulator {

struct Error : std::runtime_error {  // the kernel did what a GPU leaves undefined
  using runtime_error::runtime_error;
};

enum class Outcome { kDone, kRefused, kOutOfMemory };

struct Settings {
  uint64_t seed = 0;  // 0: in order; else picks a schedule, the order of blocks and every turn
  int64_t launches = 0, fail_launch = -1;  // fail_launch: the launch that returns `failure`
  Outcome failure = Outcome::kRefused;
  uint64_t blocks = 0;
  int device = 0, n_devices = 2;  // the current one, of how many
  std::vector<int> launched_on;   // the device of every launch
};
Settings& settings();

Outcome set_device(int device);

// Not kDone where a real launch would return an error: impossible sizes, or an injected failure.
// entry: the kernel's address; run: calls it.
Outcome launch(dim3 grid, dim3 block, size_t shared_bytes, const void* entry,
               const std::function<void()>& run);

}  // namespace emulator
