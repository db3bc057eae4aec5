// cp.async: the bytes arrive at the wait and no earlier, so that a missing wait shows as a read of
// unwritten shared memory.
#pragma once

#include <cstddef>

namespace emulator {

void start_copies(size_t n_threads);  // for a new block
bool copies_are_pending();
// The first `bytes - zeros` bytes are copied, the rest becomes 0.
void copy_async(void* to, const void* from, size_t bytes, size_t zeros);
void commit_copies();
void wait_for_copies(int groups_left);

}  // namespace emulator
