// Between the ops that Python calls (door.cpp) and the device they run on: the emulated one
// (emulator/controls.cpp) or a real one (real_device.cu).
#pragma once

#include <functional>

#include "api.h"

// Runs an op to its end. Its Status, or -1 and a message for door_message().
int door_run(const std::function<cfsae::Status()>& op);
