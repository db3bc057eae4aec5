// Each node on the device: check what came, queue the engine's kernels on the run's stream.
#include "onnxruntime/device_ops.h"

#include <cmath>

#include "onnxruntime/knobs.h"

namespace cfsae::ort {
namespace {

constexpr auto kPrecision = cuda::Precision::kExact;

void raise_unless_queued(Status status) {
  if (status == Status::kTooLarge) {
    throw BadInput("the request is too large for the CUDA kernels; ask for less or use the CPU");
  }
  raise_unless_ok(status);
  if (status != Status::kOk) throw std::runtime_error(cuda::failure());
}

// Memory of one run on its stream, which goes back in stream order: after the kernels queued.
class DeviceMemory {
 public:
  explicit DeviceMemory(const Context& context) { how_.stream = context.stream(); }
  ~DeviceMemory() {
    for (void* const memory : taken_) cuda::release(memory, how_);
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  void* take(int64_t bytes) {
    if (bytes == 0) return nullptr;
    taken_.reserve(taken_.size() + 1);
    void* memory = nullptr;
    raise_unless_queued(cuda::allocate(bytes, &memory, how_));
    taken_.push_back(memory);
    return memory;
  }

  template <typename T>
  const T* copy_of(const T* from, int64_t count) {
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    void* const to = take(bytes);
    if (bytes > 0) raise_unless_queued(cuda::copy_in(to, from, bytes, how_));
    return static_cast<const T*>(to);
  }

  RowsView copy_of(const RowsView& rows) {
    return {rows.n_rows, copy_of(rows.offsets, rows.n_rows + 1),
            copy_of(rows.items, rows.offsets[rows.n_rows]), nullptr};
  }

  KnobsView copy_of(const KnobsView& knobs) {
    const int64_t n = knobs.offsets[knobs.n_rows];
    return {knobs.n_rows, copy_of(knobs.offsets, knobs.n_rows + 1), copy_of(knobs.latents, n),
            copy_of(knobs.weights, n), copy_of(knobs.kinds, n)};
  }

  const cuda::Execution& how() const { return how_; }
  cuda::Execution with(void* workspace) const { return {how_.stream, workspace}; }

 private:
  cuda::Execution how_;
  std::vector<void*> taken_;
};

// The knobs of inputs `first` ... as the CPU nodes check them. Their relative ADDs need the sums of
// the code: only then are its values read back, which waits for the stream.
CheckedKnobs knobs_of(const Context& context, size_t first, const CodeView& code, int64_t n_latents,
                      const DeviceMemory& memory) {
  const Span<int64_t> kinds = context.int64s(first + 2, "knob_kinds", {kAny});
  bool relative = false;
  for (int64_t j = 0; j < kinds.size(); ++j) relative |= kinds.data[j] == kAddRelative;
  std::vector<float> values(static_cast<size_t>(code.n_rows * code.k), 0.0f);
  if (relative && !values.empty()) {
    const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(float));
    raise_unless_queued(cuda::copy_out(values.data(), code.values, bytes, memory.how()));
  }
  return {context, first, {code.n_rows, code.k, nullptr, values.data()}, n_latents};
}

// Ids in a code are not looked at here: the kernels take those out of range as padding.
CodeView code_of(const Context& context, size_t first, int64_t n_rows) {
  const Span<int32_t> indices = context.int32s(first, "indices", {n_rows, kAny});
  const int64_t n = indices.shape[0], k = indices.shape[1];
  return {n, k, indices.data, context.floats(first + 1, "values", {n, k}).data};
}

// The weight of every entry of a row scaled to length 1.
std::vector<float> unit_weights(const RowsView& rows) {
  std::vector<float> weights;
  for (int64_t b = 0; b < rows.n_rows; ++b) {
    const int64_t n = rows.offsets[b + 1] - rows.offsets[b];
    weights.insert(weights.end(), static_cast<size_t>(n), 1.0f / std::sqrt(static_cast<float>(n)));
  }
  return weights;
}

// The outputs of a node that encodes: the code, and its stats where they are written.
class Encoded {
 public:
  Encoded(const Context& context, int64_t n_rows, int64_t k, bool standardizes)
      : code{n_rows, k, context.int32_out(0, {n_rows, k}), context.float_out(1, {n_rows, k})},
        mean_(context.float_out(2, {n_rows})),
        std_(context.float_out(3, {n_rows})),
        standardizes_(standardizes) {}

  const CodeOut code;
  float* mean() const { return standardizes_ ? mean_ : nullptr; }
  float* std() const { return standardizes_ ? std_ : nullptr; }

