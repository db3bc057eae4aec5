"""Folded graphs: the tables are read, and what they cannot decide is decided by the dense path."""

import numpy as np
import pytest

from cfsae_fast import export
from tests.export.networks import make_fitted

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
MODES = ("reconstruct", "residual")


def changed(path, to, **tensors):
    """A copy of a model whose initializers went through functions."""
    model = onnx.load(path)
    for one in model.graph.initializer:
        change = tensors.pop(one.name.replace(".", "_"), None)
        if change is not None:
            array = onnx.numpy_helper.to_array(one)
            one.CopyFrom(onnx.numpy_helper.from_array(change(array), one.name))
    assert not tensors
    onnx.save(model, to)
    return to


def ask(path, recommender, custom_ops, histories):
    session = export.open_session(path, custom_ops=custom_ops, verify=False)
    asked = export.feeds(recommender, histories, n=5, steer="horror=0.3, -anime")
    return session.run(["ids", "scores"], asked)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sae", ["topk", "batchtopk"])
def test_random_requests(tmp_path, sae, mode, custom_ops):
    fitted = make_fitted("elsa", sae, n_items=300, n_latents=192)
    path = export.to_onnx(fitted, tmp_path / "m.onnx", mode=mode, folded=True)
    found = export.check_parity(fitted, path, requests=96, custom_ops=custom_ops)
    assert found.holds, found


def test_the_nodes_are_the_folded_ones(exported):
    nodes = {}
    for mode in MODES:
        _, path = exported.model("elsa", "topk", mode, True)
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        nodes[mode] = [one.op_type for one in model.graph.node if one.domain == "ai.cfsae"]
        assert {one.name for one in model.functions} == set(nodes[mode])
    both = ["EncodeRows", "FoldedTopkEncode"]
    assert nodes == {
        "reconstruct": [*both, "Steer", "SparseDecode", "FoldedRecommend"],
        "residual": [*both, "SteerDecode", "Recommend"],
    }


@pytest.mark.parametrize("side", ["encode", "decode"])
def test_tables_are_read(exported, tmp_path, custom_ops, side):
    """Rows put in another order, with errors that say nothing of it: other answers."""
    recommender, path = exported.model("elsa", "topk", "reconstruct", True, 300)
    wrong = changed(path, tmp_path / "m.onnx", **{f"{side}_values": lambda x: x[::-1]})
    histories = [["i3", "i8", "i250"]]
    ids = [ask(one, recommender, custom_ops, histories)[0].tolist() for one in (path, wrong)]
    assert ids[0] != ids[1]


@pytest.mark.parametrize("worse", [30.0, np.inf, np.nan])
def test_tables_that_decide_nothing_cost_time_alone(exported, tmp_path, custom_ops, worse):
    """The errors say that the tables are useless, and they are: the dense path answers."""
    recommender, path = exported.model("elsa", "topk", "reconstruct", True, 300)
    changes = {}
    for side in ("encode", "decode"):
        changes[f"{side}_values"] = lambda x: x[::-1]
        changes[f"{side}_errors"] = lambda x: np.full_like(x, worse)
    useless = changed(path, tmp_path / "m.onnx", **changes)
    for histories in ([["i3", "i8", "i250"]], [["i1"], [], ["i7", "i9"]]):
        want = ask(path, recommender, custom_ops, histories)
        got = ask(useless, recommender, custom_ops, histories)
        np.testing.assert_array_equal(got[0], want[0])
        np.testing.assert_allclose(got[1], want[1], rtol=1e-5)


@pytest.mark.parametrize("part", ["values", "scales", "errors", "sums", "shifts", "norms"])
@pytest.mark.parametrize("side", ["encode", "decode"])
def test_tables_of_another_shape_are_refused(exported, tmp_path, side, part):
    recommender, path = exported.model("elsa", "topk", "reconstruct", True)
    short = changed(path, tmp_path / "m.onnx", **{f"{side}_{part}": lambda x: x[:3]})
    with pytest.raises(Exception, match="must have shape|must lie in"):
        ask(short, recommender, True, [["i1", "i80"]])


@pytest.mark.parametrize("cfae, sae", [("multdae", "topk"), ("elsa", "basic")])
def test_what_does_not_fold_is_refused(tmp_path, cfae, sae):
    with pytest.raises(ValueError, match="the dense"):
        export.to_onnx(make_fitted(cfae, sae), tmp_path / "m.onnx", folded=True)
    assert not list(tmp_path.iterdir())
