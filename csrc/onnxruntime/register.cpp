// Door 2: RegisterCustomOps, the one symbol that ONNX Runtime looks for.
#include <exception>

#include "onnxruntime/ops.h"

namespace cfsae::ort {
namespace {

template <typename Op>
struct Kernel {
  OrtApiTable api;
  Op op;
};

OrtStatus* failure(OrtApiTable api, ErrorCode code, const char* message) {
  return call<Slot::CreateStatus, OrtStatus*>(api, code, message);
}

// No exception may leave the library.
template <typename Body>
OrtStatus* guarded(OrtApiTable api, const Body& body) {
  try {
    body();
    return nullptr;
  } catch (const BadInput& error) {
    return failure(api, ErrorCode::kInvalidArgument, error.what());
  } catch (const std::exception& error) {
    return failure(api, ErrorCode::kFail, error.what());
  } catch (...) {
    return failure(api, ErrorCode::kFail, "an unknown error in the kernels of cfsae");
  }
}

template <typename Op>
OrtStatus* create(const CustomOp*, OrtApiTable api, const OrtKernelInfo* info, void** kernel) {
  return guarded(api, [&] { *kernel = new Kernel<Op>{api, Op(Info(api, info))}; });
}

template <typename Op>
OrtStatus* compute(void* kernel, OrtKernelContext* context) {
  const auto* const self = static_cast<const Kernel<Op>*>(kernel);
  return guarded(self->api, [&] {
    const PoolScope pool(self->api, context);
    self->op.run(Context(self->api, context));
  });
}

template <typename Op>
CustomOp declare() {
  CustomOp op{};
  op.version = kApiVersion;
  op.GetName = [](const CustomOp*) { return Op::kName; };
  op.GetExecutionProviderType = [](const CustomOp*) { return "CPUExecutionProvider"; };
  op.GetInputType = [](const CustomOp*, size_t at) { return Op::kInputs[at]; };
  op.GetInputTypeCount = [](const CustomOp*) { return Op::kInputs.size(); };
  op.GetOutputType = [](const CustomOp*, size_t at) { return Op::kOutputs[at]; };
  op.GetOutputTypeCount = [](const CustomOp*) { return Op::kOutputs.size(); };
  op.GetInputCharacteristic = [](const CustomOp*, size_t) { return 0; };  // required
  op.GetOutputCharacteristic = [](const CustomOp*, size_t) { return 0; };
  op.GetInputMemoryType = [](const CustomOp*, size_t) { return 0; };  // default
  op.GetVariadicInputMinArity = [](const CustomOp*) { return 1; };
  op.GetVariadicInputHomogeneity = [](const CustomOp*) { return 1; };
  op.GetVariadicOutputMinArity = [](const CustomOp*) { return 1; };
  op.GetVariadicOutputHomogeneity = [](const CustomOp*) { return 1; };
  op.GetStartVersion = [](const CustomOp*) { return 1; };
  op.GetEndVersion = [](const CustomOp*) { return INT32_MAX; };
  op.CreateKernelV2 = create<Op>;
  op.KernelComputeV2 = compute<Op>;
  op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel<Op>*>(kernel); };
  return op;
}

const CustomOp kOps[] = {
    declare<EncodeRows>(),       declare<TopkEncode>(),     declare<SteerDecode>(),
    declare<Recommend>(),        declare<Steer>(),          declare<SparseDecode>(),
    declare<FoldedTopkEncode>(), declare<FoldedRecommend>()};

// Made once and never released: it must outlive every session.
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
