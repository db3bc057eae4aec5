"""The CUDA nodes of the custom-op library, over the emulated device, in a session of the runtime.

What stays untested without a GPU: the runtime's CUDA provider, its streams and its copies.
"""

import ctypes

import numpy as np
import pytest

from cfsae_fast import export
from cfsae_fast.export import sessions
from cfsae_fast.export.parity import check_parity, compare
from cfsae_fast.recommender import SteerableRecommender
from tests.cuda_on_cpu import building
from tests.export.networks import MODES, make_fitted

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(not building.has_compiler(), reason="no C++ compiler")

ON_HOST = -2  # OrtMemTypeCPUInput
HOST_INPUTS = {
    "EncodeRows": {0, 1},
    "TopkEncode": set(),
    "SteerDecode": {5, 6, 7, 8, 9},
    "Recommend": {3, 4, 5, 6},
    "Steer": {2, 3, 4, 5, 6},
    "SparseDecode": set(),
    "FoldedTopkEncode": {0, 1, 11},
    "FoldedRecommend": {3, 4, 5, 6, 16},
}


@pytest.fixture(scope="module")
def library():
    return building.build_custom_ops()


@pytest.fixture
def emulated(library, monkeypatch):
    monkeypatch.setattr(sessions, "custom_ops_path", lambda: library)


def exported(path, cfae, sae, mode, folded=False):
    fitted = make_fitted(cfae, sae, n_latents=192 if folded else 96)
    recommender = SteerableRecommender.from_fitted(fitted)
    options = {"mode": mode, "with_code": True, "folded": folded}
    return recommender, export.to_onnx(recommender, path / "m.onnx", **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", [("elsa", "topk"), ("multvae", "batchtopk"), ("elsa", "basic")])
def test_answers_are_python_s(emulated, tmp_path, model, mode):
    recommender, path = exported(tmp_path, *model, mode)
    found = check_parity(recommender, path, requests=16)
    assert found.holds, found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sae", ["topk", "batchtopk"])
def test_folded_graphs_are_python_s(emulated, tmp_path, sae, mode):
    recommender, path = exported(tmp_path, "elsa", sae, mode, folded=True)
    found = check_parity(recommender, path, requests=16)
    assert found.holds, found


@pytest.mark.parametrize("side", ["encode", "decode"])
@pytest.mark.parametrize("worse, is_read", [(0.0, True), (np.inf, False)])
def test_folded_tables_decide(emulated, tmp_path, side, worse, is_read):
    """Rows in another order: other answers, unless their errors say that they decide nothing."""
    recommender, path = exported(tmp_path, "elsa", "topk", "reconstruct", folded=True)
    model = onnx.load(path)
    for one in model.graph.initializer:
        array = onnx.numpy_helper.to_array(one)
        if one.name == f"{side}.values":
            one.CopyFrom(onnx.numpy_helper.from_array(array[::-1].copy(), one.name))
        if one.name == f"{side}.errors":
            one.CopyFrom(onnx.numpy_helper.from_array(np.full_like(array, worse), one.name))
    onnx.save(model, tmp_path / "wrong.onnx")
    asked = export.feeds(recommender, [["i3", "i8"], ["i70"]], n=5, steer="horror=0.3, -anime")
    ids = [
        export.open_session(one, verify=False).run(["ids"], asked)[0].tolist()
        for one in (path, tmp_path / "wrong.onnx")
    ]
    assert (ids[0] != ids[1]) == is_read


@pytest.mark.parametrize("folded", [False, True], ids=["dense", "folded"])
def test_values_below_the_threshold_go(library, monkeypatch, tmp_path, folded):
    recommender, path = exported(tmp_path, "elsa", "batchtopk", "residual", folded)
    model = onnx.load(path)
    (node,) = [one for one in model.graph.node if one.op_type.endswith("TopkEncode")]
    (threshold,) = [one for one in node.attribute if one.name == "threshold"]
    threshold.f = 1.5
    onnx.save(model, tmp_path / "m.onnx")
    asked, names = (
        export.feeds(recommender, [["i3", "i8"], ["i70"]]),
        ["code_indices", "code_values"],
    )
    want = export.open_session(path, verify=False).run(names, asked)
    monkeypatch.setattr(sessions, "custom_ops_path", lambda: library)
    found = export.open_session(path, verify=False).run(names, asked)
    assert (want[0] == -1).any() and (want[0] >= 0).any()
    np.testing.assert_array_equal(found[0], want[0])
    np.testing.assert_allclose(found[1], want[1], rtol=1e-5)


@pytest.mark.parametrize("folded", [False, True], ids=["dense", "folded"])
@pytest.mark.parametrize("mode", MODES)
def test_edges(emulated, tmp_path, mode, folded):
    """No history, all of it, denied items, more asked for than there is, a relative ADD."""
    recommender, path = exported(tmp_path, "elsa", "topk", mode, folded)
    session = export.open_session(path)
    histories = [[], ["i1", "i1"], [f"i{at}" for at in range(90)]]
    for turn in (None, "film noir=0.3", "+horror", "-anime"):
        request = {"histories": histories, "steer": [turn] * 3, "deny": ["i5"], "n": 95}
        found = compare(recommender, session, mode, **request)
        assert found.holds, (turn, found)


def test_code_is_the_library_s(emulated, tmp_path):
    recommender, path = exported(tmp_path, "elsa", "batchtopk", "residual")
    histories = [["i3", "i8"], [], ["i70"]]
    names = ["code_indices", "code_values"]
    found = export.open_session(path).run(names, export.feeds(recommender, histories))
    want = recommender.encode(histories=histories).code
    np.testing.assert_array_equal(found[0][:, : want.indices.shape[1]], want.indices)
    np.testing.assert_allclose(found[1][:, : want.values.shape[1]], want.values, rtol=1e-5)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("items", np.array([90]), "must lie in"),
        ("offsets", np.array([0, 5]), "offsets must rise"),
        ("n", np.array(0), "n must lie in"),
        ("deny", np.array([-1]), "deny must lie in"),
        ("alpha", np.array(2, np.float32), "alpha must lie in"),
    ],
)
@pytest.mark.parametrize("folded", [False, True], ids=["dense", "folded"])
def test_bad_requests_are_refused(emulated, tmp_path, folded, name, value, message):
    recommender, path = exported(tmp_path, "elsa", "topk", "reconstruct", folded=folded)
    asked = export.feeds(recommender, [["i1"]], steer=["horror=0.2"])
    assert name in asked
    asked[name] = value.reshape(asked[name].shape) if asked[name].ndim == 0 else value
    with pytest.raises(Exception, match=message):
        export.open_session(path).run(None, asked)


def test_what_a_request_says_is_asked_for_on_the_host(library):
    loaded = ctypes.CDLL(str(library))
    for name, host in HOST_INPUTS.items():
        types = [loaded.memory_type(name.encode(), at) for at in range(17)]
        known = [kind for kind in types if kind != 1]  # 1: no such input
        assert known and {at for at, kind in enumerate(known) if kind == ON_HOST} == host, name
