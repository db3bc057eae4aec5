// An op of this library as ONNX Runtime takes it: no exception passes, memory types are stated.
#pragma once

#include <exception>

#include "onnxruntime/door.h"

namespace cfsae::ort {

// What the nodes of ai.cfsae mean; export/graph.py has it too, and writes it into every node: the
// runtime would hand a node of any version to any library.
inline constexpr int64_t kVersion = 1;

template <typename Op>
struct Kernel {
  OrtApiTable api;
  Op op;
};

inline OrtStatus* failure(OrtApiTable api, ErrorCode code, const char* message) {
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
  return guarded(api, [&] {
    const int64_t version = Info(api, info).integer_or("version", kVersion);
    if (version != kVersion) {
      throw BadInput("the model must hold nodes of version " + std::to_string(kVersion) +
                     " of ai.cfsae, got " + std::to_string(version) +
                     "; take libcfsae_ort.so of the package that exported it, or none");
    }
    *kernel = new Kernel<Op>{api, Op(Info(api, info))};
  });
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

// The same node on the CUDA provider; bit i of Op::kOnHost: input i is read on the CPU.
template <typename Op>
CustomOp declare_on_device() {
  CustomOp op = declare<Op>();
  op.GetExecutionProviderType = [](const CustomOp*) { return "CUDAExecutionProvider"; };
  op.GetInputMemoryType = [](const CustomOp*, size_t at) {
    constexpr int kCpuInput = -2;  // OrtMemTypeCPUInput
    return (Op::kOnHost >> at & 1u) != 0 ? kCpuInput : 0;
  };
  return op;
}

}  // namespace cfsae::ort
