// One stack per emulated CUDA thread, and the switch between that stack and the scheduler's.
#pragma once

#include <cstddef>
#include <memory>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulator {

class Fiber {
 public:
  static constexpr size_t kStackBytes = 64 << 10;

  Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next resume() runs entry() from its start; whatever ran here before is abandoned.
  void prepare(void (*entry)());
  void resume();  // called by the scheduler; returns when the fiber yields
  void yield();   // called by the fiber; returns when the scheduler resumes it
  bool overflowed() const;

 private:
  std::unique_ptr<unsigned char[]> stack_;
#if defined(__x86_64__)
  void *own_ = nullptr, *scheduler_ = nullptr;  // stack pointers of the side that sleeps
#else
  ucontext_t own_, scheduler_;
#endif
#if defined(__SANITIZE_ADDRESS__)
  void *own_shadow_ = nullptr, *scheduler_shadow_ = nullptr;
#endif
};

}  // namespace emulator
