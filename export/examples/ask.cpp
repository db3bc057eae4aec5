// Asks an exported model through ONNX Runtime's C API: ask MODEL LIBRARY N ITEM...
// [LATENT=WEIGHT...]
//
// ITEM, LATENT: positions (the manifest beside the model names them); LIBRARY: libcfsae_ort.so, or
// "-" for standard ops. Prints "score position" a line, best first. Build:
//   c++ -std=c++17 -I$ORT_INCLUDE_DIR ask.cpp -o ask -L... -lonnxruntime
#include <onnxruntime_c_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

const OrtApi* const api = OrtGetApiBase()->GetApi(ORT_API_VERSION);

void check(OrtStatus* status) {
  if (status == nullptr) return;
  std::fprintf(stderr, "%s\n", api->GetErrorMessage(status));
  api->ReleaseStatus(status);
  std::exit(1);
}

template <typename T>
OrtValue* tensor(std::vector<T>& data, ONNXTensorElementDataType type, size_t rank = 1) {
  OrtMemoryInfo* memory = nullptr;
  check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
  const int64_t shape[] = {static_cast<int64_t>(data.size())};
  OrtValue* value = nullptr;
  check(api->CreateTensorWithDataAsOrtValue(memory, data.data(), data.size() * sizeof(T), shape,
                                            rank, type, &value));
  api->ReleaseMemoryInfo(memory);
  return value;
}

struct Request {
  std::vector<int64_t> items, offsets{0}, latents, kinds, knob_offsets{0}, n;
  std::vector<float> weights;

  explicit Request(int argc, char** argv) {
    n.push_back(std::atoll(argv[3]));
    for (int at = 4; at < argc; ++at) {
      const char* const weight = std::strchr(argv[at], '=');
      if (weight == nullptr) {
        items.push_back(std::atoll(argv[at]));
        continue;
      }
      latents.push_back(std::atoll(argv[at]));
      weights.push_back(std::strtof(weight + 1, nullptr));
      kinds.push_back(0);  // mix
    }
    offsets.push_back(static_cast<int64_t>(items.size()));
    knob_offsets.push_back(static_cast<int64_t>(latents.size()));
  }
};

OrtSession* open(OrtEnv* env, const char* model, const char* library) {
  OrtSessionOptions* options = nullptr;
  check(api->CreateSessionOptions(&options));
  if (std::string(library) != "-") check(api->RegisterCustomOpsLibrary_V2(options, library));
  OrtSession* session = nullptr;
  check(api->CreateSession(env, model, options, &session));
  api->ReleaseSessionOptions(options);
  return session;
}

void print(const OrtValue* ids, const OrtValue* scores, int64_t n) {
  void *of_ids = nullptr, *of_scores = nullptr;
  check(api->GetTensorMutableData(const_cast<OrtValue*>(ids), &of_ids));
  check(api->GetTensorMutableData(const_cast<OrtValue*>(scores), &of_scores));
  for (int64_t rank = 0; rank < n; ++rank) {
    const int64_t item = static_cast<int64_t*>(of_ids)[rank];
    if (item < 0) break;  // no more may be recommended
    std::printf("%.6f %lld\n", static_cast<float*>(of_scores)[rank], static_cast<long long>(item));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4 || api == nullptr) {
    std::fprintf(stderr, argc < 4 ? "ask MODEL LIBRARY|- N ITEM... [LATENT=WEIGHT...]\n"
                                  : "the runtime is older than the headers\n");
    return 2;
  }
  Request request(argc, argv);
  OrtEnv* env = nullptr;
  check(api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "ask", &env));
  OrtSession* const session = open(env, argv[1], argv[2]);
  constexpr auto kLong = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  const char* const names[] = {
      "items", "offsets", "knob_latents", "knob_weights", "knob_kinds", "knob_offsets", "n"};
  const OrtValue* const values[] = {
      tensor(request.items, kLong),   tensor(request.offsets, kLong),
      tensor(request.latents, kLong), tensor(request.weights, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT),
      tensor(request.kinds, kLong),   tensor(request.knob_offsets, kLong),
      tensor(request.n, kLong, 0)};
  const char* const wanted[] = {"ids", "scores"};
  OrtValue* answers[] = {nullptr, nullptr};
  check(api->Run(session, nullptr, names, values, 7, wanted, 2, answers));
  print(answers[0], answers[1], request.n[0]);
  for (const OrtValue* value : values) api->ReleaseValue(const_cast<OrtValue*>(value));
  for (OrtValue* answer : answers) api->ReleaseValue(answer);
  api->ReleaseSession(session);
  api->ReleaseEnv(env);
  return 0;
}
