"""A Triton model repository: its configuration by Triton's own schema, its graph as it is fed.

Triton itself is not run here: joining ragged requests is done as its documentation says.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from cfsae_fast import export
from cfsae_fast.export.triton import to_triton
from tests.export.networks import make_fitted

runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
BESIDE = Path(sys.prefix) / "beside" / "tritonclient==2.73.0"


@pytest.fixture(scope="module")
def schema():
    """model_config_pb2 of the published client, without the rest of that package."""
    file = BESIDE / "tritonclient" / "grpc" / "model_config_pb2.py"
    if not file.exists():
        pytest.skip(f"tritonclient is not laid in {BESIDE}; make test does it")
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=[False, True], ids=["dense", "folded"])
def home(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton")
    return to_triton(make_fitted(), folder, mode="reconstruct", folded=request.param)


def test_config_is_of_the_published_schema(schema, home):
    from google.protobuf import text_format

    config = text_format.Parse((home / "config.pbtxt").read_text(), schema.ModelConfig())
    assert (config.name, config.backend) == (home.name, "onnxruntime")
    session = export.open_session(home / "1" / "model.onnx")
    given = {one.name: one for one in session.get_inputs()}
    kinds = {"tensor(int64)": "TYPE_INT64", "tensor(float)": "TYPE_FP32"}
    for one in config.input:
        assert schema.DataType.Name(one.data_type) == kinds[given.pop(one.name).type]
        assert one.allow_ragged_batch == (one.name != "n")
    for one in config.batch_input:
        assert one.kind == schema.BatchInput.BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO
        assert one.data_type == schema.TYPE_INT32
        assert given.pop(one.target_name[0]).type == "tensor(int32)"
        assert one.source_input[0] in {other.name for other in config.input}
    assert not given
    assert [one.name for one in config.output] == [one.name for one in session.get_outputs()]
    assert config.max_batch_size > 1 and config.HasField("dynamic_batching")
    library = config.model_operations.op_library_filename[0]
    assert library == "/models/cfsae/1/libcfsae_ort.so"
    assert (home / "1" / Path(library).name).exists()


def test_a_wrong_field_is_noticed(schema, home):
    from google.protobuf import text_format

    wrong = (home / "config.pbtxt").read_text().replace("allow_ragged_batch", "allow_ragged")
    with pytest.raises(text_format.ParseError, match="allow_ragged"):
        text_format.Parse(wrong, schema.ModelConfig())


def test_requests_in_one_batch_are_answered_as_alone(home, custom_ops):
    fitted = make_fitted()
    session = export.open_session(home / "1" / "model.onnx", custom_ops=custom_ops)
    alone = [
        export.feeds(fitted, [["i1", "i2"]], n=7, steer="horror=0.4, -anime"),
        export.feeds(fitted, [[]], n=4),
        export.feeds(fitted, [["i5", "i9", "i44"]], n=5, steer="film noir=0.2"),
    ]
    ragged = ("items", "knob_latents", "knob_weights", "knob_kinds")
    batch = {name: np.concatenate([one[name] for one in alone]) for name in ragged}
    for offsets, source in (("offsets", "items"), ("knob_offsets", "knob_latents")):
        batch[offsets] = np.cumsum([0, *(len(one[source]) for one in alone)], dtype=np.int32)
    batch["n"] = np.array([[one["n"]] for one in alone], dtype=np.int64)
    ids, scores = session.run(["ids", "scores"], batch)
    assert ids.shape == (3, 7)
    path = export.to_onnx(fitted, home / "alone.onnx", mode="reconstruct")
    single = export.open_session(path)
    for row, one in enumerate(alone):
        want_ids, want_scores = single.run(["ids", "scores"], one)
        np.testing.assert_array_equal(ids[row, : one["n"]], want_ids[0])
        np.testing.assert_allclose(scores[row, : one["n"]], want_scores[0], rtol=1e-4)


def test_a_knob_of_weight_0_is_none(home):
    fitted = make_fitted()
    session = export.open_session(home / "1" / "model.onnx")
    none = {name: one for name, one in export.feeds(fitted, [["i1"]]).items()}
    none = {**none, "n": np.array([[10]]), "offsets": np.array([0, 1], np.int32)}
    del none["deny"], none["alpha"]
    without = {**none, "knob_offsets": np.array([0, 0], np.int32)}
    neutral = {
        **none,
        "knob_latents": np.zeros(1, np.int64),
        "knob_weights": np.zeros(1, np.float32),
        "knob_kinds": np.zeros(1, np.int64),
        "knob_offsets": np.array([0, 1], np.int32),
    }
    for one, other in zip(session.run(None, without), session.run(None, neutral), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_name_is_no_path(tmp_path):
    with pytest.raises(ValueError, match="name must be letters"):
        to_triton(make_fitted(), tmp_path, name="../cfsae")
    assert not list(tmp_path.iterdir())
