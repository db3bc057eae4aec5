// The emulated device as Python sees it: schedule, memory, messages.
#include <string>

#include "door.h"
#include "emulator/launch.h"
#include "emulator/memory.h"

namespace {

std::string g_message;

}  // namespace

int door_run(const std::function<cfsae::Status()>& op) {
  try {
    const cfsae::Status status = op();
    g_message = emulator::take_host_error();
    return g_message.empty() ? static_cast<int>(status) : -1;
  } catch (const emulator::Error& error) {
    g_message = error.what();
    emulator::take_host_error();
    return -1;
  }
}

extern "C" {

const char* door_message() { return g_message.c_str(); }

void door_begin(uint64_t seed, int64_t fail_launch) {
  emulator::settings() = {};
  emulator::settings().seed = seed;
  emulator::settings().fail_launch = fail_launch;
  emulator::device_memory().clear();
}

int64_t door_launches() { return emulator::settings().launches; }

void* door_allocate(size_t bytes, size_t offset) {
  return emulator::device_memory().allocate(bytes, offset);
}

void door_mark_written(const void* address, size_t bytes) {
  emulator::device_memory().mark_written(address, bytes);
}

}  // extern "C"
