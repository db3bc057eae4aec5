"""Every op of the engine alone, comparable across commits: `make bench`.

Shapes: I 40,857 items, d 1024, L 8,192 latents, k 32, histories of 75, top-20; B as in the id.
"""

import numpy as np
import pytest

from cfsae_fast import ops
from cfsae_fast.ops import KnobKind, Knobs, Rows
from cfsae_fast.ops.layers import linear

ITEMS, D, LATENTS, K, HISTORY, N = 40_857, 1024, 8192, 32, 75, 20
BATCHES = [1, 64]

pytestmark = pytest.mark.benchmark(min_rounds=5, max_time=1.0, warmup=True)


@pytest.fixture(scope="module")
def weights():
    generator = np.random.default_rng(0)
    items = generator.standard_normal((ITEMS, D), dtype=np.float32) / 32
    dictionary = generator.standard_normal((LATENTS, D), dtype=np.float32) / 32
    return items, dictionary, np.zeros(LATENTS, np.float32), np.zeros(D, np.float32)


def rows(batch):
    generator = np.random.default_rng(1)
    items = generator.integers(0, ITEMS, batch * HISTORY).astype(np.int32)
    return Rows(np.arange(batch + 1, dtype=np.int64) * HISTORY, items)


def encoded(weights, batch):
    items, dictionary, bias, centre = weights
    embedding = ops.encode_rows(rows(batch), items)
    return embedding, ops.topk_encode(embedding, dictionary, bias, centre, K)


def one_knob():
    return Knobs(
        np.array([0, 1], np.int64),
        np.array([7], np.int32),
        np.array([0.3], np.float32),
        np.array([KnobKind.MIX], np.uint8),
    )


@pytest.mark.parametrize("batch", BATCHES)
def test_encode_rows(benchmark, weights, batch):
    benchmark(ops.encode_rows, rows(batch), weights[0])


@pytest.mark.parametrize("batch", BATCHES)
def test_topk_encode(benchmark, weights, batch):
    items, dictionary, bias, centre = weights
    embedding = ops.encode_rows(rows(batch), items)
    benchmark(ops.topk_encode, embedding, dictionary, bias, centre, K)


@pytest.mark.parametrize("batch", BATCHES)
def test_linear(benchmark, batch):
    """A layer of MultVAE: d to 3 d."""
    generator = np.random.default_rng(2)
    x, weight = (generator.standard_normal((n, D), dtype=np.float32) for n in (batch, 3 * D))
    benchmark(linear, x, weight, np.zeros(3 * D, np.float32))


@pytest.mark.parametrize("batch", BATCHES)
def test_steer(benchmark, weights, batch):
    _, found = encoded(weights, batch)
    benchmark(ops.steer, found.code, one_knob(), n_latents=LATENTS)


@pytest.mark.parametrize("batch", BATCHES)
def test_sparse_decode(benchmark, weights, batch):
    _, found = encoded(weights, batch)
    benchmark(ops.sparse_decode, found.code, weights[1], weights[3], found.stats)


@pytest.mark.parametrize("batch", BATCHES)
def test_steer_decode(benchmark, weights, batch):
    embedding, found = encoded(weights, batch)
    given = (embedding, found.code, one_knob(), weights[1], weights[3], found.stats)
    benchmark(ops.steer_decode, *given, mode="residual")


@pytest.mark.parametrize("batch", BATCHES)
def test_recommend(benchmark, weights, batch):
    embedding, _ = encoded(weights, batch)
    benchmark(ops.recommend, embedding, weights[0], N, seen=rows(batch))
