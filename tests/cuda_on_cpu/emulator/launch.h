// Starting a grid: limits checked, blocks in an order drawn from the seed, failures injected.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>

#include "block.h"

namespace emulator {

struct Error : std::runtime_error {  // the kernel did what a GPU leaves undefined
  using runtime_error::runtime_error;
};

struct Settings {
  uint64_t seed = 0;  // 0: in order; else picks a schedule, the order of blocks and every turn
  int64_t launches = 0, fail_launch = -1;  // fail_launch: the launch that returns an error
  uint64_t blocks = 0;
};
Settings& settings();

// False where a real launch would return an error: impossible sizes, or an injected failure.
bool launch(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel);

}  // namespace emulator
