// One running thread block: its threads, the scheduler that interleaves them by seed, barriers and
// warp collectives. Anything a GPU leaves undefined ends the launch with a message.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fiber.h"

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

struct uint3 {
  unsigned x, y, z;
};

namespace emulator {

inline constexpr unsigned kWarp = 32;

enum class Schedule { kInOrder, kRandom, kThreadPriorities, kWarpPriorities };
enum class State { kReady, kBarrier, kCollective, kDone };

struct Site {  // where in the kernel's source
  const char* file;
  int line;
};

struct Lane;
using Resolve = void (*)(Lane* const* lanes, unsigned mask);  // run once all lanes have arrived

struct Lane {  // what a thread brings to a warp collective, and takes home
  unsigned mask = 0;
  int argument = 0, width = 32;
  uint64_t value = 0, result = 0;
  void* payload = nullptr;
  Resolve resolve = nullptr;  // null: __syncwarp
};

struct Thread {
  Fiber fiber;
  uint3 index{};
  unsigned id = 0, lane = 0, warp = 0;
  uint64_t priority = 0;
  State state = State::kDone;
  Site site{};  // of the barrier or collective it waits in
  Lane in_collective;
  uint32_t clocks[kWarp];  // what this thread has seen of each lane of its warp, since the barrier
};

class Block {
 public:
  static Block* current;  // the block that runs, or null on the host

  dim3 grid_dim, block_dim;
  uint3 index{};

  // Runs all threads to the end; the message of what went wrong, or an empty string.
  std::string run(dim3 grid, dim3 block, uint3 block_index, const std::function<void()>& kernel,
                  uint64_t seed, Schedule schedule);

  Thread& thread() { return *threads_[running_]; }
  uint32_t epoch() const { return epoch_; }  // barriers passed

  unsigned barrier(Site site, unsigned vote);  // the sum of all threads' votes
  uint64_t collective(Lane lane, Site site);
  void maybe_preempt(unsigned one_in);
  // Records the message and leaves this thread for ever.
  void fail(const std::string& message);
  // Whether what thread `id` did at `clock` in this epoch comes before what the caller does now.
  bool ordered(unsigned id, uint32_t clock);

 private:
  static void thread_main();
  void start_threads(uint64_t seed, Schedule schedule);
  void make_ready(Thread& thread);
  Thread& next();
  void release_barrier();
  void try_collective(Thread& last);
  void order_memory(unsigned first, unsigned mask);
  auto by_priority() const {
    return [this](unsigned a, unsigned b) { return threads_[a]->priority < threads_[b]->priority; };
  }
  std::string stuck() const;
  uint64_t random();

  std::vector<std::unique_ptr<Thread>> threads_;
  std::vector<unsigned> ready_;
  const std::function<void()>* kernel_ = nullptr;
  unsigned n_threads_ = 0, running_ = 0, waiting_ = 0, done_ = 0, votes_ = 0, released_votes_ = 0;
  size_t head_ = 0;  // of ready_, when in order
  int barrier_line_ = 0;
  uint32_t epoch_ = 0;
  uint64_t random_ = 1;
  Schedule schedule_ = Schedule::kInOrder;
  std::string error_;
};

}  // namespace emulator
