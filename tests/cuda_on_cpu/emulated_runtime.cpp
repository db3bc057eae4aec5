// The CUDA nodes of ai.cfsae over the emulated device, on the runtime's CPU provider: the nodes'
// own code and the kernels run as they stand, in memory that both call their own.
#include "onnxruntime/declare.h"
#include "onnxruntime/device_ops.h"

namespace cfsae::ort {
namespace {

template <typename Op>
CustomOp emulate() {
  CustomOp op = declare_on_device<Op>();
  op.GetExecutionProviderType = [](const CustomOp*) { return "CPUExecutionProvider"; };
  op.GetInputMemoryType = [](const CustomOp*, size_t) { return 0; };
  return op;
}

const CustomOp kOps[] = {emulate<DeviceEncodeRows>(),
                         emulate<DeviceTopkEncode>(),
                         emulate<DeviceSteerDecode>(),
                         emulate<DeviceRecommend>(),
                         emulate<DeviceSteer>(),
                         emulate<DeviceSparseDecode>(),
                         emulate<DeviceFoldedTopkEncode>(),
                         emulate<DeviceFoldedRecommend>()};

OrtCustomOpDomain* make_domain(OrtApiTable api) {
  OrtCustomOpDomain* domain = nullptr;
  const char* const name = "ai.cfsae";
  require(api, call<Slot::CreateCustomOpDomain, OrtStatus*>(api, name, &domain), "registering");
  for (const CustomOp& op : kOps) {
    require(api, call<Slot::CustomOpDomain_Add, OrtStatus*>(api, domain, &op), "registering");
  }
  return domain;
}

}  // namespace
}  // namespace cfsae::ort

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const OrtApiBase* base) {
  namespace ort = cfsae::ort;
  const OrtApiTable api = base->GetApi(ort::kApiVersion);
  return ort::guarded(api, [&] {
    static OrtCustomOpDomain* const domain = ort::make_domain(api);
    ort::require(api, ort::call<ort::Slot::AddCustomOpDomain, OrtStatus*>(api, options, domain),
                 "registering");
  });
}

// For the test: the memory type that a node of the real library asks for, by name and input.
extern "C" __attribute__((visibility("default"))) int memory_type(const char* name, int at) {
  using namespace cfsae::ort;
  const CustomOp real[] = {declare_on_device<DeviceEncodeRows>(),
                           declare_on_device<DeviceTopkEncode>(),
                           declare_on_device<DeviceSteerDecode>(),
                           declare_on_device<DeviceRecommend>(),
                           declare_on_device<DeviceSteer>(),
                           declare_on_device<DeviceSparseDecode>(),
                           declare_on_device<DeviceFoldedTopkEncode>(),
                           declare_on_device<DeviceFoldedRecommend>()};
  for (const CustomOp& op : real) {
    const size_t input = static_cast<size_t>(at);
    if (std::string(op.GetName(&op)) != name || input >= op.GetInputTypeCount(&op)) continue;
    return op.GetInputMemoryType(&op, input);
  }
  return 1;
}
