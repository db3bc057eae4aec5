// Which device a thread's launches go to, and what the last failed one said.
#include "cuda/platform.h"

namespace cfsae::cuda {

DeviceGuard::DeviceGuard(int device) : device_(device) {
  if (current_device(before_) != Status::kOk) return;
  is_set_ = before_ == device || set_device(device) == Status::kOk;
}

DeviceGuard::~DeviceGuard() {
  if (is_set_ && before_ != device_) set_device(before_);
}

const char* failure() { return last_failure; }

}  // namespace cfsae::cuda
