// Door 2: RegisterCustomOps, the one symbol that ONNX Runtime looks for.
#include "onnxruntime/declare.h"
#include "onnxruntime/ops.h"
#if CFSAE_CUDA
#include "onnxruntime/device_ops.h"
#endif

namespace cfsae::ort {
namespace {

const CustomOp kOps[] = {
    declare<EncodeRows>(),       declare<TopkEncode>(),     declare<SteerDecode>(),
    declare<Recommend>(),        declare<Steer>(),          declare<SparseDecode>(),
    declare<FoldedTopkEncode>(), declare<FoldedRecommend>()};

#if CFSAE_CUDA
const CustomOp kDeviceOps[] = {declare_on_device<DeviceEncodeRows>(),
                               declare_on_device<DeviceTopkEncode>(),
                               declare_on_device<DeviceSteerDecode>(),
                               declare_on_device<DeviceRecommend>(),
                               declare_on_device<DeviceSteer>(),
                               declare_on_device<DeviceSparseDecode>(),
                               declare_on_device<DeviceFoldedTopkEncode>(),
                               declare_on_device<DeviceFoldedRecommend>()};
#endif

// Made once and never released: it must outlive every session.
OrtCustomOpDomain* make_domain(OrtApiTable api) {
  OrtCustomOpDomain* domain = nullptr;
  const char* const name = "ai.cfsae";
  require(api, call<Slot::CreateCustomOpDomain, OrtStatus*>(api, name, &domain), "registering");
  for (const CustomOp& op : kOps) {
    require(api, call<Slot::CustomOpDomain_Add, OrtStatus*>(api, domain, &op), "registering");
  }
#if CFSAE_CUDA
  for (const CustomOp& op : kDeviceOps) {
    require(api, call<Slot::CustomOpDomain_Add, OrtStatus*>(api, domain, &op), "registering");
  }
#endif
  return domain;
}

}  // namespace
}  // namespace cfsae::ort

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const OrtApiBase* base) {
  namespace ort = cfsae::ort;
  const OrtApiTable api = base->GetApi(ort::kApiVersion);
  if (api == nullptr) {  // an older runtime; it still has the slot that makes a status
    return ort::failure(base->GetApi(1), ort::ErrorCode::kFail,
                        "libcfsae_ort needs onnxruntime 1.17 or newer");
  }
  return ort::guarded(api, [&] {
    static OrtCustomOpDomain* const domain = ort::make_domain(api);
    ort::require(api, ort::call<ort::Slot::AddCustomOpDomain, OrtStatus*>(api, options, domain),
                 "registering");
  });
}