  // Stats that the kernels do not write, and values that do not exceed the threshold.
  void finish(float threshold, const cuda::Execution& how) const {
    const std::vector<float> zeros(static_cast<size_t>(code.n_rows), 0.0f), ones(zeros.size(), 1);
    const int64_t bytes = code.n_rows * static_cast<int64_t>(sizeof(float));
    if (!standardizes_ && bytes > 0) {
      raise_unless_queued(cuda::copy_in(mean_, zeros.data(), bytes, how));
      raise_unless_queued(cuda::copy_in(std_, ones.data(), bytes, how));
    }
    if (threshold > 0.0f) raise_unless_queued(cuda::keep_above(code, threshold, how));
  }

 private:
  float *mean_, *std_;
  bool standardizes_;
};

// The outputs of a node that recommends, and on the device what it must not recommend.
class DeviceAnswer {
 public:
  DeviceAnswer(const Context& context, const Asked& asked, int64_t n_rows, DeviceMemory& memory)
      : seen(memory.copy_of(asked.seen.view())),
        allowed(memory.copy_of(asked.allowed_items.data(),
                               static_cast<int64_t>(asked.allowed_items.size()))),
        n_(n_rows * asked.n),
        ids_(context.int64_out(0, {n_rows, asked.n})),
        out{n_rows, asked.n,
            static_cast<int32_t*>(memory.take(n_ * static_cast<int64_t>(sizeof(int32_t)))),
            context.float_out(1, {n_rows, asked.n})} {}

  const RowsView seen;
  const uint8_t* const allowed;
  void write(const cuda::Execution& how) const {  // int32 ids -> the runtime's int64
    raise_unless_queued(cuda::widen(out.indices, n_, ids_, how));
  }

 private:
  int64_t n_;
  int64_t* ids_;

