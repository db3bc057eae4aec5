// Shadows of shared and device memory. Two bytes of shared memory share one record, so neighbouring
// byte-sized stores of different threads would be reported; no kernel has any.
#include "memory.h"

#include <algorithm>
#include <cstring>

#include "block.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace emulator {
namespace {

// AddressSanitizer sees the gaps between allocations, too, where the kernels are built with it.
void open_to_sanitizer([[maybe_unused]] const void* at, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(at, bytes);
#endif
}
void close_to_sanitizer([[maybe_unused]] const void* at, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(at, bytes);
#endif
}

std::string g_host_error;

const char* verb(Kind kind) {
  return kind == Kind::kRead ? "read" : kind == Kind::kWrite ? "write" : "atomic";
}

}  // namespace

SharedMemory g_shared_memory;
DeviceMemory g_device_memory;

SharedMemory::SharedMemory()
    : written_(kStaticBytes + kBytes), granules_((kStaticBytes + kBytes) / kGranule + 1) {
  std::fill_n(memory_, sizeof memory_, static_cast<unsigned char>(kPoison));
}

void SharedMemory::wipe(size_t first, size_t bytes) {
  std::fill_n(memory_ + first, bytes, static_cast<unsigned char>(kPoison));
  std::fill_n(written_.begin() + first, bytes, uint8_t{0});
  std::fill_n(granules_.begin() + first / kGranule, bytes / kGranule + 1, Granule{});
}

void SharedMemory::reset(size_t dynamic_bytes) {
  wipe(0, static_end_);  // what the block before could touch; the rest is as it was made
  wipe(kStaticBytes, dynamic_bytes_);
  statics_.clear();
  static_end_ = static_bytes_ = 0;
  dynamic_bytes_ = dynamic_bytes;
}

void* SharedMemory::static_object(const void* type, size_t bytes) {
  for (const Static& object : statics_) {
    if (object.type == type) return memory_ + object.offset;
  }
  const size_t offset = static_end_;
  if (offset + bytes + 64 > kStaticBytes) Block::current->fail("static shared memory is full");
  static_bytes_ += bytes;
  if (static_bytes_ + dynamic_bytes_ > kLimit) {
    Block::current->fail("static and dynamic shared memory exceed 99 KB together");
  }
  statics_.push_back({type, offset});
  static_end_ = (offset + bytes + 64 + 31) / 32 * 32;  // a gap that no access may touch
  std::fill_n(written_.begin() + offset, bytes, uint8_t{0});
  std::fill_n(written_.begin() + offset + bytes, static_end_ - offset - bytes, uint8_t{2});
  return memory_ + offset;
}

bool SharedMemory::check(const Access& before, bool atomic, const char* what, size_t offset) {
  Block& block = *Block::current;
  if (before.clock == 0 || before.epoch != block.epoch() || (atomic && before.atomic)) return true;
  if (block.ordered(before.thread, before.clock)) return true;
  block.fail(std::string("race in shared memory: ") + what + " with thread " +
             std::to_string(before.thread) + " at byte " + std::to_string(offset));
  return false;
}

void SharedMemory::note(Granule& granule, Kind kind, size_t offset) {
  Block& block = *Block::current;
  const Thread& self = block.thread();
  const bool atomic = kind == Kind::kAtomic;
  const Access now{block.epoch(), self.clocks[self.lane], static_cast<uint16_t>(self.id), atomic};
  check(granule.write, atomic, kind == Kind::kRead ? "read and write" : "write and write", offset);
  if (kind == Kind::kRead) {
    for (Access& read : granule.reads) {
      if (read.thread == now.thread && read.clock != 0) {
        read = now;
        return;
      }
    }
    granule.reads[granule.next_read] = now;
    granule.next_read = (granule.next_read + 1) % 3;
    return;
  }
  for (const Access& read : granule.reads) check(read, atomic, "write and read", offset);
  granule.write = now;
}

