"""A Triton model repository: its configuration by Triton's own schema, its graph as it is fed.

Triton itself is not run here: joining.py does to requests what its sources do.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfsae_fast import export
from cfsae_fast.export import joined
from cfsae_fast.export.triton import to_triton
from tests.export import joining
from tests.export.joining import Batcher
from tests.export.networks import make_fitted

runtime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
BESIDE = Path(sys.prefix) / "beside" / "tritonclient==2.73.0"
RAGGED = ("items", "knob_latents", "knob_weights", "knob_kinds")


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


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same model as an exported file, for one request at a time."""
    path = tmp_path_factory.mktemp("alone") / "m.onnx"
    return export.open_session(export.to_onnx(make_fitted(), path, mode="reconstruct"))


@pytest.fixture(scope="module")
def config(schema, home):
    from google.protobuf import text_format

    return text_format.Parse((home / "config.pbtxt").read_text(), schema.ModelConfig())


@pytest.fixture(scope="module")
def batchers(schema, config, home):
    model = home / "1" / "model.onnx"
    sessions = [export.open_session(model, custom_ops=one, threads=1) for one in (False, True)]
    return [Batcher(schema, config, session) for session in sessions]


def row(items=(), latents=(0,), weights=(0.0,), kinds=(0,), n=5):
    """A client's request of one row."""
    ids = (items, latents, kinds)
    items, latents, kinds = (np.array([one], dtype=np.int64).reshape(1, -1) for one in ids)
    weights = np.array([weights], dtype=np.float32).reshape(1, -1)
    arrays = dict(zip(RAGGED, (items, latents, weights, kinds), strict=True))
    return {**arrays, "n": np.array([[n]], dtype=np.int64)}


def twice(request):
    """A request of two rows that are equally long, the second's items in another order."""
    both = {name: np.concatenate([array, array]) for name, array in request.items()}
    both["items"][1] = (both["items"][1] + 1) % 90
    return both


def want(session, request):
    """Ids and scores of each row of a request, asked by itself."""
    answers = []
    for at in range(len(request["n"])):
        asked = {name: request[name][at] for name in RAGGED}
        asked["offsets"] = np.array([0, len(asked["items"])])
        asked["knob_offsets"] = np.array([0, len(asked["knob_latents"])])
        asked["n"] = np.array(request["n"][at, 0])
        answers.append(session.run(["ids", "scores"], asked))
    return answers


def assert_same(part, answers, n):
    assert (part["refused"] == 0).all()
    for at, (ids, scores) in enumerate(answers):
        np.testing.assert_array_equal(part["ids"][at, :n], ids[0])
        np.testing.assert_allclose(part["scores"][at, :n], scores[0], rtol=1e-4, atol=1e-6)


def assert_refused(part, reason):
    assert (part["refused"] == reason).all()
    assert (part["ids"] == -1).all() and (part["scores"] == -np.inf).all()


def test_config_names_what_stands_there(config, home):
    assert (config.name, config.backend) == (home.name, "onnxruntime")
    assert config.max_batch_size > 1 and config.HasField("dynamic_batching")
    assert [one.name for one in config.output] == ["ids", "scores", "refused"]
    library = config.model_operations.op_library_filename[0]
    assert library == "/models/cfsae/1/libcfsae_ort.so"
    assert (home / "1" / Path(library).name).exists()
    onnx.checker.check_model(onnx.load(home / "1" / "model.onnx"), full_check=True)


def test_a_wrong_field_is_noticed(schema, home):
    from google.protobuf import text_format

    wrong = (home / "config.pbtxt").read_text().replace("allow_ragged_batch", "allow_ragged")
    with pytest.raises(text_format.ParseError, match="allow_ragged"):
        text_format.Parse(wrong, schema.ModelConfig())


items = st.lists(st.integers(0, 89), max_size=6)
knob = st.one_of(
    st.tuples(st.integers(0, 95), st.sampled_from([0.1, 0.2]), st.just(0)),
    st.tuples(st.integers(0, 95), st.sampled_from([-0.5, 1.0, 2.0]), st.sampled_from([2, 3])),
)
# where two knobs scale one latent, the nodes refuse: joined.py too
scale = st.tuples(st.integers(0, 95), st.sampled_from([0.0, 0.5, 3.0]), st.just(1))


