// Limits are those that every supported architecture has.
#include "launch.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "async_copy.h"
#include "memory.h"

namespace emulator {
namespace {

constexpr uint64_t kMaxThreads = 1024, kMaxGridX = 0x7fffffff, kMaxGridYz = 65535;

Schedule schedule_of(uint64_t seed) {
  if (seed == 0) return Schedule::kInOrder;
  constexpr Schedule kSchedules[] = {Schedule::kRandom, Schedule::kThreadPriorities,
                                     Schedule::kWarpPriorities};
  return kSchedules[seed % 3];
}

// The threads that the kernel's __launch_bounds__ allows; 0: it has none.
uint64_t bound_of(const void* entry) {
  constexpr unsigned char kNothing = 0x90, kLanding[] = {0xf3, 0x0f, 0x1e, 0xfa};  // endbr64
  const auto* at = static_cast<const unsigned char*>(entry);
  if (std::equal(kLanding, kLanding + sizeof kLanding, at)) at += sizeof kLanding;
  uint64_t threads = 0;
  while (at[threads] == kNothing) ++threads;
  return threads;
}

std::vector<uint64_t> block_order(uint64_t n, uint64_t seed) {
  std::vector<uint64_t> order(n);
  std::iota(order.begin(), order.end(), uint64_t{0});
  uint64_t state = seed;
  for (uint64_t i = n; i > 1 && seed != 0; --i) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    std::swap(order[i - 1], order[(state >> 33) % i]);
  }
  return order;
}

}  // namespace

Settings& settings() {
  static Settings chosen;
  return chosen;
}

Outcome set_device(int device) {
  if (device < 0 || device >= settings().n_devices) return Outcome::kRefused;
  settings().device = device;
  return Outcome::kDone;
}

Outcome launch(dim3 grid, dim3 block, size_t shared_bytes, const void* entry,
               const std::function<void()>& run) {
  static Block runner;
  Settings& s = settings();
  const std::string on_host = take_host_error();
  if (!on_host.empty()) throw Error(on_host);
  if (s.launches++ == s.fail_launch) return s.failure;
  s.launched_on.push_back(s.device);
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || block.z > 64 ||
      shared_bytes > SharedMemory::kLimit) {
    return Outcome::kRefused;
  }
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > kMaxGridX || grid.y > kMaxGridYz ||
      grid.z > kMaxGridYz) {
    return Outcome::kRefused;
  }
  const uint64_t bound = bound_of(entry);
  if (bound != 0 && threads > bound) {
    throw Error(std::to_string(threads) + " threads, and __launch_bounds__ allows " +
                std::to_string(bound));
  }
  for (const uint64_t i : block_order(uint64_t{grid.x} * grid.y * grid.z, s.seed)) {
    const uint3 index{static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                      static_cast<unsigned>(i / grid.x / grid.y)};
    shared_memory().reset(shared_bytes);
    start_copies(threads);
    ++s.blocks;
    const std::string error = runner.run(grid, block, index, run, s.seed + i, schedule_of(s.seed));
    if (!error.empty()) throw Error(error);
    if (copies_are_pending()) throw Error("a thread has exited with asynchronous copies pending");
  }
  return Outcome::kDone;
}

}  // namespace emulator
