#include "async_copy.h"

#include <cstdint>
#include <cstring>
#include <vector>

#include "block.h"
#include "memory.h"

namespace emulator {
namespace {

struct Copy {
  unsigned char* to;
  const unsigned char* from;
  size_t bytes, zeros;
  int group;
};

struct Queue {
  std::vector<Copy> copies;
  int group = 0;
};

std::vector<Queue> g_queues;

Queue& queue() { return g_queues[Block::current->thread().id]; }

}  // namespace

void start_copies(size_t n_threads) { g_queues.assign(n_threads, Queue{}); }

bool copies_are_pending() {
  for (const Queue& q : g_queues) {
    if (!q.copies.empty()) return true;
  }
  return false;
}

void copy_async(void* to, const void* from, size_t bytes, size_t zeros) {
  const auto misaligned = [bytes](const void* p) {
    return reinterpret_cast<uintptr_t>(p) % bytes != 0;
  };
  if (bytes != 4 && bytes != 8 && bytes != 16) Block::current->fail("cp.async of a wrong size");
  if (misaligned(to) || misaligned(from)) Block::current->fail("cp.async is misaligned");
  if (bytes > zeros) on_access(from, bytes - zeros, Kind::kRead);
  on_access(to, bytes, Kind::kWrite);  // from here on nobody else may touch it
  shared_memory().forget(to, bytes);
  Queue& q = queue();
  for (const Copy& before : q.copies) {
    if (before.to == to) Block::current->fail("cp.async to where another one is on its way");
  }
  q.copies.push_back({static_cast<unsigned char*>(to), static_cast<const unsigned char*>(from),
                      bytes, zeros, q.group});
}

void commit_copies() { ++queue().group; }

void wait_for_copies(int groups_left) {
  std::vector<Copy> due, left;
  for (const Copy& copy : queue().copies) {
    (copy.group < queue().group - groups_left ? due : left).push_back(copy);
  }
  queue().copies = left;
  for (const Copy& copy : due) {
    on_access(copy.to, copy.bytes, Kind::kWrite);
    std::memset(copy.to, 0, copy.bytes);
    std::memcpy(copy.to, copy.from, copy.bytes - copy.zeros);
  }
}

}  // namespace emulator
