// Starting a grid: limits checked, blocks in an order drawn from the seed, failures injected.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <vector>

#include "block.h"

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
Outcome launch(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel);

}  // namespace emulator
