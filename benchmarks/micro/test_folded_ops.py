"""The folded ops alone, comparable across commits: `make bench`. Shapes as in test_ops."""

import numpy as np
import pytest

from benchmarks.micro.test_ops import BATCHES, HISTORY, ITEMS, K, N, one_knob, rows
from benchmarks.problems import FULL, make_fitted
from cfsae_fast import ops
from cfsae_fast.inference import FoldedTables
from cfsae_fast.ops.lists import positions_of_lists

pytestmark = pytest.mark.benchmark(min_rounds=5, max_time=1.0, warmup=True)


@pytest.fixture(scope="module")
def folded():
    fitted = make_fitted(FULL)
    return fitted, FoldedTables.build(fitted.cfae, fitted.sae)


def steered(folded, batch):
    """The rows' embedding, code, and what the code decodes to."""
    fitted, tables = folded
    embedding = fitted.cfae.encode(rows(batch))
    encoded = tables.encode(fitted.sae, rows(batch), embedding)
    return embedding, encoded, fitted.sae.decode(encoded)


@pytest.mark.parametrize("batch", BATCHES)
def test_folded_topk_encode(benchmark, folded, batch):
    fitted, tables = folded
    sae, embedding = fitted.sae, fitted.cfae.encode(rows(batch))
    weights = (sae.encoder, sae.encoder_bias, sae.bias, K)
    benchmark(ops.folded_topk_encode, rows(batch), tables.encode_side, embedding, *weights)


@pytest.mark.parametrize("batch", BATCHES)
def test_folded_recommend(benchmark, folded, batch):
    fitted, tables = folded
    _, encoded, moved = steered(folded, batch)
    benchmark(tables.recommend, fitted.cfae, encoded, moved, N, seen=rows(batch))


@pytest.mark.parametrize("batch", BATCHES)
def test_folded_scores(benchmark, folded, batch):
    _, encoded, _ = steered(folded, batch)
    benchmark(ops.folded_scores, encoded.code, folded[1].decode_side.table)


def test_folded_turn(benchmark, folded):
    fitted, tables = folded
    sae, side = fitted.sae, tables.decode_side
    embedding, encoded, _ = steered(folded, 1)
    live = (ops.folded_scores(encoded.code, side.table)[0], None)
    given = (live, embedding, encoded, one_knob(), sae.dictionary, sae.bias, side)
    benchmark(ops.folded_turn, *given, fitted.cfae.items, N, seen=rows(1).items)


@pytest.mark.parametrize("batch", BATCHES)
def test_folded_answer(benchmark, folded, batch):
    fitted, tables = folded
    model = tables.model(fitted.cfae, fitted.sae, fitted.cold)
    benchmark(model.answer, rows(batch), one_knob(), N)


@pytest.mark.parametrize("batch", BATCHES)
def test_positions_of_lists(benchmark, batch):
    lists = np.random.default_rng(0).integers(0, ITEMS, (batch, HISTORY)).tolist()
    benchmark(positions_of_lists, lists, np.arange(ITEMS), 0)
