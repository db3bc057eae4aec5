// The device half of door 1 over the emulated device: what cfsae_fast._C.cuda is over a real one.
// Its device memory is the CPU's, so tensors on the CPU stand in for tensors on CUDA.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "emulator/launch.h"
#include "python/device_ops.h"

PYBIND11_MODULE(cfsae_emulated, m) {
  cfsae::door::add_device_ops(m);
  // Starts over: the schedule of `seed`; launch number `fail_launch` fails as `failure` says.
  m.def(
      "begin",
      [](uint64_t seed, int64_t fail_launch, bool out_of_memory) {
        emulator::settings() = {};
        emulator::settings().seed = seed;
        emulator::settings().fail_launch = fail_launch;
        if (out_of_memory) emulator::settings().failure = emulator::Outcome::kOutOfMemory;
      },
      pybind11::arg("seed") = 0, pybind11::kw_only(), pybind11::arg("fail_launch") = -1,
      pybind11::arg("out_of_memory") = false);
  m.def("launches", [] { return emulator::settings().launches; });
  m.def("launched_on", [] { return emulator::settings().launched_on; });
  m.def("current_device", [] { return emulator::settings().device; });
}
