// The device half of door 1, module cfsae_fast._C.cuda: views of device memory in, launches out.
// Nothing is read back, so ids in range are the kernels' matter (api.h).
#include "python/device_ops.h"

#include <pybind11/stl.h>

#include "python/device_arrays.h"

namespace cfsae::door {
namespace {

void encode_rows(On offsets, On items, OnIf values, On weight, OnIf bias, On out,
                 const Queue& queue) {
  const Matrix w = matrix_on(weight, "weight");
  const RowsView rows = rows_on("rows", offsets, items, values);
  const float* const b = on_device_if<float>(bias, "bias", {w.dim});
  float* const to = on_device<float>(out, "out", {rows.n_rows, w.dim});
  run_on("encode_rows", queue, nullptr,
         [&](const auto& how) { return cuda::encode_rows(rows, w, b, to, how); });
}

void encode_rows_backward(On offsets, On items, OnIf values, On weight, On grad, OnIf grad_weight,
                          OnIf grad_bias, OnIf grad_values, On workspace, const Queue& queue) {
  const Matrix w = matrix_on(weight, "weight");
  const RowsView rows = rows_on("rows", offsets, items, values);
  const Matrix g = matrix_on(grad, "grad", rows.n_rows, w.dim);
  const int64_t n = size_of(items, "rows.items", 0);
  float* const to_weight = on_device_if<float>(grad_weight, "grad_weight", {w.n_rows, w.dim});
  float* const to_bias = on_device_if<float>(grad_bias, "grad_bias", {w.dim});
  float* const to_values = on_device_if<float>(grad_values, "grad_values", {n});
  void* const scratch = workspace_on(workspace, cuda::encode_rows_backward_bytes(n, w.n_rows));
  run_on("encode_rows_backward", queue, scratch, [&](const auto& how) {
    return cuda::encode_rows_backward(rows, n, w, g, to_weight, to_bias, to_values, how);
  });
}

int64_t topk_encode_bytes(int64_t n_rows, int64_t dim, int64_t n_latents, int64_t k,
                          const std::string& precision) {
  return cuda::topk_encode_bytes(n_rows, dim, n_latents, k, precision_of(precision));
}

void topk_encode(On embedding, On encoder, On bias, On centre, On indices, On values, OnIf mean,
                 OnIf std, const std::string& precision, On workspace, const Queue& queue) {
  const Matrix x = matrix_on(embedding, "embedding");
  const Matrix e = matrix_on(encoder, "encoder", kAny, x.dim);
  const float* const b = on_device<float>(bias, "bias", {e.n_rows});
  const float* const c = on_device<float>(centre, "centre", {x.dim});
  const CodeOut code = code_out_on(indices, values, x.n_rows);
  if (code.k < 1 || code.k > e.n_rows) {
    bad_value("k must be in [1, n_latents=" + std::to_string(e.n_rows) + "], got " +
              std::to_string(code.k));
  }
  float* const to_mean = on_device_if<float>(mean, "mean", {x.n_rows});
  float* const to_std = on_device_if<float>(std, "std", {x.n_rows});
  if ((to_mean == nullptr) != (to_std == nullptr)) bad_value("mean and std must come together");
  const cuda::Precision how_exact = precision_of(precision);
  void* const scratch = workspace_on(
      workspace, cuda::topk_encode_bytes(x.n_rows, x.dim, e.n_rows, code.k, how_exact));
  run_on("topk_encode", queue, scratch, [&](const auto& how) {
    return cuda::topk_encode(x, e, b, c, code, to_mean, to_std, how_exact, how);
  });
}

void topk_encode_backward(On embedding, On encoder, On centre, On indices, On grad_code_values,
                          OnIf mean, OnIf std, OnIf grad_mean, OnIf grad_std, OnIf grad_embedding,
                          OnIf grad_encoder, OnIf grad_bias, OnIf grad_centre, On workspace,
                          const Queue& queue) {
  const Matrix x = matrix_on(embedding, "embedding");
  const Matrix e = matrix_on(encoder, "encoder", kAny, x.dim);
  const float* const c = on_device<float>(centre, "centre", {x.dim});
  const CodeView code = code_on(indices, grad_code_values, x.n_rows);
  const StatsView stats = stats_on(mean, std, x.n_rows);
  cuda::TopkEncodeGrads grads;
  grads.values = code.values;
  grads.mean = on_device_if<float>(grad_mean, "grad_mean", {x.n_rows});
  grads.std = on_device_if<float>(grad_std, "grad_std", {x.n_rows});
  grads.embedding = on_device_if<float>(grad_embedding, "grad_embedding", {x.n_rows, x.dim});
  grads.encoder = on_device_if<float>(grad_encoder, "grad_encoder", {e.n_rows, e.dim});
  grads.bias = on_device_if<float>(grad_bias, "grad_bias", {e.n_rows});
  grads.centre = on_device_if<float>(grad_centre, "grad_centre", {x.dim});
  void* const scratch =
      workspace_on(workspace, cuda::topk_encode_backward_bytes(x.n_rows, x.dim, e.n_rows, code.k));
  run_on("topk_encode_backward", queue, scratch, [&](const auto& how) {
    return cuda::topk_encode_backward(x, e, c, code, stats, grads, how);
  });
}

void sparse_decode(On indices, On values, On dictionary, OnIf bias, OnIf mean, OnIf std, On out,
                   const Queue& queue) {
  const Matrix d = matrix_on(dictionary, "dictionary");
  const CodeView code = code_on(indices, values);
  const float* const b = on_device_if<float>(bias, "bias", {d.dim});
  const StatsView stats = stats_on(mean, std, code.n_rows);
  float* const to = on_device<float>(out, "out", {code.n_rows, d.dim});
  run_on("sparse_decode", queue, nullptr,
         [&](const auto& how) { return cuda::sparse_decode(code, d, b, stats, to, how); });
}

void sparse_decode_backward(On indices, On values, On dictionary, OnIf bias, OnIf mean, OnIf std,
                            On grad, OnIf grad_values, OnIf grad_dictionary, OnIf grad_bias,
                            OnIf grad_mean, OnIf grad_std, On workspace, const Queue& queue) {
  const Matrix d = matrix_on(dictionary, "dictionary");
  const CodeView code = code_on(indices, values);
  const float* const b = on_device_if<float>(bias, "bias", {d.dim});
  const StatsView stats = stats_on(mean, std, code.n_rows);
  const Matrix g = matrix_on(grad, "grad", code.n_rows, d.dim);
  cuda::SparseDecodeGrads grads;
  grads.values = on_device_if<float>(grad_values, "grad_values", {code.n_rows, code.k});
  grads.dictionary = on_device_if<float>(grad_dictionary, "grad_dictionary", {d.n_rows, d.dim});
  grads.bias = on_device_if<float>(grad_bias, "grad_bias", {d.dim});
  grads.mean = on_device_if<float>(grad_mean, "grad_mean", {code.n_rows});
  grads.std = on_device_if<float>(grad_std, "grad_std", {code.n_rows});
  void* const scratch =
      workspace_on(workspace, cuda::sparse_decode_backward_bytes(code.n_rows, code.k, d.n_rows));
  run_on("sparse_decode_backward", queue, scratch, [&](const auto& how) {
    return cuda::sparse_decode_backward(code, d, b, stats, g, grads, how);
  });
}

void steer(On indices, On values, On offsets, On latents, On weights, On kinds, int64_t most_knobs,
           On out_indices, On out_values, const Queue& queue) {
  const CodeView code = code_on(indices, values);
  const KnobsView knobs = knobs_on(offsets, latents, weights, kinds, code.n_rows);
  const CodeOut out = code_out_on(out_indices, out_values, code.n_rows);
  run_on("steer", queue, nullptr,
         [&](const auto& how) { return cuda::steer(code, knobs, most_knobs, out, how); });
}

void steer_decode(On embedding, On indices, On values, On offsets, On latents, On weights, On kinds,
                  int64_t most_knobs, On dictionary, OnIf bias, OnIf mean, OnIf std,
                  const std::string& mode, On out, const Queue& queue) {
  if (mode != "residual" && mode != "reconstruct") {
    bad_value("mode must be residual or reconstruct, got " + mode);
  }
  const DecodeMode how_to = mode == "residual" ? DecodeMode::kResidual : DecodeMode::kReconstruct;
  const Matrix d = matrix_on(dictionary, "dictionary");
  const Matrix x = matrix_on(embedding, "embedding", kAny, d.dim);
  const CodeView code = code_on(indices, values, x.n_rows);
  const KnobsView knobs = knobs_on(offsets, latents, weights, kinds, x.n_rows);
  const float* const b = on_device_if<float>(bias, "bias", {d.dim});
  const StatsView stats = stats_on(mean, std, x.n_rows);
  float* const to = on_device<float>(out, "out", {x.n_rows, x.dim});
  run_on("steer_decode", queue, nullptr, [&](const auto& how) {
    return cuda::steer_decode(x, code, knobs, most_knobs, d, b, stats, how_to, to, how);
  });
}

int64_t recommend_bytes(int64_t n_rows, int64_t dim, int64_t n_items, int64_t n,
                        const std::string& precision) {
  return cuda::recommend_bytes(n_rows, dim, n_items, n, precision_of(precision));
}

void recommend(On embedding, On items, OnIf bias, OnIf seen_offsets, OnIf seen_items, OnIf allowed,
               On ids, On scores, const std::string& precision, On workspace, const Queue& queue) {
  const Matrix x = matrix_on(embedding, "embedding");
  const Matrix i = matrix_on(items, "items", kAny, x.dim);
  const float* const b = on_device_if<float>(bias, "bias", {i.n_rows});
  const uint8_t* const allow = on_device_if<uint8_t>(allowed, "allowed", {i.n_rows});
  const CodeOut out = code_out_on(ids, scores, x.n_rows);
  if (out.k < 1) bad_value("n must be at least 1, got " + std::to_string(out.k));
  const RowsView seen = seen_on(seen_offsets, seen_items, x.n_rows);
  const RowsView* const masked = seen_offsets == nullptr ? nullptr : &seen;
  const cuda::Precision how_exact = precision_of(precision);
  void* const scratch =
      workspace_on(workspace, cuda::recommend_bytes(x.n_rows, x.dim, i.n_rows, out.k, how_exact));
  run_on("recommend", queue, scratch, [&](const auto& how) {
    return cuda::recommend(x, i, b, masked, allow, out, how_exact, how);
  });
}

void adam(On grad, On parameters, On first, On second, float lr, float beta1, float beta2,
          float epsilon, float weight_decay, int64_t step, const Queue& queue) {
  const int64_t n = size_of(parameters, "parameters", 0);
  const float* const g = on_device<float>(grad, "grad", {n});
  float* const p = on_device<float>(parameters, "parameters", {n});
  float* const m = on_device<float>(first, "first", {n});
  float* const v = on_device<float>(second, "second", {n});
  if (step < 1) bad_value("step must be at least 1, got " + std::to_string(step));
  const cuda::Adam settings{lr, beta1, beta2, epsilon, weight_decay, step};
  run_on("adam", queue, nullptr,
         [&](const auto& how) { return cuda::adam(settings, n, g, p, m, v, how); });
}

}  // namespace

void add_device_ops(py::module_& m) {
  m.doc() = "The engine's kernels; call them through cfsae_fast.ops.";
  py::class_<DeviceArray>(m, "DeviceArray", py::module_local())  // the emulated twin has one too
      .def(py::init<uintptr_t, std::vector<int64_t>, std::string>(), py::arg("data"),
           py::arg("shape"), py::arg("dtype"));
  py::class_<Queue>(m, "Queue", py::module_local())
      .def(py::init<int, uintptr_t>(), py::arg("device"), py::arg("stream"));
  m.def("encode_rows", encode_rows);
  m.def("encode_rows_backward_bytes", cuda::encode_rows_backward_bytes);
  m.def("encode_rows_backward", encode_rows_backward);
  m.def("topk_encode_bytes", topk_encode_bytes);
  m.def("topk_encode", topk_encode);
  m.def("topk_encode_backward_bytes", cuda::topk_encode_backward_bytes);
  m.def("topk_encode_backward", topk_encode_backward);
  m.def("sparse_decode", sparse_decode);
  m.def("sparse_decode_backward_bytes", cuda::sparse_decode_backward_bytes);
  m.def("sparse_decode_backward", sparse_decode_backward);
  m.def("steer", steer);
  m.def("steer_decode", steer_decode);
  m.def("recommend_bytes", recommend_bytes);
  m.def("recommend", recommend);
  m.def("adam", adam);
  add_folded_device_ops(m);
}

}  // namespace cfsae::door
