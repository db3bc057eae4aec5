"""A folded model answers in one call what its ops answer one after the other, bit for bit."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfsae_fast import ops
from cfsae_fast.inference import FoldedTables
from cfsae_fast.ops import Encoded, Knobs, Rows
from tests.ops.test_folded import ISAS, ROWS, SHAPES, assert_same, knobs_of, model, rows_of


def step_by_step(cfae, sae, tables, rows, cold, knobs, n, *, exclude_seen, allowed):
    embedding = cfae.encode(rows)
    embedding[np.diff(rows.offsets) == 0] = cold
    encoded = tables.encode(sae, rows, embedding)
    moved = sae.decode(encoded)
    if knobs is not None:
        moved = ops.steer_decode(
            embedding, encoded.code, knobs, sae.dictionary, sae.bias, encoded.stats,
            mode="reconstruct",
        )  # fmt: skip
        steered = ops.steer(encoded.code, knobs, n_latents=sae.n_latents)
        encoded = Encoded(steered, encoded.stats)
    seen = rows if exclude_seen else None
    return tables.recommend(cfae, encoded, moved, n, seen=seen, allowed=allowed)


def stack(parts):
    """Knobs of several rows from those of one each."""
    offsets = np.cumsum([0, *(len(part.latents) for part in parts)])
    return Knobs(
        offsets, *(np.concatenate(arrays) for arrays in list(zip(*parts, strict=True))[1:])
    )


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=120, deadline=None)
@given(
    **SHAPES,
    **ROWS,
    knobs=st.sampled_from(["none", "shared", "own"]),
    threshold=st.sampled_from([None, 0.0, "a value of the code"]),
)
def test_equals_its_ops_in_turn(
    isa, seed, kind, n_items, d, n_latents, n_rows, knobs, threshold, threads
):
    random = np.random.default_rng(seed)
    cfae, sae = model(random, kind, n_items, d, n_latents, min(6, n_latents), seed % 2 == 0)
    rows = rows_of(random, n_rows, n_items, values=bool(random.integers(2)))
    cold = random.standard_normal(d).astype(np.float32)
    if threshold == "a value of the code":
        with np.errstate(all="ignore"):
            found = sae.encode(cfae.encode(rows)).code.values
        threshold = float(random.choice(found.ravel())) if found.size else 0.3
    sae = replace(sae, threshold=threshold)
    turned = {
        "none": None,
        "shared": knobs_of(random, n_latents),
        "own": stack([knobs_of(random, n_latents) for _ in range(n_rows)]) if n_rows else None,
    }[knobs]
    n = int(random.integers(1, n_items + 4))
    options = {
        "exclude_seen": bool(random.integers(2)),
        "allowed": random.random(n_items) < 0.8 if random.integers(2) else None,
    }
    with ops.force_isa(isa), np.errstate(all="ignore"):
        tables = FoldedTables.build(cfae, sae)
        at_once = tables.model(cfae, sae, cold)
        got = at_once.answer(rows, turned, n, **options, threads=threads)
        assert_same(got, step_by_step(cfae, sae, tables, rows, cold, turned, n, **options))


def small():
    random = np.random.default_rng(3)
    cfae, sae = model(random, "plain", 50, 8, 30, 4)
    return cfae, sae, FoldedTables.build(cfae, sae), np.ones(8, np.float32)


def test_it_borrows_its_arrays_and_survives_a_pickle():
    cfae, sae, tables, cold = small()
    at_once = tables.model(cfae, sae, cold)
    rows = Rows(np.array([0, 2, 2]), np.array([3, 9], np.int32))
    want = step_by_step(cfae, sae, tables, rows, cold, None, 5, exclude_seen=True, allowed=None)
    del tables, cold  # what it borrowed stays
    assert_same(at_once.answer(rows, None, 5), want)
    assert_same(pickle.loads(pickle.dumps(at_once)).answer(rows, None, 5), want)


@pytest.mark.parametrize("broken", ["items", "knobs", "latents", "allowed", "n", "cold", "encoder"])
def test_what_would_corrupt_memory_is_refused(broken):
    cfae, sae, tables, cold = small()
    rows = Rows(np.array([0, 2]), np.array([3, 50 if broken == "items" else 9], np.int32))
    one = np.array([0.5], np.float32), np.array([1], np.uint8)
    knobs = Knobs(np.array([0, 1]), np.array([30 if broken == "latents" else 3], np.int32), *one)
    if broken == "knobs":
        knobs = Knobs(np.array([0, 1, 1, 1]), *knobs[1:])
    allowed = np.ones(49 if broken == "allowed" else 50, bool)
    if broken == "encoder":
        sae = replace(sae, encoder=sae.encoder[:, :7].copy())
    with pytest.raises((ValueError, TypeError)):
        at_once = tables.model(cfae, sae, cold[:7] if broken == "cold" else cold)
        at_once.answer(rows, knobs, 0 if broken == "n" else 5, allowed=allowed)
