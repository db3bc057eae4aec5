#include "python/training.h"

#include "parallel.h"
#include "python/checks.h"

namespace cfsae::door {
namespace {

struct CheckedTile {
  RowsView inputs, targets;
  cpu::ScoreTile tile;
};

// scores (B, width): float32, or uint16 that holds bf16; items of both rows lie in [0, n_items).
CheckedTile tile_of(const py::tuple& inputs, const py::tuple& targets, Handle scores,
                    int64_t first_item, int64_t n_items) {
  if (inputs.size() != 3 || targets.size() != 3) {
    bad_value("inputs and targets must be (offsets, items, values)");
  }
  const int64_t n = size_of(scores, "scores", 0), width = size_of(scores, "scores", 1);
  if (first_item < 0 || n_items < 0 || width > n_items || first_item > n_items - width) {
    bad_value("first_item must lie in [0, n_items - width], got " + std::to_string(first_item));
  }
  const bool bf16 = py::isinstance<py::array_t<uint16_t>>(scores);
  void* const data = bf16 ? static_cast<void*>(borrow_out<uint16_t>(scores, "scores", {n, width}))
                          : static_cast<void*>(borrow_out<float>(scores, "scores", {n, width}));
  return {rows_view("inputs", inputs[0], inputs[1], inputs[2], n_items, n),
          rows_view("targets", targets[0], targets[1], targets[2], n_items, n),
          {data, bf16, n, width, first_item}};
}

void cosine_tile(const py::tuple& inputs, const py::tuple& targets, Handle scores,
                 int64_t first_item, int64_t n_items, Handle squares, Handle dots, int threads,
                 const std::string& isa) {
  const CheckedTile of = tile_of(inputs, targets, scores, first_item, n_items);
  float* const to_squares = borrow_out<float>(squares, "squares", {of.tile.n_rows});
  float* const to_dots = borrow_out<float>(dots, "dots", {of.tile.n_rows});
  const Execution how = execution(threads, isa);
  run([&] { return cpu::cosine_tile(of.inputs, of.targets, of.tile, to_squares, to_dots, how); });
}

void cosine_tile_backward(const py::tuple& inputs, const py::tuple& targets, Handle scores,
                          int64_t first_item, int64_t n_items, Handle on_scores, Handle on_targets,
                          Handle grad_inputs, int threads, const std::string& isa) {
  const CheckedTile of = tile_of(inputs, targets, scores, first_item, n_items);
  const float* const s = borrow<float>(on_scores, "on_scores", {of.tile.n_rows});
  const float* const t = borrow<float>(on_targets, "on_targets", {of.tile.n_rows});
  float* const to =
      borrow_out<float>(grad_inputs, "grad_inputs", {size_of(inputs[1], "inputs", 0)});
  const Execution how = execution(threads, isa);
  run([&] { return cpu::cosine_tile_backward(of.inputs, of.targets, of.tile, s, t, to, how); });
}

// A matrix, or the transpose of one.
cpu::StridedMatrix strided(Handle value, const char* name, int64_t n_rows, int64_t n_columns) {
  const int64_t rows = size_of(value, name, 0), columns = size_of(value, name, 1);
  const auto flags = py::reinterpret_borrow<py::array>(value).flags();
  if ((flags & py::array::c_style) != 0) {
    return {borrow<float>(value, name, {n_rows, n_columns}), rows, columns, columns, 1};
  }
  const std::string turned = std::string(name) + ".T";
  return {borrow<float>(value.attr("T"), turned.c_str(), {n_columns, n_rows}), rows, columns, 1,
          rows};
}

void int16_product(Handle left, Handle right, Handle out, bool add, int threads,
                   const std::string& isa) {
  const cpu::StridedMatrix l = strided(left, "left", kAny, kAny);
  const cpu::StridedMatrix r = strided(right, "right", l.n_columns, kAny);
  float* const to = borrow_out<float>(out, "out", {l.n_rows, r.n_columns});
  const Execution how = execution(threads, isa);
  run([&] { return cpu::int16_product(l, r, add, to, how); });
}

void tangent_rows(Handle rows, Handle grad, int threads, const std::string& isa) {
  const Matrix of = matrix(rows, "rows");
  float* const to = borrow_out<float>(grad, "grad", {of.n_rows, of.dim});
  const Execution how = execution(threads, isa);
  run([&] { return cpu::tangent_rows(of, to, how); });
}

void add_item_grads(const py::tuple& rows, Handle grad, Handle grad_weight, int threads,
                    const std::string& isa) {
  if (rows.size() != 3) bad_value("rows must be (offsets, items, values)");
  const Matrix from = matrix(grad, "grad");
  const int64_t n_items = size_of(grad_weight, "grad_weight", 0);
  float* const to = borrow_out<float>(grad_weight, "grad_weight", {n_items, from.dim});
  const RowsView view = rows_view("rows", rows[0], rows[1], rows[2], n_items, from.n_rows);
  const Execution how = execution(threads, isa);
  run([&] { return cpu::add_item_grads(view, from, n_items, to, how); });
}

}  // namespace

void add_training(py::module_& m) {
  m.def("cosine_tile", cosine_tile);
  m.def("cosine_tile_backward", cosine_tile_backward);
  m.def("use_openmp", use_openmp);
  m.def("int16_product", int16_product);
  m.def("tangent_rows", tangent_rows);
  m.def("add_item_grads", add_item_grads);
}

}  // namespace cfsae::door
