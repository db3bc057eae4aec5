"""Steering: the formula by hand, wishes to knobs, batches, and agreement with the reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfsae_fast import steering
from cfsae_fast.errors import UnknownConceptError
from cfsae_fast.ops import Code, KnobKind, Knobs
from cfsae_fast.steering import (
    Add,
    Mix,
    Scale,
    Turns,
    apply,
    boost,
    only,
    resolve,
    suppress,
    toward,
)

PUSH = steering.SUPPRESS_PUSH
Z = np.array([4.0, 0.0, 3.0, 1.0, 0.0])  # s = 8


class Map:
    """Two concepts on five latents, standing in for a ConceptMap."""

    known = {"noir": ([1, 2], [0.75, 0.25]), "horror": ([0], [1.0]), "anime": ([4], [1.0])}

    def target(self, concept):
        if concept not in self.known:
            raise UnknownConceptError(f"concept {concept!r} is unknown")
        latents, weights = self.known[concept]
        return np.array(latents, dtype=np.int32), np.array(weights, dtype=np.float32)

    def reach(self, concept):
        if concept == "noir":  # a third latent leans to it
            return np.array([1, 2, 3], np.int32), np.array([0.5, 0.25, 0.25], np.float32)
        return self.target(concept)


def steered(turns, z=Z):
    return apply(z, resolve(turns, Map()))


def knobs_as_set(row):
    return set(zip(row.latents.tolist(), np.round(row.weights, 6), row.kinds.tolist(), strict=True))


# --- the formula, by hand ---


def test_boost_mixes_and_keeps_the_sum():
    got = steered(boost("noir", 0.5))
    np.testing.assert_allclose(got, [2.0, 3.0, 2.5, 0.5, 0.0])
    assert got.sum() == pytest.approx(Z.sum())


def test_two_boosts_share_what_the_code_gives_up():
    got = steered(boost("noir", 0.4) + boost("horror", 0.1))
    np.testing.assert_allclose(got, [2 + 0.8, 2.4, 1.5 + 0.8, 0.5, 0.0])


def test_boosting_in_two_steps_is_boosting_once():
    np.testing.assert_allclose(
        steered(boost("noir", 0.1) + boost("noir", 0.2)), steered(boost("noir", 0.3))
    )


def test_suppress_silences_and_pushes_below_zero():
    np.testing.assert_allclose(steered(suppress("horror")), [-8 * PUSH, 0, 3, 1, 0])
    pushed = [4, -0.5 * 4 * PUSH, 1.5 - 0.25 * 4 * PUSH, 0.5 - 0.25 * 4 * PUSH, 0]
    np.testing.assert_allclose(steered(suppress("noir", 0.5)), pushed)


def test_only_takes_all_that_boosts_leave():
    np.testing.assert_allclose(steered(only("anime")), [0, 0, 0, 0, 8])
    np.testing.assert_allclose(steered(only("anime") + only("horror")), [4, 0, 0, 0, 4])
    np.testing.assert_allclose(steered(boost("horror", 0.25) + only("anime")), [2, 0, 0, 0, 6])


def test_order_is_scale_mix_add():
    turns = Add((0,), 1.0) + Mix((0,), alpha=0.5) + Scale((0,), 0.5)
    # scale: (2, 0, 3, 1, 0), s = 6; mix: (1 + 3, 0, 1.5, .5, 0); add: 5
    np.testing.assert_allclose(steered(turns), [5, 0, 1.5, 0.5, 0])


def test_relative_add_uses_the_sum_before_scaling():
    turns = Scale(range(5), 0.0) + Add((1,), -0.25, relative=True)
    np.testing.assert_allclose(steered(turns), [0, -2, 0, 0, 0])


def direction(concept):
    """Where toward goes, standing in for a recommender: two atoms whose sum is 0.5 long."""
    return np.array([1, 2]), np.array([0.75, 0.25]), 0.0 if concept == "nowhere" else 0.5


def test_toward_adds_by_the_pull_and_the_sum_before():
    row = resolve(toward("noir", 0.5), Map(), direction)
    step = 2 * steering.TOWARD_REACH * np.array([0.75, 0.25])  # length 1/2: twice the weights
    np.testing.assert_allclose(row.weights, step)
    assert row.is_pulled and row.is_relative and not row.at(8, 2).is_pulled
    np.testing.assert_allclose(apply(Z, row) - Z, [0, *8 * step, 0, 0])
    np.testing.assert_allclose(row.at(8, 0.25).weights, 2 * step)
    third = resolve(toward("noir", 0.25), Map(), direction).weights
    np.testing.assert_allclose(third, step / 3)
    joined = resolve(
        toward("noir", 0.5) + boost("horror", 0.5) + suppress("anime"), Map(), direction
    )
    np.testing.assert_allclose(
        apply(Z, joined), [2 + 4, *8 * step, 0.5, -8 * PUSH] + 0.5 * np.array([0, 0, 3, 0, 0])
    )


def test_toward_of_each_row_goes_by_its_own_pull():
    batch = [toward("noir", 0.5), None, toward("noir", 0.5) + Add((4,), 1.0)]
    resolved = lambda turns: resolve(turns, Map(), direction)  # noqa: E731
    knobs = steering.knobs_for(
        list(map(steering.as_turns, batch)), Map(), np.array([1.0, 5.0, 2.0]),
        lambda: np.array([1.0, 7.0, 0.5]), resolved=resolved,
    )  # fmt: skip
    step = 2 * steering.TOWARD_REACH * np.array([0.75, 0.25])
    assert knobs.offsets.tolist() == [0, 2, 2, 5]
    np.testing.assert_allclose(knobs.weights, [*step, *step, 1.0], rtol=1e-6)
    for pull, message in ((None, "pull must be given for turns that go by it"),
                          (np.ones(2), r"pull must have shape \(3,\), got \(2,\)"),
                          (np.array([1, np.inf, 1]), "pull must be finite")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            steering.knobs_for(batch, Map(), np.ones(3), pull, resolved=resolved)


def test_a_code_of_zeros_is_left_alone_by_mix_and_suppress():
    np.testing.assert_array_equal(steered(boost("noir", 0.9) + suppress("horror"), 0 * Z), 0 * Z)


def test_a_code_that_sums_to_nothing_is_left_alone_by_mix():
    np.testing.assert_array_equal(steered(boost("horror", 0.5), [1, 0, -1, 0, 0]), [1, 0, -1, 0, 0])


def test_absolute_and_relative_adds_add_up():
    turns = Add((1,), 1.0) + Add((1, 0), (0.5, -0.5), relative=True) + Add((1,), 2.0)
    np.testing.assert_allclose(steered(turns), [0, 7, 3, 1, 0])


def test_latents_can_be_turned_by_index_without_a_map():
    np.testing.assert_allclose(apply(Z, resolve(boost(3, 0.5))), [2, 0, 1.5, 4.5, 0])


def test_mix_scales_weights_to_one():
    assert Mix((1, 2), (3, 1), 0.5) == Mix([1, 2], [0.75, 0.25], 0.5)
    assert Mix((1, 2)).weights == (0.5, 0.5)


@pytest.mark.parametrize(
    "turns",
    [boost("noir", 0), suppress("noir", 0), Scale((1,), 1), Add((1,), 0), Mix((1,), alpha=0)],
)
def test_a_turn_of_nothing_leaves_no_knob(turns):
    assert len(resolve(turns, Map()).latents) == 0


@pytest.mark.parametrize("turns", [toward("noir", 0), toward("nowhere", 0.5)])
def test_toward_may_come_to_nothing(turns):
    assert len(resolve(turns, Map(), direction).latents) == 0


def test_suppressing_twice_silences_by_the_product():
    got = resolve(suppress("horror", 0.5) + suppress("horror", 0.5), Map())
    assert knobs_as_set(got) == {(0, 0.25, KnobKind.SCALE), (0, round(-PUSH, 6), KnobKind.ADD)}


def test_decimal_alphas_may_sum_to_one():
    row = resolve([boost(n, 0.1) for n in range(10)])
    assert row.weights.sum() <= 1.0 + 1e-12
    assert len(row.latents) == 10


@given(
    z=st.lists(st.floats(0, 100), min_size=5, max_size=5),
    alphas=st.lists(st.floats(0, 1), min_size=3, max_size=3),
)
@settings(deadline=None, max_examples=60)
def test_mix_preserves_total_activation(z, alphas):
    share = max(1.0, sum(alphas))
    turns = [boost(name, a / share) for name, a in zip(Map.known, alphas, strict=True)]
    got = steered(turns, np.array(z))
    assert got.sum() == pytest.approx(sum(z), abs=1e-6)
    assert (got >= 0).all()


@given(alphas=st.tuples(st.floats(0, 1), st.floats(0, 1)))
@settings(deadline=None, max_examples=40)
def test_more_boost_gives_the_concept_more(alphas):
    low, high = sorted(alphas)
    assert steered(boost("anime", high))[4] >= steered(boost("anime", low))[4]


# --- batches ---


def test_one_wish_for_all_is_one_shared_set():
    knobs = steering.knobs_for(steering.per_row("noir=0.3", 4), Map())
    assert knobs.offsets.tolist() == [0, 2]
    assert [a.dtype.name for a in knobs] == ["int64", "int32", "float32", "uint8"]


def test_every_row_has_its_own_knobs():
    batch = [boost("horror", 0.5), None, {"horror": -1}, "only:anime, noir=0.25"]
    knobs = steering.knobs_for(batch, Map(), np.array([1.0, 2.0, 8.0, 4.0]))
    assert knobs.offsets.tolist() == [0, 1, 1, 3, 6]
    assert knobs.latents.tolist() == [0, 0, 0, 1, 2, 4]
    np.testing.assert_allclose(knobs.weights, [0.5, 0, -8 * PUSH, 0.1875, 0.0625, 0.75])
    assert knobs.kinds.tolist() == [0, 1, 2, 0, 0, 0]


def test_a_shared_suppress_follows_each_row_s_activation():
    knobs = steering.knobs_for(steering.per_row(suppress("horror"), 2), Map(), np.array([1.0, 3.0]))
    assert knobs.offsets.tolist() == [0, 2, 4]
    np.testing.assert_allclose(knobs.weights, [0, -PUSH, 0, -3 * PUSH])


def test_batches_without_rows_or_wishes():
    assert steering.knobs_for([], Map()).offsets.tolist() == [0]
    knobs = steering.knobs_for([None, None], Map())
    assert knobs.offsets.tolist() == [0, 0] and len(knobs.latents) == 0


def test_per_row_of_every_form():
    turns = boost("noir", 0.3)
    for shared in (turns, Turns([turns]), [turns], {"noir": 0.3}, "noir=0.3"):
        assert steering.per_row(shared, 2) == [Turns([turns])] * 2
    assert steering.per_row(None, 2) == [Turns(), Turns()]
    assert steering.per_row([turns, suppress("horror")], 1) == [turns + suppress("horror")]
    assert steering.per_row([{"noir": 0.3}, None], 2) == [Turns([turns]), Turns()]
    assert not any(steering.per_row([None, ""], 2))


@st.composite
def batches(draw):
    """A random batch of codes over 6 latents, and random primitives per row."""
    share = st.floats(0, 1).map(lambda x: round(x, 3))
    latents = st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True)
    turn = st.one_of(
        st.builds(lambda n, a: Mix(n, alpha=a / 3), latents, share),
        st.builds(lambda n, a: Add(n, 4 * a - 2), latents, share),
        st.builds(lambda n, a: Add(n, a - 0.5, relative=True), latents, share),
    )
    scale = st.builds(Scale, latents, share)
    batch = []
    for _ in range(draw(st.integers(1, 4))):
        turns = draw(st.lists(turn, max_size=3)) + draw(st.lists(scale, max_size=1))
        batch.append(Turns(turns))
    seed = draw(st.integers(0, 2**31))
    return batch, seed


def codes(n_rows, seed, n_latents=6, k=3):
    """Random valid codes, some with padding, and the same dense."""
    rng = np.random.default_rng(seed)
    indices = np.argsort(rng.random((n_rows, n_latents)), axis=1)[:, :k].astype(np.int32)
    values = -np.sort(-rng.integers(1, 9, (n_rows, k)).astype(np.float32), axis=1)
    empty = np.arange(k) >= rng.integers(0, k + 1, n_rows)[:, None]
    indices[empty], values[empty] = -1, 0
    dense = np.zeros((n_rows, n_latents))
    for row, at in zip(*np.nonzero(~empty), strict=True):
        dense[row, indices[row, at]] += values[row, at]
    return Code(indices, values), dense


def engine_steer(code, knobs):
    from cfsae_fast import ops

    return ops.steer(code, knobs, n_latents=6)


def reference_steer(code, knobs):
    torch = pytest.importorskip("torch")
    from cfsae_fast import reference

    code = Code(torch.tensor(code.indices), torch.tensor(code.values).double())
    got = reference.steer(code, Knobs(*map(torch.tensor, knobs)), n_latents=6)
    return Code(got.indices.numpy(), got.values.numpy())


@pytest.mark.parametrize("steer", [reference_steer, engine_steer])
@given(case=batches())
@settings(deadline=None, max_examples=80)
def test_engine_and_reference_agree_with_the_formula(steer, case):
    batch, seed = case
    code, dense = codes(len(batch), seed)
    got = steer(code, steering.knobs_for(batch, None, dense.sum(axis=1)))
    for row, turns in enumerate(batch):
        kept = got.indices[row] >= 0
        dense_got = np.zeros(6)
        dense_got[got.indices[row][kept]] = got.values[row][kept]
        np.testing.assert_allclose(dense_got, apply(dense[row], resolve(turns)), atol=1e-5)


# --- bad input ---

BAD = {
    "alpha high": (lambda: boost("noir", 1.5), r"alpha must be in \[0, 1\], got 1.5"),
    "alpha low": (lambda: boost("noir", -0.1), r"alpha must be in \[0, 1\], got -0.1"),
    "alpha nan": (lambda: boost("noir", float("nan")), "alpha must be finite, got nan"),
    "alpha text": (lambda: boost("noir", "0.3"), "alpha must be a number, got '0.3'"),
    "alpha bool": (lambda: boost("noir", True), "alpha must be a number, got True"),
    "strength": (lambda: suppress("noir", 2), r"strength must be in \[0, 1\], got 2"),
    "strength nan": (lambda: suppress("noir", np.nan), "strength must be finite"),
    "empty name": (lambda: only("  "), "concept must not be empty"),
    "negative latent": (lambda: boost(-1, 0.3), r"latents must be .* got -1"),
    "latent type": (lambda: Mix((0.5,)), "latents must be whole numbers"),
    "no latents": (lambda: Scale((), 0.5), "latents must name at least one"),
    "weights": (lambda: Mix((1, 2), (1, -1)), "weights must be >= 0"),
    "zero weights": (lambda: Mix((1, 2), (0, 0)), "weights must be >= 0 and not all 0"),
    "lengths": (lambda: Add((1, 2), (1,)), r"amounts must be one per latent \(2\), got 1"),
    "amount": (lambda: Add((1,), np.inf), "amounts must be finite"),
    "negative scale": (lambda: Scale((1,), -2), "factors must be >= 0, got -2"),
    "scale twice": (lambda: Scale((1, 1), 2), "latents must be scaled once each"),
    "two scales": (lambda: steered(Scale((1,), 2) + Scale((1,), 2)), "scale a latent once"),
    "total": (
        lambda: steered(boost("noir", 0.7) + Mix((0,), alpha=0.4)),
        "steer must boost by at most 1 in total, got 1.1",
    ),
    "nothing left": (lambda: steered(boost("noir", 1) + only("anime")), "must be left a share"),
    "rows": (lambda: steering.per_row([None], 2), r"one entry per row \(2\), got 1"),
    "no activation": (
        lambda: steering.knobs_for([suppress("noir")], Map()),
        "activation must be given",
    ),
    "activation": (
        lambda: steering.knobs_for([suppress("noir")], Map(), np.ones(2)),
        r"activation must have shape \(1,\), got \(2,\)",
    ),
    "activation nan": (
        lambda: steering.knobs_for([suppress("noir")], Map(), np.array([np.nan])),
        "activation must be finite",
    ),
    "unknown": (lambda: steered(boost("nori", 0.3)), "concept 'nori' is unknown"),
    "toward strength": (lambda: toward("noir", 1.1), r"strength must be in \[0, 1\], got 1.1"),
    "toward alone": (lambda: steered(toward("noir", 0.3)), "must be asked of a recommender"),
    "no map": (lambda: resolve(boost("noir", 0.3)), "concept 'noir' is unknown: there are no"),
}


@pytest.mark.parametrize("call, message", BAD.values(), ids=BAD.keys())
def test_bad_wishes(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("steer", [3.5, [3.5], boost])
def test_wishes_of_a_wrong_type(steer):
    with pytest.raises(TypeError, match="must be"):
        steering.as_turns(steer)
    with pytest.raises(TypeError, match="concept must be a name"):
        boost(None, 0.3)