 public:
  const CodeOut out;
};

}  // namespace

void DeviceEncodeRows::run(const Context& context) const {
  const Matrix weight = context.matrix(2, "weight", kAny, kAny);
  const float* const bias = context.floats(3, "bias", {weight.dim}).data;
  const RowSets sets("items", context.int64s(0, "items", {kAny}),
                     context.int64s(1, "offsets", {kAny}), weight.n_rows);
  const RowsView rows = sets.view();
  float* const out = context.float_out(0, {rows.n_rows, weight.dim});
  DeviceMemory memory(context);
  RowsView on_device = memory.copy_of(rows);
  const std::vector<float> weights = normalize ? unit_weights(rows) : std::vector<float>{};
  on_device.values = memory.copy_of(weights.data(), static_cast<int64_t>(weights.size()));
  raise_unless_queued(cuda::encode_rows(on_device, weight, bias, out, memory.how()));
}

void DeviceTopkEncode::run(const Context& context) const {
  const Matrix embedding = context.matrix(0, "embedding", kAny, kAny);
  const Matrix encoder = context.matrix(1, "encoder", kAny, embedding.dim);
  const float* const bias = context.floats(2, "bias", {encoder.n_rows}).data;
  const float* const centre = context.floats(3, "centre", {embedding.dim}).data;
  check_k(k, encoder.n_rows);
  const int64_t n = embedding.n_rows;
  const Encoded encoded(context, n, k, standardize);
  DeviceMemory memory(context);
  void* const scratch =
      memory.take(cuda::topk_encode_bytes(n, embedding.dim, encoder.n_rows, k, kPrecision));
  raise_unless_queued(cuda::topk_encode(embedding, encoder, bias, centre, encoded.code,
                                        encoded.mean(), encoded.std(), kPrecision,
                                        memory.with(scratch)));
  encoded.finish(threshold, memory.how());
}

void DeviceFoldedTopkEncode::run(const Context& context) const {
  const Matrix embedding = context.matrix(2, "embedding", kAny, kAny);
  const Matrix encoder = context.matrix(3, "encoder", kAny, embedding.dim);
  const float* const bias = context.floats(4, "bias", {encoder.n_rows}).data;
  const float* const centre = context.floats(5, "centre", {embedding.dim}).data;
  const int64_t n = embedding.n_rows, n_latents = encoder.n_rows;
  const int64_t n_items = context.int8s(6, "table", {kAny, n_latents}).shape[0];
  const FoldedInputs table(context, 6, n_items, n_latents);
  const RowSets sets("items", context.int64s(0, "items", {kAny}),
                     context.int64s(1, "offsets", {n + 1}), n_items);
  check_k(k, n_latents);
  const Encoded encoded(context, n, k, standardize);
  DeviceMemory memory(context);
  const RowsView rows = memory.copy_of(sets.view());
  void* const scratch = memory.take(cuda::folded_topk_encode_bytes(n, embedding.dim, n_latents, k));
  raise_unless_queued(cuda::folded_topk_encode(rows, table.encoder(), embedding, encoder, bias,
                                               centre, encoded.code, encoded.mean(), encoded.std(),
                                               memory.with(scratch)));
  encoded.finish(threshold, memory.how());
}

void DeviceSteerDecode::run(const Context& context) const {
  const Matrix dictionary = context.matrix(10, "dictionary", kAny, kAny);
  const Matrix embedding = context.matrix(0, "embedding", kAny, dictionary.dim);
  const int64_t n = embedding.n_rows;
  const CodeView code = code_of(context, 1, n);
  const StatsView stats{context.floats(3, "mean", {n}).data, context.floats(4, "std", {n}).data};
  const float* const bias = context.floats(11, "bias", {dictionary.dim}).data;
  DeviceMemory memory(context);
  const CheckedKnobs knobs = knobs_of(context, 5, code, dictionary.n_rows, memory);
  float* const out = context.float_out(0, {n, dictionary.dim});
  raise_unless_queued(cuda::steer_decode(embedding, code, memory.copy_of(knobs.view()),
                                         knobs.most_knobs(), dictionary, bias, stats, mode, out,
                                         memory.how()));
}

void DeviceSteer::run(const Context& context) const {
  const Matrix dictionary = context.matrix(7, "dictionary", kAny, kAny);
  const CodeView code = code_of(context, 0, kAny);
  DeviceMemory memory(context);
  const CheckedKnobs knobs = knobs_of(context, 2, code, dictionary.n_rows, memory);
  const int64_t n = code.n_rows, k = code.k + knobs.most_latents();
  const CodeOut out{n, k, context.int32_out(0, {n, k}), context.float_out(1, {n, k})};
  raise_unless_queued(
      cuda::steer(code, memory.copy_of(knobs.view()), knobs.most_knobs(), out, memory.how()));
}

void DeviceSparseDecode::run(const Context& context) const {
  const Matrix dictionary = context.matrix(4, "dictionary", kAny, kAny);
  const CodeView code = code_of(context, 0, kAny);
  const StatsView stats{context.floats(2, "mean", {code.n_rows}).data,
                        context.floats(3, "std", {code.n_rows}).data};
  const float* const bias = context.floats(5, "bias", {dictionary.dim}).data;
  float* const out = context.float_out(0, {code.n_rows, dictionary.dim});
  raise_unless_queued(
      cuda::sparse_decode(code, dictionary, bias, stats, out, {context.stream(), nullptr}));
}

void DeviceRecommend::run(const Context& context) const {
  const Matrix embedding = context.matrix(0, "embedding", kAny, kAny);
  const Matrix items = context.matrix(1, "items", kAny, embedding.dim);
  const float* const bias = context.floats(2, "bias", {items.n_rows}).data;
  const int64_t n_rows = embedding.n_rows;
  const Asked asked(context, 3, n_rows, items.n_rows);
  DeviceMemory memory(context);
  const DeviceAnswer answer(context, asked, n_rows, memory);
  void* const scratch =
      memory.take(cuda::recommend_bytes(n_rows, embedding.dim, items.n_rows, asked.n, kPrecision));
  raise_unless_queued(cuda::recommend(embedding, items, bias, &answer.seen, answer.allowed,
                                      answer.out, kPrecision, memory.with(scratch)));
  answer.write(memory.how());
}

void DeviceFoldedRecommend::run(const Context& context) const {
  const Matrix embedding = context.matrix(0, "embedding", kAny, kAny);
  const Matrix items = context.matrix(1, "items", kAny, embedding.dim);
  const float* const bias = context.floats(2, "bias", {items.n_rows}).data;
  const int64_t n_rows = embedding.n_rows;
  const Asked asked(context, 3, n_rows, items.n_rows);
  const int64_t n_latents = context.int8s(11, "table", {kAny, items.n_rows}).shape[0];
  const FoldedInputs table(context, 11, n_latents, items.n_rows);
  const CodeView code = code_of(context, 7, n_rows);
  const StatsView stats{context.floats(9, "mean", {n_rows}).data,
                        context.floats(10, "std", {n_rows}).data};
  DeviceMemory memory(context);
  const DeviceAnswer answer(context, asked, n_rows, memory);
  void* const scratch = memory.take(cuda::folded_recommend_bytes(n_rows, items.n_rows, asked.n));
  raise_unless_queued(cuda::folded_recommend(code, stats, table.decoder(), embedding, items, bias,
                                             &answer.seen, answer.allowed, answer.out,
                                             memory.with(scratch)));
  answer.write(memory.how());
}

}  // namespace cfsae::ort
