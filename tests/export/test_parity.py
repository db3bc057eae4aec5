"""The exported graph gives Python's answers, with standard ops and with the engine's kernels."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfsae_fast import export, steering
from cfsae_fast.export.parity import compare
from cfsae_fast.recommender import SteerableRecommender
from tests.export.networks import CFAES, MODES, SAES

pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sae", SAES)
@pytest.mark.parametrize("cfae", CFAES)
def test_random_requests(exported, cfae, sae, mode, custom_ops):
    recommender, path = exported.model(cfae, sae, mode)
    found = export.check_parity(recommender, path, requests=96, custom_ops=custom_ops)
    assert found.holds, found


def wishes():
    concepts = st.sampled_from(["film noir", "horror", "anime"])
    turn = st.one_of(
        st.builds(steering.boost, concepts, st.sampled_from([0.1, 0.3])),
        st.builds(steering.suppress, concepts, st.sampled_from([0.5, 1.0])),
        st.builds(
            lambda latent, amount: steering.Add((latent,), (amount,)),
            st.integers(0, 95),
            st.floats(-2, 2, width=32),
        ),
    )
    return st.one_of(st.none(), st.lists(turn, max_size=2), st.builds(steering.only, concepts))


@st.composite
def hostile(draw):
    """Empty histories, repeated and all items, no knobs or all kinds, N beyond the catalogue."""
    item = st.integers(0, 89).map("i{}".format)
    everything = st.just([f"i{at}" for at in range(90)])
    history = st.one_of(st.lists(item, max_size=12), everything)
    histories = draw(st.lists(history, min_size=1, max_size=5))
    return {
        "histories": histories,
        "steer": [draw(wishes()) for _ in histories],
        "deny": draw(st.lists(item, max_size=4)),
        "n": draw(st.sampled_from([1, 7, 90, 130])),
    }


@pytest.mark.parametrize(
    "model, folded",
    [
        (("elsa", "topk"), False),
        (("multvae", "batchtopk"), False),
        (("elsa", "basic"), False),
        (("elsa", "topk"), True),
    ],
)
@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=40)
@given(request=hostile())
def test_hostile_requests(exported, model, folded, mode, request):
    recommender, _ = exported.model(*model, mode, folded)
    for custom_ops in (False, True):
        session = exported.session(*model, mode, custom_ops, folded)
        found = compare(recommender, session, mode, **request)
        assert found.holds, (found, custom_ops)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cfae", ["elsa", "multvae"])
def test_toward_comes_as_each_history_s_own_knobs(exported, cfae, mode, custom_ops):
    recommender, _ = exported.model(cfae, "topk", mode)
    fitted = replace(recommender.fitted, probed=recommender.fitted.concepts)
    knowing = SteerableRecommender.from_fitted(fitted)
    far, near = steering.toward("film noir", 0.4), steering.toward("horror", 0.1)
    wishes = [far, None, far + near, far + steering.boost("anime", 0.2), near]
    request = {
        "histories": [["i1", "i2"], ["i3"], [], [f"i{at}" for at in range(30)], ["i8"]],
        "steer": [wish and steering.as_turns(wish) for wish in wishes], "deny": ["i9"], "n": 20,
    }  # fmt: skip
    session = exported.session(cfae, "topk", mode, custom_ops)
    found = compare(knowing, session, mode, **request)
    assert found.holds, found
    asked = export.feeds(knowing, request["histories"], steer=far)
    first = asked["knob_weights"][asked["knob_offsets"][:-1]]
    assert len(set(first.tolist())) == 5 and set(asked["knob_kinds"].tolist()) == {3}


def test_code_is_the_library_s(exported, custom_ops):
    for sae in SAES:
        recommender, _ = exported.model("elsa", sae, "residual")
        session = exported.session("elsa", sae, "residual", custom_ops)
        histories = [["i3", "i8"], [], ["i70"]]
        names = ["code_indices", "code_values"]
        indices, values = session.run(names, export.feeds(recommender, histories))
        want = recommender.encode(histories=histories).code
        width = want.indices.shape[1]
        np.testing.assert_array_equal(indices[:, :width], want.indices)
        np.testing.assert_allclose(values[:, :width], want.values, rtol=1e-4, atol=1e-6)
        assert (indices[:, width:] == -1).all() and (values[:, width:] == 0).all()


def test_no_knob_is_the_base_model_bit_for_bit(exported, custom_ops):
    session = exported.session("elsa", "topk", "residual", custom_ops)
    recommender, _ = exported.model("elsa", "topk", "residual")
    histories = [["i1", "i2"], ["i5"]]
    base = session.run(None, export.feeds(recommender, histories))
    scaled_by_1 = export.feeds(recommender, histories)
    del scaled_by_1["knob_latents"], scaled_by_1["knob_weights"], scaled_by_1["knob_kinds"]
    del scaled_by_1["knob_offsets"]
    for one, other in zip(base, session.run(None, scaled_by_1), strict=True):
        np.testing.assert_array_equal(one, other)


def test_alpha_multiplies_mixes(exported, custom_ops):
    session = exported.session("elsa", "topk", "residual", custom_ops)
    recommender, _ = exported.model("elsa", "topk", "residual")
    histories = [["i1", "i2"], ["i5"]]
    half = export.feeds(recommender, histories, steer="horror=0.25, anime=0.1")
    full = export.feeds(recommender, histories, steer="horror=0.5, anime=0.2")
    full["alpha"] = np.array(0.5, dtype=np.float32)
    for one, other in zip(session.run(None, half), session.run(None, full), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_one_set_of_knobs_serves_all_rows(exported, custom_ops):
    session = exported.session("elsa", "topk", "residual", custom_ops)
    recommender, _ = exported.model("elsa", "topk", "residual")
    histories = [["i1", "i2"], [], ["i5"]]
    each = export.feeds(recommender, histories, steer="horror=0.4, -anime")
    alone = export.feeds(recommender, [[]], steer="horror=0.4, -anime")
    shared = each | {name: array for name, array in alone.items() if name.startswith("knob")}
    for one, other in zip(session.run(None, each), session.run(None, shared), strict=True):
        np.testing.assert_array_equal(one, other)


def test_batch_is_one_by_one(exported, custom_ops):
    session = exported.session("multvae", "topk", "residual", custom_ops)
    recommender, _ = exported.model("multvae", "topk", "residual")
    histories = [["i1", "i2"], [], ["i5", "i9", "i44"]]
    together = session.run(["ids"], export.feeds(recommender, histories, steer="horror=0.4"))[0]
    for row, history in enumerate(histories):
        alone = session.run(["ids"], export.feeds(recommender, [history], steer="horror=0.4"))[0]
        np.testing.assert_array_equal(alone[0], together[row])


def test_a_wrong_weight_is_noticed(exported, tmp_path):
    """The check itself can fail: a graph of another dictionary is not this model's."""
    from dataclasses import replace

    recommender, _ = exported.model("elsa", "topk", "residual")
    fitted = recommender.fitted
    other = replace(fitted, sae=replace(fitted.sae, dictionary=fitted.sae.dictionary[::-1]))
    path = export.to_onnx(other, tmp_path / "other.onnx")
    assert not export.check_parity(fitted, path, requests=32).holds
