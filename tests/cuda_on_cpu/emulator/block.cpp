// The scheduler. In-order running hides most missing barriers; random orders find many, and random
// priorities of threads and of whole warps (the highest runs as far as it can) find the rest.
#include "block.h"

#include <algorithm>

namespace emulator {

Block* Block::current = nullptr;

uint64_t Block::random() {  // xorshift64
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  return random_ ^= random_ << 17;
}

void Block::thread_main() {
  Block& block = *current;
  (*block.kernel_)();
  Thread& self = block.thread();
  self.state = State::kDone;
  ++block.done_;
  if (block.waiting_ > 0) {
    block.fail("thread has exited while others wait in __syncthreads at line " +
               std::to_string(block.barrier_line_));
  }
  self.fiber.yield();
}

void Block::start_threads(uint64_t seed, Schedule schedule) {
  random_ = seed * 0x9E3779B97F4A7C15ull + 0x1234567 + index.x * 7919ull + index.y * 104729ull;
  if (random_ == 0) random_ = 1;
  for (int warm_up = 0; warm_up < 4; ++warm_up) random();
  schedule_ = schedule;
  while (threads_.size() < n_threads_) threads_.push_back(std::make_unique<Thread>());
  std::vector<uint64_t> warps((n_threads_ + kWarp - 1) / kWarp);
  for (uint64_t& priority : warps) priority = random();
  ready_.clear();
  head_ = 0;
  for (unsigned id = 0; id < n_threads_; ++id) {
    Thread& t = *threads_[id];
    t.id = id;
    t.lane = id % kWarp;
    t.warp = id / kWarp;
    t.index = {id % block_dim.x, id / block_dim.x % block_dim.y, id / block_dim.x / block_dim.y};
    t.priority = random();
    if (schedule == Schedule::kWarpPriorities) {
      t.priority = (warps[t.warp] & ~uint64_t{0xffffffff}) | (t.priority & 0xffffffff);
    }
    t.site = {"", 0};
    std::fill_n(t.clocks, kWarp, 0u);
    t.clocks[t.lane] = 1;
    t.fiber.prepare(&thread_main);
    make_ready(t);
  }
}

void Block::make_ready(Thread& t) {
  t.state = State::kReady;
  ready_.push_back(t.id);
  if (schedule_ == Schedule::kThreadPriorities || schedule_ == Schedule::kWarpPriorities) {
    std::push_heap(ready_.begin(), ready_.end(), by_priority());
  }
}

Thread& Block::next() {
  if (schedule_ == Schedule::kInOrder) {
    const unsigned id = ready_[head_++];
    if (head_ == ready_.size()) {
      ready_.clear();
      head_ = 0;
    }
    return *threads_[id];
  }
  if (schedule_ == Schedule::kRandom) {
    std::swap(ready_[random() % ready_.size()], ready_.back());
  } else {
    std::pop_heap(ready_.begin(), ready_.end(), by_priority());
  }
  Thread& chosen = *threads_[ready_.back()];
  ready_.pop_back();
  if (random() % 512 == 0) chosen.priority = random() >> 8;  // now and then one falls back
  return chosen;
}

std::string Block::run(dim3 grid, dim3 block, uint3 block_index,
                       const std::function<void()>& kernel, uint64_t seed, Schedule schedule) {
  grid_dim = grid;
  block_dim = block;
  index = block_index;
  kernel_ = &kernel;
  n_threads_ = block.x * block.y * block.z;
  waiting_ = done_ = votes_ = 0;
  epoch_ = 0;
  error_.clear();
  current = this;
  start_threads(seed, schedule);
  while (!ready_.empty() && error_.empty()) {
    Thread& t = next();
    running_ = t.id;
    t.fiber.resume();
    if (t.fiber.overflowed() && error_.empty()) error_ = "a thread's stack has overflowed";
  }
  current = nullptr;
  if (error_.empty() && done_ < n_threads_) error_ = stuck();
  if (error_.empty()) return error_;
  return error_ + " [block " + std::to_string(index.x) + ", " + std::to_string(index.y) +
         ", thread " + std::to_string(running_) + "]";
}

std::string Block::stuck() const {
  for (unsigned id = 0; id < n_threads_; ++id) {
    const Thread& t = *threads_[id];
    if (t.state == State::kDone) continue;
    return "deadlock: thread " + std::to_string(id) + " waits in " +
           (t.state == State::kBarrier ? "__syncthreads" : "a warp collective") + " at line " +
           std::to_string(t.site.line);
  }
  return "deadlock";
}

void Block::fail(const std::string& message) {
  if (error_.empty()) error_ = message;
  thread().fiber.yield();
}

void Block::maybe_preempt(unsigned one_in) {
  if (schedule_ == Schedule::kInOrder || random() % one_in != 0) return;
  Thread& self = thread();
  self.priority = random() >> 4;
  make_ready(self);
  self.fiber.yield();
}

unsigned Block::barrier(Site site, unsigned vote) {
  Thread& self = thread();
  if (waiting_ > 0 && barrier_line_ != site.line) {
    fail("divergent __syncthreads: lines " + std::to_string(barrier_line_) + " and " +
         std::to_string(site.line));
  }
  barrier_line_ = site.line;
  if (done_ > 0) {
    fail("__syncthreads at line " + std::to_string(site.line) + " after a thread has exited");
  }
  self.state = State::kBarrier;
  self.site = site;
  votes_ += vote;
  if (++waiting_ == n_threads_) release_barrier();
  self.fiber.yield();
  return released_votes_;
}

void Block::release_barrier() {
  waiting_ = 0;
  ++epoch_;
  released_votes_ = votes_;
  votes_ = 0;
  for (unsigned id = 0; id < n_threads_; ++id) make_ready(*threads_[id]);
}

uint64_t Block::collective(Lane lane, Site site) {
  Thread& self = thread();
  if ((lane.mask >> self.lane & 1) == 0) {
    fail("warp collective at line " + std::to_string(site.line) +
         ": the caller is not in its mask");
  }
  self.in_collective = lane;
  self.site = site;
  self.state = State::kCollective;
  try_collective(self);
  self.fiber.yield();
  return thread().in_collective.result;
}

void Block::try_collective(Thread& last) {
  Lane* lanes[kWarp] = {};
  const unsigned first = last.warp * kWarp, mask = last.in_collective.mask;
  const auto wrong = [&](const std::string& what) {
    fail("warp collective at line " + std::to_string(last.site.line) + what);
  };
  for (unsigned l = 0; l < kWarp; ++l) {
    if ((mask >> l & 1) == 0) continue;
    if (first + l >= n_threads_) wrong(" names lane " + std::to_string(l) + ", which is none");
    Thread& t = *threads_[first + l];
    if (t.state == State::kDone) wrong(" names exited lane " + std::to_string(l));
    if (t.state != State::kCollective) return;
    if (t.in_collective.mask != mask || t.in_collective.resolve != last.in_collective.resolve ||
        t.site.line != last.site.line) {
      wrong(" meets a different one at line " + std::to_string(t.site.line));
    }
    lanes[l] = &t.in_collective;
  }
  if (last.in_collective.resolve != nullptr) {
    last.in_collective.resolve(lanes, mask);
  } else {
    order_memory(first, mask);
  }
  for (unsigned l = 0; l < kWarp; ++l) {
    if ((mask >> l & 1) != 0) make_ready(*threads_[first + l]);
  }
}

// Of the collectives only __syncwarp orders memory.
void Block::order_memory(unsigned first, unsigned mask) {
  uint32_t seen[kWarp] = {};
  for (unsigned l = 0; l < kWarp; ++l) {
    if ((mask >> l & 1) == 0) continue;
    const Thread& t = *threads_[first + l];
    for (unsigned m = 0; m < kWarp; ++m) seen[m] = std::max(seen[m], t.clocks[m]);
  }
  for (unsigned l = 0; l < kWarp; ++l) {
    if ((mask >> l & 1) == 0) continue;
    Thread& t = *threads_[first + l];
    std::copy_n(seen, kWarp, t.clocks);
    ++t.clocks[l];
  }
}

bool Block::ordered(unsigned id, uint32_t clock) {
  const Thread& self = thread();
  return id == self.id || (id / kWarp == self.warp && self.clocks[id % kWarp] >= clock);
}

}  // namespace emulator
