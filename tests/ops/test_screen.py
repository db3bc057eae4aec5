"""The 8-bit screen: the answer of a scan in fp32, bit for bit, whatever the numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import assert_same, make_rows, reals, seeds

from cfsae_fast import _C, ops
from cfsae_fast.inference import CFAENetwork, SAENetwork

pytestmark = pytest.mark.skipif(not _C.has_screens(), reason="the machine cannot multiply bytes")


def in_fp32(embedding, items, n, **options):
    """One row at a time without a screen: plain dot products."""
    seen = options.pop("seen", None)
    parts = []
    for row in range(len(embedding)):
        mine = None if seen is None else seen.take(np.array([row]))
        parts.append(ops.recommend(embedding[row : row + 1], items, n, seen=mine, **options))
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def hostile(rng, kind, batch, n_items, dim):
    """Matrices whose products are hard to tell apart, or to bound."""
    embedding, items = reals(rng, batch, dim), reals(rng, n_items, dim)
    if kind == "near ties":
        items = items[:1] + np.float32(1e-6) * items
    elif kind == "copies":
        items = items[rng.integers(0, max(1, n_items // 20), n_items)]
    elif kind == "huge norms":
        items *= np.float32(10) ** rng.integers(-12, 12, (n_items, 1)).astype(np.float32)
    elif kind == "beyond the bounds":
        items[rng.integers(n_items)] *= np.float32(1e17)
    elif kind == "one loud column":
        items[:, rng.integers(dim)] *= np.float32(1e5)
        embedding[:, rng.integers(dim)] *= np.float32(1e5)
    elif kind == "denormal":
        items *= np.float32(1e-39)
        embedding[::2] *= np.float32(1e-3)
    elif kind == "tiny against huge":
        items *= np.float32(1e-25)
        embedding *= np.float32(1e14)
    elif kind == "constant":
        items[:], embedding[: batch // 2] = np.float32(0.3), np.float32(-0.7)
    elif kind == "zero":
        items[::2], embedding[::2] = 0, 0
    elif kind == "not finite":
        items[rng.integers(n_items), 0] = rng.choice([np.nan, np.inf, -np.inf])
    elif kind == "queries not finite":
        embedding[::2, 0] = rng.choice([np.nan, np.inf, -np.inf])
    return embedding, np.ascontiguousarray(items)


UNBOUNDED = ("beyond the bounds", "not finite")  # scanned in fp32, by tiles above DIRECT rows
DIRECT = 16
KINDS = ["plain", "near ties", "copies", "huge norms", "beyond the bounds", "one loud column",
         "denormal", "constant", "zero", "not finite", "queries not finite"]  # fmt: skip


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_of_many_ranges_decide_for_many_queries(threads):
    rng = np.random.default_rng(3)
    embedding, items = reals(rng, 60, 5000), reals(rng, 250, 5000)  # 39 rows are a range
    got = ops.recommend(embedding, items, 20, screen=ops.Screen(items), threads=threads)
    want = in_fp32(embedding, items, 20)
    np.testing.assert_array_equal(got.ids, want[0])
    np.testing.assert_array_equal(got.scores, want[1])


@settings(max_examples=150)
@given(seeds, st.sampled_from(KINDS), st.integers(0, 30), st.integers(1, 300), st.integers(1, 70),
       st.integers(1, 40), st.integers(1, 3))  # fmt: skip
def test_recommend_equals_fp32_bit_for_bit(seed, kind, batch, n_items, dim, n, threads):
    rng = np.random.default_rng(seed)
    batch = min(batch, DIRECT) if kind in UNBOUNDED else batch
    embedding, items = hostile(rng, kind, batch, n_items, dim)
    options = {
        "bias": rng.normal(size=n_items).astype(np.float32) if seed & 1 else None,
        "allowed": rng.random(n_items) < 0.7 if seed & 2 else None,
    }
    seen = make_rows(rng, batch, n_items, 2 * n_items) if seed & 4 else None
    with np.errstate(all="ignore"):
        screen = ops.Screen(items)
    got = ops.recommend(embedding, items, n, seen=seen, screen=screen, threads=threads, **options)
    if batch:
        want = in_fp32(embedding, items, n, seen=seen, **options)
        np.testing.assert_array_equal(got.ids, want[0])
        np.testing.assert_array_equal(got.scores, want[1])


@settings(max_examples=60)
@given(seeds, st.sampled_from(KINDS[:10]), st.integers(1, 70), st.integers(1, 400),
       st.integers(2, 60), st.booleans())  # fmt: skip
def test_topk_encode_equals_fp32_bit_for_bit(seed, kind, batch, n_latents, dim, standardize):
    rng = np.random.default_rng(seed)
    batch = min(batch, DIRECT) if kind in UNBOUNDED else batch
    embedding, encoder = hostile(rng, kind, batch, n_latents, dim)
    bias, centre = reals(rng, n_latents), reals(rng, dim)
    k = int(rng.integers(1, n_latents + 1))
    arguments = (encoder, bias, centre, k)
    screen = ops.Screen(encoder)
    got = ops.topk_encode(embedding, *arguments, standardize=standardize, screen=screen)
    for row in range(batch):
        alone = ops.topk_encode(embedding[row : row + 1], *arguments, standardize=standardize)
        np.testing.assert_array_equal(got.code.indices[row], alone.code.indices[0])
        np.testing.assert_array_equal(got.code.values[row], alone.code.values[0])


@pytest.mark.parametrize("bias", [np.inf, np.nan, -np.inf, 1e35, -1e35])
def test_biases_without_a_bound(bias, rng):
    embedding, items, biases = reals(rng, 5, 20), reals(rng, 300, 20), reals(rng, 300)
    biases[[1, 4, 7]] = bias  # early: later bounds are held against theirs
    got = ops.recommend(embedding, items, 10, bias=biases, screen=ops.Screen(items))
    assert_same(got, in_fp32(embedding, items, 10, bias=biases))


@pytest.mark.parametrize("seed", range(40))
def test_infinite_biases_here_and_there(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(5, 60))
    embedding, items, biases = reals(rng, 1, 16), reals(rng, 600, 16), reals(rng, 600)
    biases[rng.random(600) < rng.choice([0.01, 0.05])] = np.inf
    got = ops.recommend(embedding, items, n, bias=biases, screen=ops.Screen(items))
    assert_same(got, ops.recommend(embedding, items, n, bias=biases))


@pytest.mark.parametrize("batch", [64, 200, 530])
def test_large_batches_are_screened_on_their_own(batch, rng):
    embedding, items = reals(rng, batch, 96), reals(rng, 2500, 96)
    seen = make_rows(rng, batch, 2500, 30)
    want = in_fp32(embedding, items, 20, seen=seen)
    for threads in (1, 2, 3):
        assert_same(ops.recommend(embedding, items, 20, seen=seen, threads=threads), want)


def test_too_many_that_look_alike_are_scanned_in_fp32(rng):
    items = np.repeat(reals(rng, 1, 16), 9000, axis=0)
    items[8000] *= np.float32(1.0001)
    embedding = np.concatenate([items[:1], -items[:1], reals(rng, 1, 16)])
    got = ops.recommend(embedding, items, 3, screen=ops.Screen(items))
    assert_same(got, in_fp32(embedding, items, 3))
    assert got.ids[0, 0] == 8000


def test_rows_whose_products_of_bytes_would_overflow(rng):
    items = np.where(rng.random((20, 140_000)) < 0.5, -1, 1).astype(np.float32)
    items[13] = 1
    embedding = np.ones((2, 140_000), np.float32)
    got = ops.recommend(embedding, items, 1, screen=ops.Screen(items))
    assert got.ids.tolist() == [[13], [13]] and (got.scores == 140_000).all()


def test_every_instruction_set_takes_a_screen(rng):
    embedding, items = reals(rng, 3, 40), reals(rng, 500, 40)
    for isa in ops.build_info()["isa"]:
        with ops.force_isa(isa):
            screened = ops.recommend(embedding, items, 7, screen=ops.Screen(items))
            assert_same(screened, ops.recommend(embedding, items, 7))


def test_a_screen_of_another_matrix_is_refused(rng):
    embedding, items = reals(rng, 2, 8), reals(rng, 30, 8)
    with pytest.raises(ValueError, match="screen must be made of the very array passed as items"):
        ops.recommend(embedding, items, 3, screen=ops.Screen(items.copy()))
    with pytest.raises(ValueError, match="the very array passed as encoder"):
        ops.topk_encode(
            embedding, items, items[:, 0].copy(), items[0], 3, screen=ops.Screen(items[1:])
        )
    short = ops.Screen(items)
    short.memory = short.memory[:-1]
    with pytest.raises(ValueError, match="screen must"):
        ops.recommend(embedding, items, 3, screen=short)


def test_tensors_come_without_a_screen(rng):
    torch = pytest.importorskip("torch")
    embedding, items = torch.from_numpy(reals(rng, 2, 8)), reals(rng, 30, 8)
    with pytest.raises(TypeError, match="screen must be None where torch tensors are passed"):
        ops.recommend(embedding, torch.from_numpy(items), 3, screen=ops.Screen(items))


def test_networks_screen_matrices_that_are_worth_it(rng, monkeypatch):
    items = reals(rng, 1100, 256)
    network = CFAENetwork(kind="elsa", item_weight=items, items=items)
    assert network._screen.matrix is items
    embedding = reals(rng, 3, 256)
    assert_same(network.recommend(embedding, 9), in_fp32(embedding, items, 9))
    sae = SAENetwork("topk", items, reals(rng, 1100), items, reals(rng, 256), 8, 8)
    assert sae.screen.matrix is items
    plain = ops.topk_encode(embedding, items, sae.encoder_bias, sae.bias, 8)
    assert_same(sae.encode(embedding).code, plain.code)
    used = []
    for name in ("recommend", "topk_encode"):
        plain = getattr(ops, name)
        spy = lambda *a, plain=plain, **o: used.append(o["screen"].matrix) or plain(*a, **o)  # noqa: E731
        monkeypatch.setattr(ops, name, spy)
    network.recommend(embedding, 9), sae.encode(embedding)
    assert used[0] is items and used[1] is items
    small = CFAENetwork(kind="elsa", item_weight=items[:9], items=items[:9])
    assert small._screen is None