@st.composite
def good(draw):
    knobs = draw(st.lists(knob, max_size=3)) + draw(st.lists(scale, max_size=1))
    made = row(draw(items), *zip(*knobs, strict=True), n=draw(st.integers(1, 95)))
    return made if draw(st.booleans()) else twice(made)


WRONG = {
    "an item too large": (row([1, 90]), 1),
    "a negative item": (row([-1]), 1),
    "an item that overflows": (row([2**63 - 1, -(2**63)]), 1),
    "an unknown latent": (row([1], [96], [0.1], [0]), 2),
    "a latent that overflows": (row([1], [2**63 - 1, -(2**63)], [1, 1], [1, 1]), 2),
    "an unknown kind": (row([1], [3], [0.1], [4]), 2),
    "a NaN": (row([1], [3], [np.nan], [2]), 2),
    "a negative mix": (row([1], [3], [-0.1], [0]), 2),
    "mixes above 1": (row([1], [3, 4], [0.6, 0.6], [0, 0]), 2),
    "a latent scaled twice": (row([1], [3, 3], [2.0, 2.0], [1, 1]), 2),
    "one weight too many": (row([1], [3], [0.1, 0.2], [0]), 4),
    "no kind": (row([1], [3], [0.1], []), 4),
    "n 0": (row([1], n=0), 8),
    "n absurd": (row([1], n=2**40), 8),
    "nearly all": (row([90], [3], [-0.1], [0], n=0), 11),
}


@settings(max_examples=60, deadline=None)
@given(requests=st.lists(st.one_of(good(), st.sampled_from(sorted(WRONG))), min_size=1, max_size=6))
def test_every_client_is_answered_as_alone(batchers, alone, requests):
    """Right and wrong requests, of one row or two, in one batch."""
    asked = [WRONG[one][0] if isinstance(one, str) else one for one in requests]
    for batcher in batchers:
        for one, request, part in zip(requests, asked, batcher.answer(asked), strict=True):
            if isinstance(one, str):
                assert_refused(part, WRONG[one][1])
            else:
                assert_same(part, want(alone, request), request["n"][0, 0])


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused_is_refused_alone_too(batchers, alone, case):
    """The row checks and the nodes agree, so nothing that passes here fails a batch."""
    request, reason = WRONG[case]
    assert_refused(batchers[1].answer([request])[0], reason)
    with pytest.raises(Exception, match="must"):
        want(alone, request)


def test_weights_do_not_move_to_a_stranger(batchers, alone):
    """One client's surplus makes up for another's lack: all three of them would be wrong."""
    lack, honest = row([5], [3, 4], [0.1], [0, 0]), row([1, 2], [10], [0.3], [0])
    surplus = row([6], [7], [0.2, 0.9], [0])
    for batcher in batchers:
        first, second, third = batcher.answer([lack, honest, surplus])
        assert_refused(first, 4)
        assert_refused(third, 4)
        assert_same(second, want(alone, honest), 5)


def test_counts_of_requests_instead_of_rows_fail(batchers, monkeypatch):
    """What the accumulated kinds count: a run with them must not give a client another's rows."""
    per_request = {"BATCH_ITEM_SHAPE": lambda sources: np.array([[one.size] for one in sources])}
    monkeypatch.setattr(joining, "BATCH_INPUTS", per_request)
    for batcher in batchers:
        with pytest.raises(Exception, match="Non-zero status code|rows are missing"):
            batcher.answer([twice(row([1, 2])), row([5])])


def test_reasons_are_documented():
    assert sorted(joined.WRONG) == [1, 2, 4, 8] and str(joined.MOST_N) in joined.WRONG[8]


def test_a_name_is_no_path(tmp_path):
    with pytest.raises(ValueError, match="name must be letters"):
        to_triton(make_fitted(), tmp_path, name="../cfsae")
    assert not list(tmp_path.iterdir())