void SharedMemory::access(const void* address, size_t bytes, Kind kind) {
  Block& block = *Block::current;
  const size_t at = static_cast<const unsigned char*>(address) - memory_;
  const bool is_static = at < kStaticBytes;
  const size_t end = is_static ? static_end_ : kStaticBytes + dynamic_bytes_;
  for (size_t i = at; i < at + bytes; ++i) {
    if (i >= end || written_[i] == 2) {
      return block.fail("shared memory overrun: " + std::string(verb(kind)) + " of byte " +
                        std::to_string(is_static ? i : i - kStaticBytes) + " of " +
                        std::to_string(is_static ? end : dynamic_bytes_));
    }
    if (kind != Kind::kWrite && written_[i] == 0) {
      return block.fail("read of unwritten shared memory at byte " +
                        std::to_string(is_static ? i : i - kStaticBytes));
    }
    if (kind != Kind::kRead) written_[i] = 1;
  }
  for (size_t i = at / kGranule; i <= (at + bytes - 1) / kGranule; ++i) {
    note(granules_[i], kind, i * kGranule);
  }
}

void SharedMemory::forget(const void* address, size_t bytes) {
  const size_t at = static_cast<const unsigned char*>(address) - memory_;
  std::fill_n(written_.begin() + at, bytes, uint8_t{0});
  std::fill_n(memory_ + at, bytes, static_cast<unsigned char>(kPoison));
}

DeviceMemory::DeviceMemory() { close_to_sanitizer(memory_.data(), kBytes); }

void* DeviceMemory::allocate(size_t bytes, size_t offset) {
  const uintptr_t start = reinterpret_cast<uintptr_t>(memory_.data()) + end_ + kGap;
  const size_t at =
      (start + 255) / 256 * 256 - reinterpret_cast<uintptr_t>(memory_.data()) + offset;
  if (at + bytes + kGap > kBytes) return nullptr;
  end_ = at + bytes;
  std::fill_n(bytes_.begin() + at, bytes, uint8_t{kUnwritten});
  open_to_sanitizer(memory_.data() + at, bytes);
  return memory_.data() + at;
}

void DeviceMemory::mark_written(const void* address, size_t bytes) {
  const size_t at = static_cast<const unsigned char*>(address) - memory_.data();
  std::fill_n(bytes_.begin() + at, bytes, uint8_t{kWritten});
}

void DeviceMemory::close(const void* address, size_t bytes) {
  if (!has(address)) return;  // the memory of another device, or of the host
  const size_t at = static_cast<const unsigned char*>(address) - memory_.data();
  std::fill_n(bytes_.begin() + at, bytes, uint8_t{kOutside});
  close_to_sanitizer(address, bytes);
}

void DeviceMemory::clear() {
  open_to_sanitizer(memory_.data(), end_);
  std::fill_n(memory_.begin(), end_, static_cast<unsigned char>(0xFF));
  close_to_sanitizer(memory_.data(), end_);
  std::fill_n(bytes_.begin(), end_, uint8_t{kOutside});
  end_ = 0;
}

void DeviceMemory::access(const void* address, size_t bytes, Kind kind) {
  const size_t at = static_cast<const unsigned char*>(address) - memory_.data();
  for (size_t i = at; i < at + bytes; ++i) {
    if (bytes_[i] == kOutside) {
      return Block::current->fail("device memory: " + std::string(verb(kind)) +
                                  " outside of every allocation");
    }
    if (kind != Kind::kWrite && bytes_[i] == kUnwritten) {
      return Block::current->fail("read of unwritten device memory");
    }
    if (kind != Kind::kRead) bytes_[i] = kWritten;
  }
}

void on_access(const void* address, size_t bytes, Kind kind) {
#if defined(__SANITIZE_ADDRESS__) || defined(EMULATOR_UNCHECKED)
  if (address != nullptr) return;  // plain stores are not seen, so nothing can be said of loads
#endif
  constexpr unsigned kPreemptOneIn = 256;
  Block* const block = Block::current;
  if (shared_memory().has(address) && block != nullptr) {
    shared_memory().access(address, bytes, kind);
    block->maybe_preempt(kPreemptOneIn);
  } else if (device_memory().has(address)) {
    if (block == nullptr) {
      g_host_error = std::string("the host ") + verb(kind) + "s device memory";
    } else {
      device_memory().access(address, bytes, kind);
    }
  }
}

std::string take_host_error() {
  std::string error;
  error.swap(g_host_error);
  return error;
}

}  // namespace emulator
