// Door 1: the module cfsae_fast._C. Borrows numpy arrays, checks them, releases the GIL, calls the
// engine, translates its status. Knows numpy, never torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "python/checks.h"
#include "python/device_ops.h"
#include "python/folded.h"
#include "python/ids.h"
#include "python/training.h"

namespace cfsae::door {
namespace {

Matrix screened(Matrix of, Handle screen) {
  of.screen = borrow_if<uint8_t>(screen, "screen", {cpu::screen_bytes(of.n_rows, of.dim)});
  return of;
}

int64_t screen_bytes(Handle of) {
  const Matrix m = matrix(of, "matrix");
  return cpu::screen_bytes(m.n_rows, m.dim);
}

void make_screen(Handle of, Handle screen, int threads, const std::string& isa) {
  const Matrix m = matrix(of, "matrix");
  uint8_t* const to = borrow_out<uint8_t>(screen, "screen", {cpu::screen_bytes(m.n_rows, m.dim)});
  const Execution how = execution(threads, isa);
  run([&] { return cpu::make_screen(m, to, how); });
}

void encode_rows(Handle offsets, Handle items, Handle values, Handle weight, Handle bias,
                 Handle out, int threads, const std::string& isa) {
  const Matrix w = matrix(weight, "weight");
  const RowsView rows = rows_view("rows", offsets, items, values, w.n_rows);
  const float* const b = borrow_if<float>(bias, "bias", {w.dim});
  float* const to = borrow_out<float>(out, "out", {rows.n_rows, w.dim});
  const Execution how = execution(threads, isa);
  run([&] { return cpu::encode_rows(rows, w, b, to, how); });
}

void encode_rows_backward(Handle offsets, Handle items, Handle values, Handle weight, Handle grad,
                          Handle grad_weight, Handle grad_bias, Handle grad_values, int threads,
                          const std::string& isa) {
  const Matrix w = matrix(weight, "weight");
  const RowsView rows = rows_view("rows", offsets, items, values, w.n_rows);
  const Matrix g = matrix(grad, "grad", rows.n_rows, w.dim);
  float* const to_weight = borrow_out_if<float>(grad_weight, "grad_weight", {w.n_rows, w.dim});
  float* const to_bias = borrow_out_if<float>(grad_bias, "grad_bias", {w.dim});
  float* const to_values =
      borrow_out_if<float>(grad_values, "grad_values", {size_of(items, "rows.items", 0)});
  const Execution how = execution(threads, isa);
  run([&] { return cpu::encode_rows_backward(rows, w, g, to_weight, to_bias, to_values, how); });
}

void topk_encode(Handle embedding, Handle encoder, Handle bias, Handle centre, Handle indices,
                 Handle values, Handle mean, Handle std, Handle screen, int threads,
                 const std::string& isa) {
  const Matrix x = matrix(embedding, "embedding");
  const Matrix e = screened(matrix(encoder, "encoder", kAny, x.dim), screen);
  const float* const b = borrow<float>(bias, "bias", {e.n_rows});
  const float* const c = borrow<float>(centre, "centre", {x.dim});
  const CodeOut code = code_out(indices, values, x.n_rows);
  if (code.k < 1 || code.k > e.n_rows) {
    bad_value("k must be in [1, n_latents=" + std::to_string(e.n_rows) + "], got " +
              std::to_string(code.k));
  }
  float* const to_mean = borrow_out_if<float>(mean, "mean", {x.n_rows});
  float* const to_std = borrow_out_if<float>(std, "std", {x.n_rows});
  if ((to_mean == nullptr) != (to_std == nullptr)) bad_value("mean and std must come together");
  const Execution how = execution(threads, isa);
  run([&] { return cpu::topk_encode(x, e, b, c, code, to_mean, to_std, how); });
}

void topk_encode_backward(Handle embedding, Handle encoder, Handle centre, Handle indices,
                          Handle grad_code_values, Handle mean, Handle std, Handle grad_mean,
                          Handle grad_std, Handle grad_embedding, Handle grad_encoder,
                          Handle grad_bias, Handle grad_centre, int threads,
                          const std::string& isa) {
  const Matrix x = matrix(embedding, "embedding");
  const Matrix e = matrix(encoder, "encoder", kAny, x.dim);
  const float* const c = borrow<float>(centre, "centre", {x.dim});
  const CodeView code = code_view(indices, grad_code_values, e.n_rows, x.n_rows);
  const StatsView stats = stats_view(mean, std, x.n_rows);
  cpu::TopkEncodeGrads grads;
  grads.values = code.values;
  grads.mean = borrow_if<float>(grad_mean, "grad_mean", {x.n_rows});
  grads.std = borrow_if<float>(grad_std, "grad_std", {x.n_rows});
  grads.embedding = borrow_out_if<float>(grad_embedding, "grad_embedding", {x.n_rows, x.dim});
  grads.encoder = borrow_out_if<float>(grad_encoder, "grad_encoder", {e.n_rows, e.dim});
  grads.bias = borrow_out_if<float>(grad_bias, "grad_bias", {e.n_rows});
  grads.centre = borrow_out_if<float>(grad_centre, "grad_centre", {x.dim});
  const Execution how = execution(threads, isa);
  run([&] { return cpu::topk_encode_backward(x, e, c, code, stats, grads, how); });
}

void sparse_decode(Handle indices, Handle values, Handle dictionary, Handle bias, Handle mean,
                   Handle std, Handle out, int threads, const std::string& isa) {
  const Matrix d = matrix(dictionary, "dictionary");
  const CodeView code = code_view(indices, values, d.n_rows);
  const float* const b = borrow_if<float>(bias, "bias", {d.dim});
  const StatsView stats = stats_view(mean, std, code.n_rows);
  float* const to = borrow_out<float>(out, "out", {code.n_rows, d.dim});
  const Execution how = execution(threads, isa);
  run([&] { return cpu::sparse_decode(code, d, b, stats, to, how); });
}

void sparse_decode_backward(Handle indices, Handle values, Handle dictionary, Handle bias,
                            Handle mean, Handle std, Handle grad, Handle grad_values,
                            Handle grad_dictionary, Handle grad_bias, Handle grad_mean,
                            Handle grad_std, int threads, const std::string& isa) {
  const Matrix d = matrix(dictionary, "dictionary");
  const CodeView code = code_view(indices, values, d.n_rows);
  const float* const b = borrow_if<float>(bias, "bias", {d.dim});
  const StatsView stats = stats_view(mean, std, code.n_rows);
  const Matrix g = matrix(grad, "grad", code.n_rows, d.dim);
  cpu::SparseDecodeGrads grads;
  grads.values = borrow_out_if<float>(grad_values, "grad_values", {code.n_rows, code.k});
  grads.dictionary = borrow_out_if<float>(grad_dictionary, "grad_dictionary", {d.n_rows, d.dim});
  grads.bias = borrow_out_if<float>(grad_bias, "grad_bias", {d.dim});
  grads.mean = borrow_out_if<float>(grad_mean, "grad_mean", {code.n_rows});
  grads.std = borrow_out_if<float>(grad_std, "grad_std", {code.n_rows});
  const Execution how = execution(threads, isa);
  run([&] { return cpu::sparse_decode_backward(code, d, b, stats, g, grads, how); });
}

void linear(Handle x, Handle weight, Handle bias, Handle out, int threads, const std::string& isa) {
  const Matrix rows = matrix(x, "x");
  const Matrix w = matrix(weight, "weight", kAny, rows.dim);
  const float* const b = borrow<float>(bias, "bias", {w.n_rows});
  float* const to = borrow_out<float>(out, "out", {rows.n_rows, w.n_rows});
  const Execution how = execution(threads, isa);
  run([&] { return cpu::linear(rows, w, b, to, how); });
}

int64_t knob_width(Handle offsets, Handle latents, Handle weights, Handle kinds, int64_t n_latents,
                   int64_t n_rows) {
  return knobs_view(offsets, latents, weights, kinds, n_latents, n_rows).width;
}

void steer(Handle indices, Handle values, Handle offsets, Handle latents, Handle weights,
           Handle kinds, int64_t n_latents, Handle out_indices, Handle out_values, int threads,
           const std::string& isa) {
  const CodeView code = code_view(indices, values, n_latents);
  const CheckedKnobs knobs = knobs_view(offsets, latents, weights, kinds, n_latents, code.n_rows);
  const CodeOut out = code_out(out_indices, out_values, code.n_rows);
  if (out.k != code.k + knobs.width) bad_value("indices must have the code's width + knob_width");
  const Execution how = execution(threads, isa);
  run([&] { return cpu::steer(code, knobs.view, out, how); });
}

void steer_decode(Handle embedding, Handle indices, Handle values, Handle offsets, Handle latents,
                  Handle weights, Handle kinds, Handle dictionary, Handle bias, Handle mean,
                  Handle std, const std::string& mode, Handle out, int threads,
                  const std::string& isa) {
  if (mode != "residual" && mode != "reconstruct") {
    bad_value("mode must be residual or reconstruct, got " + mode);
  }
  const DecodeMode how_to = mode == "residual" ? DecodeMode::kResidual : DecodeMode::kReconstruct;
  const Matrix d = matrix(dictionary, "dictionary");
  const Matrix x = matrix(embedding, "embedding", kAny, d.dim);
  const CodeView code = code_view(indices, values, d.n_rows, x.n_rows);
  const KnobsView knobs = knobs_view(offsets, latents, weights, kinds, d.n_rows, x.n_rows).view;
  const float* const b = borrow_if<float>(bias, "bias", {d.dim});
  const StatsView stats = stats_view(mean, std, x.n_rows);
  float* const to = borrow_out<float>(out, "out", {x.n_rows, x.dim});
  const Execution how = execution(threads, isa);
  run([&] { return cpu::steer_decode(x, code, knobs, d, b, stats, how_to, to, how); });
}

void recommend(Handle embedding, Handle items, Handle bias, Handle seen_offsets, Handle seen_items,
               Handle allowed, Handle ids, Handle scores, Handle screen, int threads,
               const std::string& isa) {
  const Matrix x = matrix(embedding, "embedding");
  const Matrix i = screened(matrix(items, "items", kAny, x.dim), screen);
  const float* const b = borrow_if<float>(bias, "bias", {i.n_rows});
  const uint8_t* const allow = borrow_if<uint8_t>(allowed, "allowed", {i.n_rows});
  const CodeOut out = code_out(ids, scores, x.n_rows);
  if (out.k < 1) bad_value("n must be at least 1, got " + std::to_string(out.k));
  RowsView seen{};
  const bool masked = !seen_offsets.is_none();
  if (masked) {
    seen = rows_view("seen", seen_offsets, seen_items, py::none(), i.n_rows, x.n_rows);
  }
  const Execution how = execution(threads, isa);
  run([&] { return cpu::recommend(x, i, b, masked ? &seen : nullptr, allow, out, how); });
}

py::dict build_info() {
  py::dict info;
  py::list isas;
  const char* used = "baseline";
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Vnni}) {
    if (!cpu::supports(isa)) continue;
    isas.append(cpu::name_of(isa));
    used = cpu::name_of(isa);
  }
  info["version"] = CFSAE_VERSION;
  info["isa"] = isas;
  info["isa_used"] = used;
  info["cuda"] = CFSAE_CUDA != 0;
  info["why"] = CFSAE_CUDA_WHY;
  info["compiler"] = CFSAE_COMPILER;
  return info;
}

}  // namespace
}  // namespace cfsae::door

PYBIND11_MODULE(_C, m) {
  namespace door = cfsae::door;
  namespace py = pybind11;
  m.doc() = "The engine of cfsae_fast; call it through cfsae_fast.ops.";
  m.def("encode_rows", door::encode_rows);
  m.def("encode_rows_backward", door::encode_rows_backward);
  m.def("topk_encode", door::topk_encode);
  m.def("topk_encode_backward", door::topk_encode_backward);
  m.def("sparse_decode", door::sparse_decode);
  m.def("sparse_decode_backward", door::sparse_decode_backward);
  m.def("linear", door::linear);
  m.def("knob_width", door::knob_width);
  m.def("steer", door::steer);
  m.def("steer_decode", door::steer_decode);
  m.def("recommend", door::recommend);
  m.def("screen_bytes", door::screen_bytes);
  m.def("make_screen", door::make_screen);
  m.def("has_screens", cfsae::cpu::has_screens);
  door::add_folded(m);
  door::add_ids(m);
  door::add_training(m);
#if CFSAE_CUDA
  py::module_ on_device = m.def_submodule("cuda");
  door::add_device_ops(on_device);
#endif
  m.def("build_info", door::build_info);
}
