"""Weights in fewer bits: the graph computes with exactly what the file holds, and says the loss."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cfsae_fast import export
from cfsae_fast.export.precision import store
from tests.export.networks import make_fitted

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
LOW = ("fp16", "bf16", "int8")
# of an entry's size, and for int8 of the largest of its row
STEP = {"fp16": 2.0**-11, "bf16": 2.0**-8, "int8": 0.5 / 127}


@pytest.mark.parametrize("cfae, folded", [("elsa", False), ("elsa", True), ("multvae", False)])
@pytest.mark.parametrize("precision", LOW)
def test_graph_equals_the_lowered_model(tmp_path, precision, cfae, folded, custom_ops):
    fitted = make_fitted(cfae, n_items=120)
    options = {"precision": precision, "folded": folded, "mode": "reconstruct"}
    path = export.to_onnx(fitted, tmp_path / "m.onnx", **options)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    lowered, _ = export.lower(fitted, precision)
    found = export.check_parity(lowered, path, requests=36, custom_ops=custom_ops)
    assert found.holds, found
    assert np.abs(lowered.sae.encoder - fitted.sae.encoder).max() > 0


@pytest.mark.parametrize("precision, at_most", [("fp16", 0.52), ("bf16", 0.52), ("int8", 0.28)])
def test_files_shrink(tmp_path, precision, at_most):
    fitted = make_fitted(n_items=3000, d=64)
    sizes = []
    for one in ("fp32", precision):
        path = export.to_onnx(fitted, tmp_path / one / "m.onnx", precision=one)
        sizes.append(sum(len(w.raw_data) for w in onnx.load(path).graph.initializer))
        assert export.read_manifest(path).precision == one
    assert sizes[1] < at_most * sizes[0]


@given(
    matrix=arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=5),
        elements=st.floats(-1e4, 1e4, width=32),
    ),
    precision=st.sampled_from(LOW),
)
def test_rounding_is_within_half_a_step(matrix, precision):
    off = np.abs(store(matrix, precision).full() - matrix)
    size = np.abs(matrix)
    if precision == "int8":
        size = np.broadcast_to(size.max(axis=1, keepdims=True, initial=0), size.shape)
    assert (off <= STEP[precision] * size * 1.001 + 1e-7).all()


def test_what_fp16_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="must be 'bf16' or 'fp32' for weights of up to 70000"):
        store(np.array([[70000.0]], dtype=np.float32), "fp16")


def test_loss_is_that_of_the_graph(tmp_path):
    """No loss in fp32; a graph of shuffled items has nearly no nDCG left."""
    from dataclasses import replace

    from cfsae_fast.ops import Rows

    rng = np.random.default_rng(3)
    rows = [rng.choice(90, size=10, replace=False).astype(np.int32) for _ in range(60)]
    histories = Rows(np.arange(0, 601, 10), np.concatenate(rows))
    users = type(make_fitted().user_ids)([f"u{at}" for at in range(60)], what="user")
    fitted = replace(make_fitted(), histories=histories, user_ids=users)
    path = export.to_onnx(fitted, tmp_path / "m.onnx")
    same = export.measure_loss(fitted, path)
    path = export.to_onnx(fitted, path, defaults=False)
    assert export.measure_loss(fitted, path) == same
    assert same.users == 60 and same.lost == 0 and same.model > 0
    shuffled = replace(fitted.cfae, items=fitted.cfae.items[::-1])
    path = export.to_onnx(replace(fitted, cfae=shuffled), tmp_path / "o.onnx")
    other = export.measure_loss(fitted, path)
    assert other.model == same.model and other.graph != other.model
