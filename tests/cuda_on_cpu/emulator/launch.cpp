// Limits are those that every supported architecture has (sm_86 and sm_89 hold the least shared
// memory: 99 KB a block).
#include "launch.h"

#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "async_copy.h"
#include "memory.h"

namespace emulator {
namespace {

constexpr uint64_t kMaxThreads = 1024, kMaxGridX = 0x7fffffff, kMaxGridYz = 65535;
constexpr size_t kMaxSharedBytes = 99 << 10;

Schedule schedule_of(uint64_t seed) {
  if (seed == 0) return Schedule::kInOrder;
  constexpr Schedule kSchedules[] = {Schedule::kRandom, Schedule::kThreadPriorities,
                                     Schedule::kWarpPriorities};
  return kSchedules[seed % 3];
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

Outcome launch(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel) {
  static Block runner;
  Settings& s = settings();
  const std::string on_host = take_host_error();
  if (!on_host.empty()) throw Error(on_host);
  if (s.launches++ == s.fail_launch) return s.failure;
  s.launched_on.push_back(s.device);
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || block.z > 64 || shared_bytes > kMaxSharedBytes) {
    return Outcome::kRefused;
  }
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > kMaxGridX || grid.y > kMaxGridYz ||
      grid.z > kMaxGridYz) {
    return Outcome::kRefused;
  }
  for (const uint64_t i : block_order(uint64_t{grid.x} * grid.y * grid.z, s.seed)) {
    const uint3 index{static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                      static_cast<unsigned>(i / grid.x / grid.y)};
    shared_memory().reset(shared_bytes);
    start_copies(threads);
    ++s.blocks;
    const std::string error =
        runner.run(grid, block, index, kernel, s.seed + i, schedule_of(s.seed));
    if (!error.empty()) throw Error(error);
    if (copies_are_pending()) throw Error("a thread has exited with asynchronous copies pending");
  }
  return Outcome::kDone;
}

}  // namespace emulator
