"""recommend against the reference: order, ties, seen, allowed, padding, hostile numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_cases import ISAS, assert_same, copies, integers, make_rows, reals, seeds, tensors

from cfsae_fast import ops, reference
from cfsae_fast.ops import Rows, serving

DIRECT = 16  # the engine packs tiles above this many rows


@given(seeds, st.integers(0, 60), st.integers(1, 200), st.integers(1, 40), st.integers(1, 220),
       st.sampled_from(ISAS))  # fmt: skip
def test_equals_reference_exactly_ties_and_all(seed, batch, n_items, dim, n, isa):
    rng = np.random.default_rng(seed)
    embedding, items = integers(rng, batch, dim), integers(rng, n_items, dim, reach=1)
    options = {
        "bias": integers(rng, n_items) if seed & 1 else None,
        "seen": make_rows(rng, batch, n_items, 2 * n_items) if seed & 2 else None,
        "allowed": rng.random(n_items) < 0.7 if seed & 4 else None,
    }
    with ops.force_isa(isa):
        got = ops.recommend(embedding, items, n, **options)
    wide = {name: tensors(value, double=True) for name, value in options.items()}
    want = reference.recommend(*tensors((embedding, items), double=True), n, **wide)
    assert_same(got, want)


@pytest.mark.parametrize(
    "batch, n_items, dim, n",
    [(1, 5000, 64, 20), (257, 700, 512, 10), (DIRECT + 1, 9, 33, 9), (1, 1, 1, 1)],
)
def test_scores_are_close_on_reals(batch, n_items, dim, n, rng, isa):
    embedding, items = reals(rng, batch, dim), reals(rng, n_items, dim)
    seen = make_rows(rng, batch, n_items, 5)
    got = ops.recommend(embedding, items, n, seen=seen)
    wide = tensors((embedding, items), double=True)
    want = reference.recommend(*wide, n, seen=tensors(seen))
    np.testing.assert_allclose(got.scores, want.scores, atol=2e-4)
    scores = embedding.astype(np.float64) @ items.T.astype(np.float64)
    rows, places = np.nonzero(got.ids >= 0)
    own = scores[rows, got.ids[rows, places]]
    np.testing.assert_allclose(got.scores[rows, places], own, atol=2e-4)
    for row in range(batch):
        mine = seen.items[seen.offsets[row] : seen.offsets[row + 1]]
        assert not set(got.ids[row]) & set(mine.tolist())


def test_threads_do_not_change_results(rng):
    embedding, items = reals(rng, 100, 64), reals(rng, 3000, 64)
    for rows in (1, 100):
        alone = ops.recommend(embedding[:rows], items, 20, threads=1)
        for threads in (2, 3):
            assert_same(ops.recommend(embedding[:rows], items, 20, threads=threads), alone)


def test_equal_scores_come_in_order_of_id_over_many_tiles(isa):
    items = np.ones((5000, 3), np.float32)
    for batch in (1, 40):
        got = ops.recommend(np.ones((batch, 3), np.float32), items, 100)
        assert_same(got.ids, np.tile(np.arange(100), (batch, 1)))
        rising = np.linspace(0, 1, 5000, dtype=np.float32)
        got = ops.recommend(np.ones((batch, 3), np.float32), items, 100, bias=rising)
        assert_same(got.ids, np.tile(np.arange(4999, 4899, -1), (batch, 1)))


@pytest.mark.parametrize("batch", [1, 40])
def test_a_user_who_has_seen_everything_gets_padding(batch, isa):
    every = np.tile(np.arange(50, dtype=np.int32)[::-1], batch)
    seen = Rows(np.arange(batch + 1) * 50, every)
    got = ops.recommend(np.ones((batch, 3), np.float32), np.ones((50, 3), np.float32), 5, seen=seen)
    assert_same(got, (np.full((batch, 5), -1), np.full((batch, 5), -np.inf)))


@pytest.mark.parametrize("batch", [2, 40])
def test_nan_and_minus_infinity_are_never_returned(batch, isa):
    items = np.array([[1], [np.nan], [-np.inf], [np.inf], [-1]], np.float32)
    embedding = np.ones((batch, 1), np.float32)
    embedding[1] = np.nan
    got = ops.recommend(embedding, items, 5)
    assert_same(got.ids[0], np.array([3, 0, 4, -1, -1]))
    assert_same(got.scores[0], np.array([np.inf, 1, -1, -np.inf, -np.inf]))
    assert_same(got.ids[1], np.full(5, -1))
    nothing = ops.recommend(embedding, items, 5, allowed=np.zeros(5, bool))
    assert_same(nothing.ids, np.full((batch, 5), -1))


@pytest.mark.parametrize("batch", [1, 40])
def test_minus_zero_ties_with_zero(batch, isa):
    # only a product that underflows, with a bias of -0, can give -0
    items = np.array([[-1e-30], [1e-30], [-1e-30]], np.float32)
    embedding, bias = np.full((batch, 1), 1e-30, np.float32), np.full(3, -0.0, np.float32)
    got = ops.recommend(embedding, items, 3, bias=bias)
    assert_same(got.ids, np.tile([0, 1, 2], (batch, 1)))


def test_opcheck_and_tensors(rng):
    embedding, items, bias = reals(rng, 5, 7), reals(rng, 11, 7), reals(rng, 11)
    seen, allowed = make_rows(rng, 5, 11), rng.random(11) < 0.7
    given_ = tensors((embedding, items, bias, seen, allowed))
    torch.library.opcheck(
        serving._recommend.overload,
        (*given_[:2], 4, given_[2], given_[3].offsets, given_[3].items, given_[4], 2),
    )
    torch.library.opcheck(serving._recommend.overload, (*given_[:2], 4, None, None, None, None, 2))
    want = ops.recommend(embedding, items, 4, bias=bias, seen=seen, allowed=allowed)
    e, i, b, s, a = given_
    assert_same(ops.recommend(e.requires_grad_(), i, 4, bias=b, seen=s, allowed=a), want)
    bytes_ = allowed.astype(np.uint8)
    assert_same(ops.recommend(embedding, items, 4, bias=bias, seen=seen, allowed=bytes_), want)


def test_inputs_are_not_mutated_and_strides_do_not_matter(rng):
    embedding, items, bias = reals(rng, 20, 7), reals(rng, 11, 7), reals(rng, 11)
    seen = make_rows(rng, 20, 11)
    before = copies([embedding, items, bias, seen])
    got = ops.recommend(embedding, items, 4, bias=bias, seen=seen)
    assert_same([embedding, items, bias, seen], before)
    turned = map(np.asfortranarray, (embedding, items))
    assert_same(ops.recommend(*turned, 4, bias=bias, seen=seen), got)


F32, I32 = np.float32, np.int32


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"n": 0}, ValueError, "n must be at least 1, got 0"),
        ({"items": np.ones((5, 2), F32)}, ValueError,
         r"items must have shape \(any, 3\), got \(5, 2\)"),
        ({"items": np.ones((5, 3), I32)}, TypeError, "items must be float32, got int32"),
        ({"bias": np.ones(4, F32)}, ValueError, r"bias must have shape \(5,\), got \(4,\)"),
        ({"allowed": np.ones(4, bool)}, ValueError, r"allowed must have shape \(5,\), got \(4,\)"),
        ({"allowed": np.ones(5, F32)}, TypeError, "allowed must be uint8, got float32"),
        ({"seen": Rows(np.array([0, 1, 1]), np.array([5], I32))}, ValueError,
         r"seen.items must lie in \[0, 5\), got 5"),
        ({"seen": Rows(np.array([0, 1]), np.array([1], I32))}, ValueError,
         r"seen.offsets must have shape \(3,\), got \(2,\)"),
        ({"seen": Rows(np.array([0, 2, 1]), np.array([1], I32))}, ValueError,
         "seen.offsets must rise"),
    ],
)  # fmt: skip
def test_errors_name_argument_want_and_got(change, error, message):
    given_ = {"embedding": np.ones((2, 3), F32), "items": np.ones((5, 3), F32), "n": 2} | change
    with pytest.raises(error, match=message):
        ops.recommend(**given_)
