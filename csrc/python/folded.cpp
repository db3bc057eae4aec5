// The folded ops' part of door 1.
#include "python/folded.h"

#include <pybind11/stl.h>

#include <array>
#include <tuple>

#include "python/checks.h"

namespace cfsae::door {
namespace {

// (values, scales, errors)
cpu::FoldedTable table_of(const py::tuple& table, const char* name, int64_t n_rows, int64_t dim) {
  if (table.size() != 3) bad_value(std::string(name) + " must be (values, scales, errors)");
  return {borrow<int8_t>(table[0], name, {n_rows, dim}),
          borrow<float>(table[1], "scales", {n_rows}), borrow<float>(table[2], "errors", {n_rows}),
          n_rows, dim};
}

using Norms = std::array<double, 4>;

cpu::FoldedDecoder decoder_of(const py::tuple& table, Handle sums, Handle shifts,
                              const Norms& norms, int64_t n_latents, int64_t n_items) {
  return {table_of(table, "table", n_latents, n_items),
          borrow<float>(sums, "sums", {n_items}),
          borrow<float>(shifts, "shifts", {n_items}),
          norms[0],
          norms[1],
          norms[2],
          norms[3]};
}

cpu::FoldedEncoder encoder_of(const py::tuple& table, Handle sums, Handle shifts,
                              const Norms& norms, int64_t n_items, int64_t n_latents) {
  return {table_of(table, "table", n_items, n_latents),
          borrow<float>(sums, "sums", {n_latents}),
          borrow<float>(shifts, "offsets", {n_latents}),
          norms[0],
          norms[1],
          norms[3]};
}

using Side = std::tuple<py::tuple, py::object, py::object, Norms>;  // table, sums, shifts, norms

void folded_topk_encode(Handle offsets, Handle items, Handle values, const py::tuple& table,
                        Handle sums, Handle shifts, const Norms& norms, Handle embedding,
                        Handle encoder, Handle bias, Handle centre, Handle indices,
                        Handle code_values, Handle mean, Handle std, int threads,
                        const std::string& isa) {
  const Matrix x = matrix(embedding, "embedding");
  const Matrix e = matrix(encoder, "encoder", kAny, x.dim);
  const int64_t n_items = size_of(table[0], "table", 0);
  const RowsView rows = rows_view("rows", offsets, items, values, n_items, x.n_rows);
  const cpu::FoldedEncoder folded = encoder_of(table, sums, shifts, norms, n_items, e.n_rows);
  const float* const b = borrow<float>(bias, "bias", {e.n_rows});
  const float* const c = borrow<float>(centre, "centre", {x.dim});
  const CodeOut code = code_out(indices, code_values, x.n_rows);
  float* const to_mean = borrow_out_if<float>(mean, "mean", {x.n_rows});
  float* const to_std = borrow_out_if<float>(std, "std", {x.n_rows});
  if ((to_mean == nullptr) != (to_std == nullptr)) bad_value("mean and std must come together");
  const Execution how = execution(threads, isa);
  run([&] {
    return cpu::folded_topk_encode(rows, folded, x, e, b, c, code, to_mean, to_std, how);
  });
}

void folded_recommend(Handle indices, Handle values, Handle mean, Handle std,
                      const py::tuple& table, Handle sums, Handle shifts, const Norms& norms,
                      Handle embedding, Handle items, Handle bias, Handle seen_offsets,
                      Handle seen_items, Handle allowed, Handle ids, Handle scores, int threads,
                      const std::string& isa) {
  const Matrix x = matrix(embedding, "embedding");
  const Matrix i = matrix(items, "items", kAny, x.dim);
  const int64_t n_latents = size_of(table[0], "table", 0);
  const cpu::FoldedDecoder folded = decoder_of(table, sums, shifts, norms, n_latents, i.n_rows);
  const CodeView code = code_view(indices, values, n_latents, x.n_rows);
  const StatsView stats = stats_view(mean, std, x.n_rows);
  const float* const b = borrow_if<float>(bias, "bias", {i.n_rows});
  const uint8_t* const allow = borrow_if<uint8_t>(allowed, "allowed", {i.n_rows});
  const CodeOut out = code_out(ids, scores, x.n_rows);
  RowsView seen{};
  const bool masked = !seen_offsets.is_none();
  if (masked) {
    seen = rows_view("seen", seen_offsets, seen_items, py::none(), i.n_rows, x.n_rows);
  }
  const Execution how = execution(threads, isa);
  run([&] {
    return cpu::folded_recommend(code, stats, folded, x, i, b, masked ? &seen : nullptr, allow, out,
                                 how);
  });
}

void folded_scores(Handle indices, Handle values, const py::tuple& table, Handle out, int threads,
                   const std::string& isa) {
  const int64_t n_latents = size_of(table[0], "table", 0), n_items = size_of(table[0], "table", 1);
  const cpu::FoldedTable products = table_of(table, "table", n_latents, n_items);
  const CodeView code = code_view(indices, values, n_latents);
  float* const to = borrow_out<float>(out, "out", {code.n_rows, n_items});
  const Execution how = execution(threads, isa);
  run([&] { return cpu::folded_scores(code, products, to, how); });
}

void folded_turn(Handle live_code, Handle live_dense, Handle embedding, Handle indices,
                 Handle values, Handle mean, Handle std, Handle offsets, Handle latents,
                 Handle weights, Handle kinds, Handle dictionary, Handle bias,
                 const py::tuple& table, Handle sums, Handle shifts, const Norms& norms,
                 Handle items, Handle item_bias, Handle seen_items, Handle allowed, Handle ids,
                 Handle scores, int threads, const std::string& isa) {
  const Matrix d = matrix(dictionary, "dictionary");
  const Matrix x = matrix(embedding, "embedding", 1, d.dim);
  const Matrix i = matrix(items, "items", kAny, d.dim);
  const cpu::FoldedDecoder folded = decoder_of(table, sums, shifts, norms, d.n_rows, i.n_rows);
  const DecodeMode mode = live_dense.is_none() ? DecodeMode::kReconstruct : DecodeMode::kResidual;
  const cpu::LiveScores live{borrow<float>(live_code, "live.code", {i.n_rows}),
                             borrow_if<float>(live_dense, "live.dense", {i.n_rows})};
  const CodeView code = code_view(indices, values, d.n_rows, 1);
  const KnobsView knobs = knobs_view(offsets, latents, weights, kinds, d.n_rows, 1).view;
  const StatsView stats = stats_view(mean, std, 1);
  const float* const b = borrow_if<float>(bias, "bias", {d.dim});
  const float* const ib = borrow_if<float>(item_bias, "item_bias", {i.n_rows});
  const uint8_t* const allow = borrow_if<uint8_t>(allowed, "allowed", {i.n_rows});
  const CodeOut out = code_out(ids, scores, 1);
  const bool masked = !seen_items.is_none();
  const int64_t bounds[] = {0, masked ? size_of(seen_items, "seen", 0) : 0};
  RowsView seen{1, bounds, nullptr, nullptr};
  if (masked) {
    seen.items = borrow<int32_t>(seen_items, "seen", {bounds[1]});
    for (int64_t j = 0; j < bounds[1]; ++j) {
      if (seen.items[j] < 0 || seen.items[j] >= i.n_rows)
        bad_value("seen must hold item positions");
    }
  }
  const Execution how = execution(threads, isa);
  run([&] {
    return cpu::folded_turn(live, x, code, stats, knobs, d, b, mode, folded, i, ib,
                            masked ? &seen : nullptr, allow, out, how);
  });
}

// Borrows its arrays for as long as it lives: a request pays for its own arguments alone.
class Model {
 public:
  Model(const py::object& item_weight, const Side& encode_side, const py::object& encoder,
        const py::object& encoder_bias, const py::object& dictionary, const py::object& bias,
        const Side& decode_side, const py::object& items, const py::object& item_bias,
        const py::object& cold, int64_t k, bool standardize, float threshold)
      : kept_(py::make_tuple(item_weight, std::get<0>(encode_side), std::get<1>(encode_side),
                             std::get<2>(encode_side), encoder, encoder_bias, dictionary, bias,
                             std::get<0>(decode_side), std::get<1>(decode_side),
                             std::get<2>(decode_side), items, item_bias, cold)) {
    const Matrix i = matrix(items, "items");
    const Matrix e = matrix(encoder, "encoder", kAny, i.dim);
    if (k < 1 || k > e.n_rows) {
      bad_value("k must lie in [1, n_latents=" + std::to_string(e.n_rows) + "], got " +
                std::to_string(k));
    }
    model_ = {matrix(item_weight, "item_weight", i.n_rows, i.dim),
              std::apply(
                  [&](Handle table, Handle sums, Handle shifts, const Norms& norms) {
                    return encoder_of(table, sums, shifts, norms, i.n_rows, e.n_rows);
                  },
                  encode_side),
              e,
              borrow<float>(encoder_bias, "encoder_bias", {e.n_rows}),
              matrix(dictionary, "dictionary", e.n_rows, i.dim),
              borrow<float>(bias, "bias", {i.dim}),
              std::apply(
                  [&](Handle table, Handle sums, Handle shifts, const Norms& norms) {
                    return decoder_of(table, sums, shifts, norms, e.n_rows, i.n_rows);
                  },
                  decode_side),
              i,
              borrow_if<float>(item_bias, "item_bias", {i.n_rows}),
              borrow<float>(cold, "cold", {i.dim}),
              k,
              standardize,
              threshold};
  }

