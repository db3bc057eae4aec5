// x86-64 saves the registers that a call must preserve and swaps stacks (about 5 ns); elsewhere
// ucontext does the same with a system call each way. AddressSanitizer is told of every switch.
#include "fiber.h"

#include <cstdint>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__)
extern "C" void emulator_switch(void** save, void* to);
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch,@function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_switch,.-emulator_switch
)");
#endif

namespace emulator {
namespace {

constexpr size_t kCanaryBytes = 256;

struct Canary {
  unsigned char bytes[kCanaryBytes];
  Canary() { std::memset(bytes, 0xC5, kCanaryBytes); }
};
const Canary kCanary;

#if defined(__SANITIZE_ADDRESS__)
struct Bounds {
  const void* low;
  size_t bytes;
};

Bounds scheduler_stack() {
  pthread_attr_t attributes;
  void* low = nullptr;
  size_t bytes = 0;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &low, &bytes);
  pthread_attr_destroy(&attributes);
  return {low, bytes};
}
#endif

void (*g_entry)() = nullptr;

void start() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  g_entry();  // never returns: it yields for good
  __builtin_trap();
}

}  // namespace

Fiber::Fiber() : stack_(new unsigned char[kStackBytes]) {
  std::memcpy(stack_.get(), kCanary.bytes, kCanaryBytes);
}

bool Fiber::overflowed() const {
  return std::memcmp(stack_.get(), kCanary.bytes, kCanaryBytes) != 0;
}

void Fiber::prepare(void (*entry)()) {
  g_entry = entry;
  unsigned char* const top = stack_.get() + kStackBytes;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack_.get(), kStackBytes);
  own_shadow_ = nullptr;
#endif
#if defined(__x86_64__)
  void** slot = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t{63});
  *--slot = nullptr;  // keeps the stack aligned as after a call
  *--slot = reinterpret_cast<void*>(&start);
  for (int saved = 0; saved < 6; ++saved) *--slot = nullptr;
  own_ = slot;
#else
  (void)top;
  getcontext(&own_);
  own_.uc_stack.ss_sp = stack_.get();
  own_.uc_stack.ss_size = kStackBytes;
  own_.uc_link = nullptr;
  makecontext(&own_, start, 0);
#endif
}

void Fiber::resume() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&scheduler_shadow_, stack_.get(), kStackBytes);
#endif
#if defined(__x86_64__)
  emulator_switch(&scheduler_, own_);
#else
  swapcontext(&scheduler_, &own_);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(scheduler_shadow_, nullptr, nullptr);
#endif
}

void Fiber::yield() {
#if defined(__SANITIZE_ADDRESS__)
  static const Bounds scheduler = scheduler_stack();
  __sanitizer_start_switch_fiber(&own_shadow_, scheduler.low, scheduler.bytes);
#endif
#if defined(__x86_64__)
  emulator_switch(&own_, scheduler_);
#else
  swapcontext(&own_, &scheduler_);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(own_shadow_, nullptr, nullptr);
#endif
}

}  // namespace emulator
