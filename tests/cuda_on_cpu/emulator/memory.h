// The two memories a kernel sees. Shared memory: bounds, reads of what nobody wrote, and races
// (two threads, one of them writing, with neither a barrier nor a warp collective between).
// Device memory: bounds of each allocation, reads of what nobody wrote, host access.
//
// The hooks come from the compiler: kernels are built with -fsanitize=thread, whose calls before
// every load and store are answered in instrumentation.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace emulator {

enum class Kind { kRead, kWrite, kAtomic };

class SharedMemory {
 public:
  static constexpr size_t kBytes = 128 << 10, kStaticBytes = 24 << 10, kPoison = 0xFF;
  static constexpr size_t kLimit = 99 << 10;  // of a block: sm_86, sm_89 and sm_120 hold no more

  SharedMemory();
  void reset(size_t dynamic_bytes);  // for a new block: everything unwritten and poisoned
  unsigned char* dynamic() { return memory_ + kStaticBytes; }
  // The block's one object of this type, as `static __shared__ T` would be.
  void* static_object(const void* type, size_t bytes);
  bool has(const void* address) const {
    const auto* const p = static_cast<const unsigned char*>(address);
    return p >= memory_ && p < memory_ + sizeof memory_;
  }
  void access(const void* address, size_t bytes, Kind kind);
  void forget(const void* address, size_t bytes);  // unwritten again: a copy is on its way

 private:
  struct Access {
    uint32_t epoch = 0, clock = 0;  // clock 0: never
    uint16_t thread = 0;
    bool atomic = false;
  };
  struct Granule {  // two bytes
    Access write, reads[3];
    uint8_t next_read = 0;
  };
  struct Static {
    const void* type;
    size_t offset;
  };
  static constexpr size_t kGranule = 2;

  void wipe(size_t first, size_t bytes);
  bool check(const Access& before, bool atomic, const char* what, size_t offset);
  void note(Granule& granule, Kind kind, size_t offset);

  alignas(128) unsigned char memory_[kStaticBytes + kBytes];
  std::vector<uint8_t> written_;
  std::vector<Granule> granules_;
  std::vector<Static> statics_;
  size_t dynamic_bytes_ = 0, static_end_ = 0, static_bytes_ = 0;
};

class DeviceMemory {
 public:
  static constexpr size_t kBytes = 64 << 20, kGap = 256;

  DeviceMemory();

  // Poisoned memory that starts `offset` bytes after a 256-byte boundary.
  void* allocate(size_t bytes, size_t offset);
  void mark_written(const void* address, size_t bytes);
  void close(const void* address, size_t bytes);  // from now on nobody may touch it
  void clear();
  bool has(const void* address) const {
    const auto* const p = static_cast<const unsigned char*>(address);
    return p >= memory_.data() && p < memory_.data() + memory_.size();
  }
  void access(const void* address, size_t bytes, Kind kind);

 private:
  enum Byte : uint8_t { kOutside, kUnwritten, kWritten };

  std::vector<unsigned char> memory_ = std::vector<unsigned char>(kBytes, 0xFF);
  std::vector<uint8_t> bytes_ = std::vector<uint8_t>(kBytes, kOutside);
  size_t end_ = 0;
};

extern SharedMemory g_shared_memory;
extern DeviceMemory g_device_memory;
inline SharedMemory& shared_memory() { return g_shared_memory; }
inline DeviceMemory& device_memory() { return g_device_memory; }
// A load, store or atomic of the running kernel (or of the host, which device memory refuses).
void on_access(const void* address, size_t bytes, Kind kind);
// What the host did to device memory since last asked; empty: nothing wrong.
std::string take_host_error();

}  // namespace emulator
