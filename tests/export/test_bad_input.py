"""What cannot be answered is refused in words, before any memory is touched."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfsae_fast import export
from cfsae_fast.errors import ModelFormatError

runtime = pytest.importorskip("onnxruntime")
RUNTIME_ERRORS = (
    runtime.capi.onnxruntime_pybind11_state.InvalidArgument,
    runtime.capi.onnxruntime_pybind11_state.RuntimeException,
    runtime.capi.onnxruntime_pybind11_state.Fail,
)

WRONG = {
    "item too large": ({"items": [1, 90]}, "items", "must_lie_in_range"),
    "negative item": ({"items": [-1, 3]}, "items", "must_lie_in_range"),
    "offsets back": ({"offsets": [0, 2, 1, 2], "rows": 3}, "offsets", "must_rise"),
    "offsets beyond": ({"offsets": [0, 9]}, "offsets", "within_the_entries"),
    "offsets below": ({"offsets": [-2, 2]}, "offsets", "within_the_entries"),
    "unknown latent": ({"knob_latents": [96]}, "knob_latents", "knobs_must_lie_in_range"),
    "negative latent": ({"knob_latents": [-1]}, "knob_latents", "knobs_must_lie_in_range"),
    "unknown kind": ({"knob_kinds": [4]}, "knob_kinds", "knob_kinds_must"),
    "NaN weight": ({"knob_weights": [np.nan]}, "knob_weights", "knob_weights_must"),
    "negative mix": ({"knob_weights": [-0.5]}, "knob_weights", "knob_weights_must"),
    "mix above 1": ({"knob_weights": [1.5]}, "sum to at most 1", "must_sum_to_at_most_1"),
    "alpha": ({"alpha": 1.5}, "alpha must lie", "alpha_must_lie_in_0_to_1"),
    "knob offsets": ({"knob_offsets": [0, 1, 1, 1]}, "knob_offsets", "knob_offsets_must_have"),
    "denied": ({"deny": [500]}, "deny", "deny_must_lie_in_the_catalogue"),
    "n 0": ({"n": 0}, "n must lie", "n_must_be_at_least_1"),
    "n absurd": ({"n": 2**40}, "n must lie", "n_must_be_at_least_1"),
    "n absurd for so many": (
        {"n": 2**24, "items": [], "offsets": [0] * 33},
        "n must lie in [1, 8388608] for 32 rows, got 16777216",
        "n_must_be_at_least_1",
    ),
}


def request(**changed):
    good = {
        "items": [1, 2],
        "offsets": [0, 2],
        "knob_latents": [5],
        "knob_weights": [0.5],
        "knob_kinds": [0],
        "knob_offsets": [0, 1],
        "alpha": 1.0,
        "deny": [],
        "n": 5,
    }
    merged = {**good, **{name: value for name, value in changed.items() if name != "rows"}}
    floats = {"knob_weights", "alpha"}
    return {
        name: np.array(value, dtype=np.float32 if name in floats else np.int64)
        for name, value in merged.items()
    }


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("folded", [False, True], ids=["dense", "folded"])
@pytest.mark.parametrize("mode", ["residual", "reconstruct"])
def test_wrong_requests_are_named(exported, case, mode, custom_ops, folded):
    changed, words, node = WRONG[case]
    session = exported.session("elsa", "topk", mode, custom_ops, folded)
    with pytest.raises(RUNTIME_ERRORS) as caught:
        session.run(None, request(**changed))
    assert (words if custom_ops else node) in str(caught.value)


def test_a_good_request_is_answered(exported, custom_ops):
    session = exported.session("elsa", "topk", "residual", custom_ops)
    ids = session.run(["ids"], request())[0]
    assert ids.shape == (1, 5) and not set(ids[0]) & {1, 2, -1}


def test_scaling_a_latent_twice_is_refused(exported):
    session = exported.session("elsa", "topk", "residual", True)
    twice = request(
        knob_latents=[3, 3], knob_weights=[2, 3], knob_kinds=[1, 1], knob_offsets=[0, 2]
    )
    with pytest.raises(RUNTIME_ERRORS, match="at most once per row, got latent 3 twice"):
        session.run(None, twice)


anything = st.integers(-(2**63), 2**63 - 1)
near = st.integers(-3, 100)


@pytest.mark.parametrize("folded", [False, True], ids=["dense", "folded"])
@settings(max_examples=300)
@given(
    items=st.lists(st.one_of(near, anything), max_size=6),
    offsets=st.lists(st.one_of(st.integers(0, 6), anything), max_size=5),
    knob_latents=st.lists(st.one_of(near, anything), max_size=4),
    knob_weights=st.lists(st.floats(width=32), max_size=4),
    knob_kinds=st.lists(st.one_of(st.integers(0, 3), anything), max_size=4),
    knob_offsets=st.lists(st.one_of(st.integers(0, 4), anything), max_size=5),
    deny=st.lists(st.one_of(near, anything), max_size=3),
    n=st.one_of(st.integers(1, 120), st.integers(-(2**63), 0), st.integers(2**25, 2**63 - 1)),
)
def test_the_kernels_survive_anything(exported, folded, **fields):
    mode = "reconstruct" if folded else "residual"
    session = exported.session("elsa", "topk", mode, True, folded)
    try:
        ids, scores, *_ = session.run(None, request(**fields))
    except RUNTIME_ERRORS:
        return
    assert ids.shape == scores.shape == (len(fields["offsets"]) - 1, fields["n"])
    assert ids.min(initial=0) >= -1 and ids.max(initial=0) < 90


def test_tampered_and_truncated_files_are_refused(exported, tmp_path):
    recommender, _ = exported.model("elsa", "topk", "residual")
    path = export.to_onnx(recommender, tmp_path / "m.onnx")
    good = path.read_bytes()
    path.write_bytes(good[:-100] + bytes(100))
    with pytest.raises(ModelFormatError, match="not what was exported"):
        export.open_session(path)
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(ModelFormatError, match="not what was exported"):
        export.open_session(path)
    path.unlink()
    with pytest.raises(ModelFormatError, match="is missing"):
        export.open_session(path)
    with pytest.raises(ModelFormatError):
        export.open_session(tmp_path / "nothing.onnx")


def test_a_newer_manifest_is_refused(exported, tmp_path):
    recommender, _ = exported.model("elsa", "topk", "residual")
    path = export.to_onnx(recommender, tmp_path / "m.onnx")
    manifest = path.with_name("m.onnx.json")
    manifest.write_text(manifest.read_text().replace('"version": 2', '"version": 3'))
    with pytest.raises(ModelFormatError, match="export again"):
        export.read_manifest(path)


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"mode": "both"}, "mode must be one of"),
        ({"precision": "fp8"}, "precision must be"),
        ({"opset": 11}, r"opset must be in \[18, 21\]"),
    ],
)
def test_wrong_arguments_are_named(exported, tmp_path, wrong, words):
    recommender, _ = exported.model("elsa", "topk", "residual")
    with pytest.raises(ValueError, match=words):
        export.to_onnx(recommender, tmp_path / "m.onnx", **wrong)
    assert not list(tmp_path.iterdir())
