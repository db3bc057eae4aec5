"""The ops of training alone, comparable across commits: `make bench`.

Shapes: ELSA's step of anime-5k (B 1,024, I 7,390, d 256, histories of 75), and a TopK SAE's
gradients (B 1,024, d 1,024, L 8,192, k 32).
"""

import numpy as np
import pytest
import torch

from benchmarks.micro.test_ops import LATENTS, D, K
from cfsae_fast import ops
from cfsae_fast.ops import Rows
from cfsae_fast.ops.tiles import (
    add_item_grads_,
    cosine_tile_,
    cosine_tile_backward_,
    int16_product_,
    tangent_rows_,
)

ITEMS, WIDTH, BATCH, HISTORY = 7390, 256, 1024, 75

pytestmark = pytest.mark.benchmark(min_rounds=5, max_time=1.0, warmup=True)


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def rows():
    items = np.random.default_rng(1).integers(0, ITEMS, BATCH * HISTORY).astype(np.int32)
    ones = np.ones(len(items), np.float32)
    return Rows(np.arange(BATCH + 1, dtype=np.int64) * HISTORY, items, ones)


def test_int16_product(benchmark):
    out = np.empty((BATCH, ITEMS), np.float32)
    benchmark(int16_product_, normal(BATCH, WIDTH), normal(ITEMS, WIDTH).T, out)


def test_cosine_tile(benchmark):
    scores, sums = normal(BATCH, ITEMS), np.zeros((2, BATCH), np.float32)
    benchmark(cosine_tile_, scores, rows(), rows(), *sums, first_item=0, n_items=ITEMS)


def test_cosine_tile_backward(benchmark):
    slopes, grads = np.zeros((2, BATCH), np.float32), np.zeros(BATCH * HISTORY, np.float32)
    given = (normal(BATCH, ITEMS), rows(), rows(), *slopes, grads)
    benchmark(cosine_tile_backward_, *given, first_item=0, n_items=ITEMS)


def test_add_item_grads(benchmark):
    out = np.zeros((ITEMS, WIDTH), np.float32)
    benchmark(add_item_grads_, rows(), normal(BATCH, WIDTH), out)


def test_tangent_rows(benchmark):
    unit = normal(ITEMS, WIDTH)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    benchmark(tangent_rows_, unit, normal(ITEMS, WIDTH))


def test_gradients_of_an_sae(benchmark):
    """topk_encode and sparse_decode, there and back."""
    embedding, encoder, dictionary = (
        torch.from_numpy(normal(*shape)).requires_grad_()
        for shape in ((BATCH, D), (LATENTS, D), (LATENTS, D))
    )
    bias, centre = torch.zeros(LATENTS, requires_grad=True), torch.zeros(D, requires_grad=True)

    def there_and_back():
        found = ops.topk_encode(embedding, encoder, bias, centre, K)
        ops.sparse_decode(found.code, dictionary, centre, found.stats).sum().backward()

    benchmark(there_and_back)
