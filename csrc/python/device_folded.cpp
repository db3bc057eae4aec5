// The folded ops' part of module cfsae_fast._C.cuda. A side comes as its arrays, one after another.
#include <pybind11/stl.h>

#include <array>

#include "python/device_arrays.h"
#include "python/device_ops.h"

namespace cfsae::door {
namespace {

using Norms = std::array<double, 4>;

cuda::FoldedTable table_on(On values, On scales, On errors, int64_t n_rows, int64_t dim) {
  const auto* const data = on_device<int8_t>(values, "table.values", {n_rows, dim});
  const int64_t n = values.shape[0];
  if (values.shape[1] < 1) bad_value("table.values must have at least one column, got 0");
  return {data, on_device<float>(scales, "table.scales", {n}),
          on_device<float>(errors, "table.errors", {n}), n, values.shape[1]};
}

void folded_topk_encode(On offsets, On items, OnIf values, On table, On scales, On errors, On sums,
                        On shifts, const Norms& norms, On embedding, On encoder, On bias, On centre,
                        On indices, On code_values, OnIf mean, OnIf std, On workspace,
                        const Queue& queue) {
  const Matrix x = matrix_on(embedding, "embedding");
  const Matrix e = matrix_on(encoder, "encoder", kAny, x.dim);
  const RowsView rows = rows_on("rows", offsets, items, values, x.n_rows);
  const cuda::FoldedEncoder folded{table_on(table, scales, errors, kAny, e.n_rows),
                                   on_device<float>(sums, "sums", {e.n_rows}),
                                   on_device<float>(shifts, "shifts", {e.n_rows}),
                                   norms[0],
                                   norms[1],
                                   norms[3]};
  const float* const b = on_device<float>(bias, "bias", {e.n_rows});
  const float* const c = on_device<float>(centre, "centre", {x.dim});
  const CodeOut code = code_out_on(indices, code_values, x.n_rows);
  if (code.k < 1 || code.k > e.n_rows) {
    bad_value("k must be in [1, n_latents=" + std::to_string(e.n_rows) + "], got " +
              std::to_string(code.k));
  }
  float* const to_mean = on_device_if<float>(mean, "mean", {x.n_rows});
  float* const to_std = on_device_if<float>(std, "std", {x.n_rows});
  if ((to_mean == nullptr) != (to_std == nullptr)) bad_value("mean and std must come together");
  void* const scratch =
      workspace_on(workspace, cuda::folded_topk_encode_bytes(x.n_rows, x.dim, e.n_rows, code.k));
  run_on("folded_topk_encode", queue, scratch, [&](const auto& how) {
    return cuda::folded_topk_encode(rows, folded, x, e, b, c, code, to_mean, to_std, how);
  });
}

void folded_recommend(On indices, On values, OnIf mean, OnIf std, On table, On scales, On errors,
                      On sums, On shifts, const Norms& norms, On embedding, On items, OnIf bias,
                      OnIf seen_offsets, OnIf seen_items, OnIf allowed, On ids, On scores,
                      On workspace, const Queue& queue) {
  const Matrix x = matrix_on(embedding, "embedding");
  const Matrix i = matrix_on(items, "items", kAny, x.dim);
  const cuda::FoldedDecoder folded{table_on(table, scales, errors, kAny, i.n_rows),
                                   on_device<float>(sums, "sums", {i.n_rows}),
                                   on_device<float>(shifts, "shifts", {i.n_rows}),
                                   norms[0],
                                   norms[1],
                                   norms[2],
                                   norms[3]};
  const CodeView code = code_on(indices, values, x.n_rows);
  const StatsView stats = stats_on(mean, std, x.n_rows);
  const float* const b = on_device_if<float>(bias, "bias", {i.n_rows});
  const uint8_t* const allow = on_device_if<uint8_t>(allowed, "allowed", {i.n_rows});
  const CodeOut out = code_out_on(ids, scores, x.n_rows);
  if (out.k < 1) bad_value("n must be at least 1, got " + std::to_string(out.k));
  const RowsView seen = seen_on(seen_offsets, seen_items, x.n_rows);
  void* const scratch =
      workspace_on(workspace, cuda::folded_recommend_bytes(x.n_rows, i.n_rows, out.k));
  run_on("folded_recommend", queue, scratch, [&](const auto& how) {
    return cuda::folded_recommend(code, stats, folded, x, i, b,
                                  seen.offsets == nullptr ? nullptr : &seen, allow, out, how);
  });
}

void folded_scores(On indices, On values, On table, On scales, On errors, On out,
                   const Queue& queue) {
  const cuda::FoldedTable products = table_on(table, scales, errors, kAny, kAny);
  const CodeView code = code_on(indices, values);
  float* const to = on_device<float>(out, "out", {code.n_rows, products.dim});
  run_on("folded_scores", queue, nullptr,
         [&](const auto& how) { return cuda::folded_scores(code, products, to, how); });
}

}  // namespace

void add_folded_device_ops(py::module_& m) {
  m.def("folded_topk_encode_bytes", cuda::folded_topk_encode_bytes);
  m.def("folded_topk_encode", folded_topk_encode);
  m.def("folded_recommend_bytes", cuda::folded_recommend_bytes);
  m.def("folded_recommend", folded_recommend);
  m.def("folded_scores", folded_scores);
}

}  // namespace cfsae::door
