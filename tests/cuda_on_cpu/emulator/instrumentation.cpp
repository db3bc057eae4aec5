// Answers the calls that -fsanitize=thread puts before every load and store of a kernel, and
// -fsanitize=bounds before an index that is none of an array's (registers and shared memory alike);
// the sanitizers' own runtimes are not linked.
#include <cstddef>
#include <cstdlib>

#include "block.h"
#include "memory.h"

using emulator::Kind;
using emulator::on_access;

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

void __tsan_read1(void* p) { on_access(p, 1, Kind::kRead); }
void __tsan_read2(void* p) { on_access(p, 2, Kind::kRead); }
void __tsan_read4(void* p) { on_access(p, 4, Kind::kRead); }
void __tsan_read8(void* p) { on_access(p, 8, Kind::kRead); }
void __tsan_read16(void* p) { on_access(p, 16, Kind::kRead); }
void __tsan_unaligned_read2(void* p) { on_access(p, 2, Kind::kRead); }
void __tsan_unaligned_read4(void* p) { on_access(p, 4, Kind::kRead); }
void __tsan_unaligned_read8(void* p) { on_access(p, 8, Kind::kRead); }
void __tsan_unaligned_read16(void* p) { on_access(p, 16, Kind::kRead); }
void __tsan_read_range(void* p, size_t bytes) { on_access(p, bytes, Kind::kRead); }

void __tsan_write1(void* p) { on_access(p, 1, Kind::kWrite); }
void __tsan_write2(void* p) { on_access(p, 2, Kind::kWrite); }
void __tsan_write4(void* p) { on_access(p, 4, Kind::kWrite); }
void __tsan_write8(void* p) { on_access(p, 8, Kind::kWrite); }
void __tsan_write16(void* p) { on_access(p, 16, Kind::kWrite); }
void __tsan_unaligned_write2(void* p) { on_access(p, 2, Kind::kWrite); }
void __tsan_unaligned_write4(void* p) { on_access(p, 4, Kind::kWrite); }
void __tsan_unaligned_write8(void* p) { on_access(p, 8, Kind::kWrite); }
void __tsan_unaligned_write16(void* p) { on_access(p, 16, Kind::kWrite); }
void __tsan_write_range(void* p, size_t bytes) { on_access(p, bytes, Kind::kWrite); }

void __ubsan_handle_out_of_bounds(void*, unsigned long) {
  if (emulator::Block::current == nullptr) std::abort();  // the host's own code
  emulator::Block::current->fail("an index is outside of its array");
}

}  // extern "C"
