"""A tile of scores in ELSA's loss: fp32 and bf16 against the formula in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_cases import make_rows, seeds

from cfsae_fast.ops import Rows
from cfsae_fast.ops.tiles import add_item_grads_, cosine_tile_, cosine_tile_backward_


def dense(rows, n, n_items):
    out = np.zeros((n, n_items))
    np.add.at(out, (np.repeat(np.arange(n), np.diff(rows.offsets)), rows.items), rows.values)
    return out


def distinct(rng, n, n_items):
    """Rows whose items differ, with values."""
    picked = [rng.permutation(n_items)[: rng.integers(0, n_items + 1)] for _ in range(n)]
    offsets = np.cumsum([0, *map(len, picked)])
    items = np.concatenate([*picked, []]).astype(np.int32)
    rows = make_rows(rng, n, n_items, 0)
    return rows._replace(
        offsets=offsets, items=items, values=rng.random(len(items)).astype(np.float32) + 0.5
    )


@given(seeds, st.integers(0, 6), st.integers(0, 50), st.integers(1, 9), st.booleans(),
       st.integers(1, 3))  # fmt: skip
def test_forward_and_backward_are_the_formula(seed, n, width, others, bf16, threads):
    rng = np.random.default_rng(seed)
    n_items, first = width + others, int(rng.integers(others + 1))
    inputs, targets = distinct(rng, n, n_items), distinct(rng, n, n_items)
    scores = torch.from_numpy(rng.standard_normal((n, width)).astype(np.float32))
    if bf16:
        scores = scores.bfloat16()
    here = slice(first, first + width)
    x, t = dense(inputs, n, n_items)[:, here], dense(targets, n, n_items)[:, here]
    y = np.maximum(scores.double().numpy() - x, 0)
    tolerance = 0.02 if bf16 else 1e-5

    array = scores.view(torch.uint16).numpy() if bf16 else scores.numpy()
    squares, dots = (np.full(n, 2, np.float32) for _ in range(2))
    place = {"first_item": first, "n_items": n_items, "threads": threads}
    cosine_tile_(array, inputs, targets, squares, dots, **place)
    got = scores.double().numpy().copy()
    np.testing.assert_allclose(got, y, atol=tolerance, rtol=tolerance)
    np.testing.assert_allclose(squares, 2 + (got**2).sum(1), rtol=1e-4)
    np.testing.assert_allclose(dots, 2 + (got * t).sum(1), rtol=1e-4, atol=1e-4)

    on_scores, on_targets = rng.standard_normal((2, n)).astype(np.float32)
    slope = got * on_scores[:, None] + (got > 0) * t * on_targets[:, None]
    grads = np.full(len(inputs.items), 9, np.float32)
    cosine_tile_backward_(array, inputs, targets, on_scores, on_targets, grads, **place)
    np.testing.assert_allclose(scores.double(), slope, atol=2 * tolerance, rtol=2 * tolerance)
    row = np.repeat(np.arange(n), np.diff(inputs.offsets))
    inside = (inputs.items >= first) & (inputs.items < first + width)
    found = scores.double().numpy()[row[inside], inputs.items[inside] - first]
    np.testing.assert_array_equal(grads[inside], -found)
    assert (grads[~inside] == 9).all()


def test_nan_stays_nan_in_both_types(rng):
    rows = make_rows(rng, 1, 3, 0)
    rows = rows._replace(values=np.zeros(len(rows.items), np.float32))
    for scores in (torch.full((1, 3), torch.nan), torch.full((1, 3), torch.nan).bfloat16()):
        array = (
            scores.numpy() if scores.dtype == torch.float32 else scores.view(torch.uint16).numpy()
        )
        sums = np.zeros(1, np.float32), np.zeros(1, np.float32)
        cosine_tile_(array, rows, rows, *sums, first_item=0, n_items=3)
        assert scores.isnan().all() and np.isnan(sums[0]).all()


def test_a_nan_whose_rounding_would_overflow_stays_nan():
    odd = np.array([0x7FFFFFFF], np.uint32).view(np.float32)
    rows = Rows(np.array([0, 1]), np.array([1], np.int32), odd)
    scores = torch.ones(1, 3).bfloat16()
    sums = np.zeros(1, np.float32), np.zeros(1, np.float32)
    array = scores.view(torch.uint16).numpy()
    cosine_tile_(array, rows, rows, *sums, first_item=0, n_items=3)
    assert scores.isnan().tolist() == [[False, True, False]]


@pytest.mark.parametrize("first_item", [-1, 3])
def test_a_tile_beyond_the_catalogue_is_refused(first_item, rng):
    rows = make_rows(rng, 2, 4, 0)
    sums = np.zeros(2, np.float32), np.zeros(2, np.float32)
    with pytest.raises(ValueError, match=rf"first_item must lie in \[0, .*\], got {first_item}"):
        cosine_tile_(
            np.zeros((2, 2), np.float32), rows, rows, *sums, first_item=first_item, n_items=4
        )


def test_scores_of_another_type_are_refused(rng):
    rows = make_rows(rng, 2, 4, 0)
    sums = np.zeros(2, np.float32), np.zeros(2, np.float32)
    with pytest.raises(TypeError, match="scores must be float32"):
        cosine_tile_(np.zeros((2, 4)), rows, rows, *sums, first_item=0, n_items=4)


@given(seeds, st.integers(0, 9), st.integers(1, 30), st.integers(1, 20), st.booleans())
def test_item_gradients_add_up_onto_what_is_there(seed, n, n_items, d, values):
    rng = np.random.default_rng(seed)
    rows = make_rows(rng, n, n_items, values=values)
    grad = rng.standard_normal((n, d)).astype(np.float32)
    there = rng.standard_normal((n_items, d)).astype(np.float32)
    want = there.astype(np.float64)
    for b in range(n):
        for at in range(rows.offsets[b], rows.offsets[b + 1]):
            want[rows.items[at]] += grad[b] * (rows.values[at] if values else 1)
    got = there.copy()
    add_item_grads_(rows, grad, got)
    np.testing.assert_allclose(got, want, atol=1e-4)
    untouched = np.setdiff1d(np.arange(n_items), rows.items[rows.offsets[0] : rows.offsets[-1]])
    np.testing.assert_array_equal(got[untouched], there[untouched])


def test_item_gradients_of_items_that_are_not_there_are_refused(rng):
    rows, grad = make_rows(rng, 3, 50), np.zeros((3, 4), np.float32)
    with pytest.raises(ValueError, match="rows.items"):
        add_item_grads_(rows._replace(items=rows.items + 40), grad, np.zeros((30, 4), np.float32))
    with pytest.raises(ValueError, match="grad_weight must"):
        add_item_grads_(rows, grad, np.zeros((50, 5), np.float32))