  // knobs: (offsets, latents, weights, kinds), or None
  void answer(Handle offsets, Handle items, Handle values, Handle knobs, bool exclude_seen,
              Handle allowed, Handle ids, Handle scores, int threads,
              const std::string& isa) const {
    const RowsView rows = rows_view("rows", offsets, items, values, model_.items.n_rows);
    CheckedKnobs turned{};
    const bool steered = !knobs.is_none();
    if (steered) {
      const auto its = knobs.cast<std::array<py::object, 4>>();
      turned = knobs_view(its[0], its[1], its[2], its[3], model_.encoder.n_rows, rows.n_rows);
    }
    const uint8_t* const allow = borrow_if<uint8_t>(allowed, "allowed", {model_.items.n_rows});
    const CodeOut out = code_out(ids, scores, rows.n_rows);
    const Execution how = execution(threads, isa);
    run([&] {
      return cpu::folded_answer(model_, rows, steered ? &turned.view : nullptr, exclude_seen, allow,
                                out, how);
    });
  }

 private:
  const py::tuple kept_;
  cpu::FoldedModel model_;
};

}  // namespace

void add_folded(py::module_& m) {
  py::class_<Model>(m, "FoldedModel")
      .def(py::init<const py::object&, const Side&, const py::object&, const py::object&,
                    const py::object&, const py::object&, const Side&, const py::object&,
                    const py::object&, const py::object&, int64_t, bool, float>())
      .def("answer", &Model::answer);
  m.def("folded_topk_encode", folded_topk_encode);
  m.def("folded_recommend", folded_recommend);
  m.def("folded_scores", folded_scores);
  m.def("folded_turn", folded_turn);
}

}  // namespace cfsae::door
