"""Refined and pursued codes: never a larger error, falling with k, and the planted code found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfsae_fast.inference import SAENetwork
from cfsae_fast.inference.pursuit import pursue, refine
from cfsae_fast.ops import Code


def unit_rows(rng, n, d):
    rows = rng.normal(size=(n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def network(rng, d=12, n_latents=48, k=6, kind="topk"):
    dictionary = unit_rows(rng, n_latents, d)
    return SAENetwork(
        kind=kind,
        encoder=dictionary + 0.1 * rng.normal(size=dictionary.shape).astype(np.float32),
        encoder_bias=np.full(n_latents, -0.05, np.float32),
        dictionary=dictionary,
        bias=0.1 * rng.normal(size=d).astype(np.float32),
        k=n_latents if kind == "basic" else k,
        width=n_latents if kind == "basic" else k,
        threshold=0.2 if kind == "batchtopk" else None,
    )


def errors(sae, x, encoded):
    """Squared error of each row in the units that the SAE works in, in float64."""
    mean, std = (one[:, None].astype(np.float64) for one in encoded.stats)
    told = np.zeros(x.shape)
    for row, (latents, values) in enumerate(zip(*encoded.code, strict=True)):
        kept = latents >= 0
        told[row] = values[kept].astype(np.float64) @ sae.dictionary[latents[kept]]
    return (((x - mean) / std - sae.bias - told) ** 2).sum(axis=1)


def assert_well_formed(code):
    indices, values = code
    assert ((indices >= 0) == (values > 0)).all()
    assert (np.diff(values, axis=1) <= 0).all()
    for row in indices:
        assert len(set(row[row >= 0])) == (row >= 0).sum()


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "basic"])
def test_refining_lowers_every_error_and_keeps_the_latents(rng, kind):
    sae, x = network(rng, kind=kind), rng.normal(size=(300, 12)).astype(np.float32)
    plain = sae.encode(x)
    before = errors(sae, x, plain)
    for steps in (1, 3, 20):
        refined = sae.encode(x, refine_steps=steps)
        after = errors(sae, x, refined)
        assert (after <= before + 1e-9).all()
        assert steps > 1 or after.mean() < 0.9 * before.mean()
        before = after + 1e-5 * np.abs(after)  # float32 values of the step before
        assert_well_formed(refined.code)
        for mine, theirs in zip(refined.code.indices, plain.code.indices, strict=True):
            assert set(mine[mine >= 0]) <= set(theirs[theirs >= 0])


def test_no_steps_is_the_plain_code(rng):
    sae, x = network(rng), rng.normal(size=(9, 12)).astype(np.float32)
    for mine, theirs in zip(sae.encode(x, refine_steps=0).code, sae.encode(x).code, strict=True):
        assert np.array_equal(mine, theirs)


def test_many_steps_reach_least_squares_where_that_is_positive():
    dictionary = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], np.float32)
    target = np.array([[2.2, 1.6]], np.float32)  # 1 * atom 0 + 2 * atom 1
    code = Code(np.array([[1, 0]], np.int32), np.array([[0.5, 0.5]], np.float32))
    found = refine(code, target, dictionary, 200)
    np.testing.assert_array_equal(found.indices, [[1, 0]])
    np.testing.assert_allclose(found.values, [[2.0, 1.0]], atol=1e-5)


def test_a_value_that_wants_to_be_negative_becomes_padding():
    dictionary = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
    code = Code(np.array([[0, 1]], np.int32), np.array([[1.0, 0.5]], np.float32))
    found = refine(code, np.array([[1.0, -1.0]], np.float32), dictionary, 50)
    np.testing.assert_array_equal(found.indices, [[0, -1]])
    np.testing.assert_allclose(found.values, [[1.0, 0.0]], atol=1e-6)


@given(
    rows=st.integers(0, 5), d=st.integers(2, 9), extra=st.integers(0, 9), seed=st.integers(0, 99)
)
def test_the_error_of_pursuit_falls_with_k(rows, d, extra, seed):
    rng = np.random.default_rng(seed)
    dictionary = unit_rows(rng, d + extra, d)
    target = rng.normal(size=(rows, d)).astype(np.float32)
    before = (target.astype(np.float64) ** 2).sum(axis=1)
    for k in range(1, len(dictionary) + 1):
        code = pursue(target, dictionary, k)
        assert_well_formed(code)
        told = np.einsum("bk,bkd->bd", code.values.astype(np.float64), dictionary[code.indices])
        after = ((target - told) ** 2).sum(axis=1)
        assert (after <= before * (1 + 1e-5) + 1e-6).all()
        before = after


def test_pursuit_finds_a_planted_code_that_the_encoder_misses(rng):
    """Correlated atoms, which one product with the encoder confuses."""
    sae = network(rng, d=32, n_latents=96, k=3)
    planted = np.array([rng.choice(96, size=3, replace=False) for _ in range(200)])
    weights = rng.uniform(0.5, 2.0, size=(200, 3))
    target = np.einsum("bk,bkd->bd", weights, sae.dictionary[planted])
    hits = [
        np.mean([len(set(a) & set(b)) for a, b in zip(found, planted, strict=True)]) / 3
        for found in (
            pursue(target.astype(np.float32), sae.dictionary, 3).indices,
            np.argsort(-(target @ sae.dictionary.T), axis=1)[:, :3],
        )
    ]
    assert hits[0] > 0.9 and hits[0] > hits[1] + 0.1


def test_pursuit_beats_the_encoder_at_equal_k(rng):
    sae, x = network(rng), rng.normal(size=(200, 12)).astype(np.float32)
    assert errors(sae, x, sae.pursue(x)).mean() < errors(sae, x, sae.encode(x)).mean()
    with pytest.raises(ValueError, match=r"k must be in \[1, n_latents=48\], got 49"):
        sae.pursue(x, 49)
