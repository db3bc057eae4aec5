"""Folded ops equal the dense ops, bit for bit, for every instruction set and however hostile."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfsae_fast import ops
from cfsae_fast.inference import CFAENetwork, FoldedTables, SAENetwork
from cfsae_fast.ops import Code, Encoded, KnobKind, Knobs, Rows

ISAS = ops.build_info()["isa"]
KINDS = ("plain", "ties", "huge", "tiny", "constant", "zeros", "mixed", "nan")


SHAPES = {
    "seed": st.integers(0, 2**32 - 1),
    "kind": st.sampled_from(KINDS),
    "n_items": st.integers(1, 300),
    "d": st.integers(1, 40),
    "n_latents": st.integers(1, 300),
}
ROWS = {"n_rows": st.integers(0, 5), "threads": st.integers(1, 3)}


def matrix(random, kind, n, d):
    x = random.standard_normal((n, d)).astype(np.float32)
    if kind == "ties":
        x = np.round(x)
    if kind == "huge":
        x *= np.float32(1e12)
    if kind == "tiny":
        x *= np.float32(1e-41)
    if kind == "constant":
        x[:] = 0.25
    if kind == "zeros":
        x[:] = 0
    if kind == "mixed":
        x *= np.float32(10.0) ** random.integers(-9, 9, (n, 1)).astype(np.float32)
    if kind == "nan" and n:
        x[random.integers(n), random.integers(d)] = random.choice([np.nan, np.inf])
    return np.ascontiguousarray(x)


def model(random, kind, n_items, d, n_latents, k, standardize=True):
    items = matrix(random, kind, n_items, d)
    other = kind if random.integers(2) else "plain"
    bias = matrix(random, other, 1, n_items)[0] if random.integers(2) else None
    cfae = CFAENetwork("elsa", items, items, item_bias=bias)
    sae = SAENetwork(
        "topk",
        matrix(random, other, n_latents, d),
        random.standard_normal(n_latents).astype(np.float32),
        matrix(random, other, n_latents, d),
        matrix(random, "plain", 1, d)[0],
        k,
        k,
        standardize=standardize,
    )
    return cfae, sae


def rows_of(random, n_rows, n_items, values):
    lengths = random.integers(0, 9, n_rows)
    offsets = np.zeros(n_rows + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    items = random.integers(0, n_items, offsets[-1]).astype(np.int32)
    weights = random.standard_normal(offsets[-1]).astype(np.float32) if values else None
    return Rows(offsets, items, weights)


def knobs_of(random, n_latents):
    m = int(random.integers(0, 4))
    latents = random.choice(n_latents, min(m, n_latents), replace=False).astype(np.int32)
    kinds = random.integers(0, 3, len(latents)).astype(np.uint8)
    weights = np.where(
        kinds == KnobKind.ADD, random.normal(size=len(latents)), 0.3 * random.random(len(latents))
    ).astype(np.float32)
    return Knobs(np.array([0, len(latents)]), latents, weights, kinds)


def assert_same(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(np.asarray(a).view(np.int32), np.asarray(b).view(np.int32))


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=150, deadline=None)
@given(**SHAPES, **ROWS, standardize=st.booleans())
def test_equals_the_dense_path(
    isa, seed, kind, n_items, d, n_latents, n_rows, standardize, threads
):
    random = np.random.default_rng(seed)
    k = int(random.integers(1, n_latents + 1)) if random.integers(2) else min(4, n_latents)
    cfae, sae = model(random, kind, n_items, d, n_latents, k, standardize)
    with ops.force_isa(isa), np.errstate(all="ignore"):
        tables = FoldedTables.build(cfae, sae)
        rows = rows_of(random, n_rows, n_items, values=bool(random.integers(2)))
        embedding = cfae.encode(rows, threads=threads)
        if random.integers(2):  # a cold start stands in for an empty row
            embedding[np.diff(rows.offsets) == 0] = 0.5
        want = sae.encode(embedding, threads=threads)
        got = tables.encode(sae, rows, embedding, threads=threads)
        assert_same(got.code, want.code)
        if standardize:
            assert_same(got.stats, want.stats)
        knobs = knobs_of(random, n_latents)
        steered = Encoded(ops.steer(want.code, knobs, n_latents=n_latents), want.stats)
        moved = ops.steer_decode(
            embedding, want.code, knobs, sae.dictionary, sae.bias, want.stats, mode="reconstruct"
        )
        n = int(random.integers(1, n_items + 4))
        options = {
            "seen": rows if random.integers(2) else None,
            "allowed": random.random(n_items) < 0.8 if random.integers(2) else None,
            "threads": threads,
        }
        dense = cfae.recommend(moved, n, **options)
        assert_same(tables.recommend(cfae, steered, moved, n, **options), dense)


@pytest.mark.parametrize("allowed", [0, 3, 30])
def test_few_items_are_allowed(allowed):
    """Nearly all blocks hold nothing, and are no floor for the others."""
    random = np.random.default_rng(allowed)
    cfae, sae = model(random, "plain", 3000, 16, 100, 8)
    tables = FoldedTables.build(cfae, sae)
    encoded = sae.encode(matrix(random, "plain", 2, 16))
    moved = sae.decode(encoded)
    mask = np.zeros(3000, bool)
    mask[random.choice(3000, allowed, replace=False)] = True
    dense = cfae.recommend(moved, 20, allowed=mask)
    assert (dense.ids >= 0).sum(axis=1).tolist() == [min(allowed, 20)] * 2
    assert_same(tables.recommend(cfae, encoded, moved, 20, allowed=mask), dense)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_items", [12287, 12289, 26000])
def test_a_batch_goes_by_strips_of_items(isa, kind, n_items):
    """More items than a strip holds; what a strip keeps of a row must not hang on the next one."""
    random = np.random.default_rng(n_items)
    cfae, sae = model(random, kind, n_items, 8, 60, 5)
    rows = rows_of(random, 20, n_items, values=False)
    allowed = random.random(n_items) < 0.9 if random.integers(2) else None
    with ops.force_isa(isa), np.errstate(all="ignore"):
        tables = FoldedTables.build(cfae, sae)
        encoded = sae.encode(cfae.encode(rows))
        moved = sae.decode(encoded)
        got = tables.recommend(cfae, encoded, moved, 15, seen=rows, allowed=allowed, threads=2)
        one_by_one = [
            cfae.recommend(moved[b : b + 1], 15, seen=rows.take(np.array([b])), allowed=allowed)
            for b in range(20)
        ]
    assert_same(got, [np.concatenate(parts) for parts in zip(*one_by_one, strict=True)])


@pytest.mark.parametrize("length", [3, 60])
def test_a_batch_takes_the_way_that_reads_less(length, monkeypatch):
    random = np.random.default_rng(length)
    cfae, sae = model(random, "plain", 500, 256, 1100, 8)
    tables = FoldedTables.build(cfae, sae)
    items = random.integers(0, 500, 64 * length).astype(np.int32)
    rows = Rows(np.arange(0, 64 * length + 1, length), items)
    embedding = cfae.encode(rows)
    one_by_one = [
        tables.encode(sae, rows.take(np.array([b])), embedding[b : b + 1]).code for b in range(64)
    ]
    dense, plain = [], ops.topk_encode
    monkeypatch.setattr(ops, "topk_encode", lambda *a, **o: dense.append(1) or plain(*a, **o))
    got = tables.encode(sae, rows, embedding).code
    assert len(dense) == (length == 60 and sae.screen is not None)
    assert_same(got, [np.concatenate(parts) for parts in zip(*one_by_one, strict=True)])


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=150, deadline=None)
@given(**SHAPES, mode=st.sampled_from(["residual", "reconstruct"]))
def test_a_live_turn_equals_the_dense_path(isa, seed, kind, n_items, d, n_latents, mode):
    random = np.random.default_rng(seed)
    cfae, sae = model(random, kind, n_items, d, n_latents, min(5, n_latents))
    with ops.force_isa(isa), np.errstate(all="ignore"):
        side = FoldedTables.build(cfae, sae).decode_side
        embedding = cfae.encode(rows_of(random, 1, n_items, values=False))
        encoded = sae.encode(embedding)
        base = None
        if mode == "residual":
            base = cfae.recommend(embedding, n_items)
            scores = np.full(n_items, np.nan, np.float32)
            kept = base.ids[0] >= 0
            scores[base.ids[0][kept]] = base.scores[0][kept]
            base = scores
        live = (ops.folded_scores(encoded.code, side.table)[0], base)
        for _ in range(3):
            knobs, n = knobs_of(random, n_latents), int(random.integers(1, n_items + 4))
            moved = ops.steer_decode(
                embedding, encoded.code, knobs, sae.dictionary, sae.bias, encoded.stats, mode=mode
            )
            seen = random.integers(0, n_items, 3).astype(np.int32)
            got = ops.folded_turn(
                live, embedding, encoded, knobs, sae.dictionary, sae.bias, side, cfae.items, n,
                bias=cfae.item_bias, seen=seen,
            )  # fmt: skip
            rows = Rows(np.array([0, 3]), seen)
            assert_same(got, cfae.recommend(moved, n, seen=rows))


def test_near_ties_are_decided_in_fp32():
    random = np.random.default_rng(5)
    cfae, sae = model(random, "plain", 400, 32, 256, 8)
    twins = np.repeat(cfae.items[:1], 400, axis=0)
    twins[np.arange(400), np.arange(400) % 32] *= np.float32(1 + 1e-6)
    cfae = CFAENetwork("elsa", twins, twins)
    encoder = np.repeat(sae.encoder[:1], 256, axis=0)
    encoder[np.arange(256), np.arange(256) % 32] *= np.float32(1 - 1e-6)
    sae = SAENetwork("topk", encoder, sae.encoder_bias * 0, sae.dictionary, sae.bias, 8, 8)
    tables, rows = FoldedTables.build(cfae, sae), Rows(np.array([0, 2]), np.array([3, 9], np.int32))
    embedding = cfae.encode(rows)
    want = sae.encode(embedding)
    assert_same(tables.encode(sae, rows, embedding).code, want.code)
    moved = sae.decode(want)
    assert_same(tables.recommend(cfae, want, moved, 10), cfae.recommend(moved, 10))


def test_everything_seen_gives_padding():
    random = np.random.default_rng(2)
    cfae, sae = model(random, "plain", 40, 8, 30, 4)
    rows = Rows(np.array([0, 40]), np.arange(40, dtype=np.int32))
    tables, embedding = FoldedTables.build(cfae, sae), cfae.encode(rows)
    encoded = tables.encode(sae, rows, embedding)
    found = tables.recommend(cfae, encoded, sae.decode(encoded), 7, seen=rows)
    assert (found.ids == -1).all() and np.isneginf(found.scores).all()


def test_the_tables_bounds_hold():
    random = np.random.default_rng(1)
    cfae, sae = model(random, "mixed", 60, 16, 50, 4)
    table = FoldedTables.build(cfae, sae).encode_side.table
    exact = cfae.item_weight.astype(np.float64) @ sae.encoder.astype(np.float64).T
    off = np.abs(exact - table.scales[:, None].astype(np.float64) * table.values).max(axis=1)
    assert (off <= table.errors).all() and (table.errors < np.abs(exact).max(axis=1)).any()


@pytest.mark.parametrize("broken", ["items", "table", "code", "norms", "seen"])
def test_the_binding_refuses_what_would_corrupt_memory(broken):
    random = np.random.default_rng(3)
    cfae, sae = model(random, "plain", 20, 8, 16, 4)
    tables, rows = FoldedTables.build(cfae, sae), Rows(np.array([0, 2]), np.array([3, 9], np.int32))
    embedding = cfae.encode(rows)
    encoded, side = sae.encode(embedding), tables.decode_side
    wrong = {
        "items": lambda: tables.encode(sae, rows._replace(items=rows.items + 15), embedding),
        "table": lambda: ops.folded_recommend(
            encoded.code, encoded.stats,
            side._replace(table=side.table._replace(values=side.table.values[:, :-1])),
            embedding, cfae.items, 3,
        ),
        "code": lambda: tables.recommend(
            cfae, Encoded(Code(encoded.code.indices + 16, encoded.code.values), None), embedding, 3
        ),
        "norms": lambda: ops.folded_recommend(
            encoded.code, encoded.stats, side._replace(norms=(1.0,)), embedding, cfae.items, 3
        ),
        "seen": lambda: ops.folded_turn(
            (np.zeros(20, np.float32), None), embedding, encoded, knobs_of(random, 16),
            sae.dictionary, sae.bias, side, cfae.items, 3, seen=np.array([20], np.int32),
        ),
    }  # fmt: skip
    with pytest.raises((ValueError, TypeError)):
        wrong[broken]()
