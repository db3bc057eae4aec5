"""The folded kernels answer as the dense ones in fp32, bit for bit, however hostile the model."""

from __future__ import annotations

import kernels
import numpy as np
import pytest
import torch
from drawing import Draw

from cfsae_fast import reference
from cfsae_fast.inference import CFAENetwork, FoldedTables, SAENetwork
from cfsae_fast.ops.containers import Code, Recommended, Rows, Stats

SEEDS = range(24)
# rows, items, d, latents, k; widths of tables that are and are not read four columns at a time
SHAPES = [(1, 60, 12, 300, 9), (3, 137, 7, 129, 5), (2, 5, 3, 3, 3), (18, 90, 20, 260, 4),
          (1, 700, 33, 64, 64), (4, 40, 130, 515, 33)]  # fmt: skip
KINDS = ("plain", "ties", "mixed", "plain", "huge", "tiny", "constant", "nan")


def matrix(draw: Draw, kind: str, *shape: int) -> torch.Tensor:
    x = draw.normal(*shape)
    if kind == "ties":
        return x.round()
    if kind == "constant":
        return torch.full_like(x, 0.25)
    if kind == "nan":
        x[int(draw.integers(shape[0], 1))] = float("nan")
    if kind == "mixed":
        x *= 10.0 ** (draw.integers(13, shape[0], 1) - 6.0)
    return x * {"huge": 1e12, "tiny": 1e-39}.get(kind, 1.0)


class Model:
    """Random matrices of one kind, and the tables folded from them."""

    def __init__(self, seed: int) -> None:
        self.n_rows, n_items, dim, n_latents, self.k = SHAPES[seed % len(SHAPES)]
        self.draw = draw = Draw(seed)
        kind, other = KINDS[seed % len(KINDS)], KINDS[seed // 2 % len(KINDS)]
        self.items = matrix(draw, kind, n_items, dim)
        self.item_bias = draw.normal(n_items) if seed % 2 else None
        self.encoder, self.dictionary = (matrix(draw, other, n_latents, dim) for _ in range(2))
        self.bias, self.centre = draw.normal(n_latents), draw.normal(dim)
        self.standardize = seed % 3 != 0
        items = self.items.numpy()
        bias = None if self.item_bias is None else self.item_bias.numpy()
        cfae = CFAENetwork("elsa", items, items, item_bias=bias)
        sae = SAENetwork("topk", self.encoder.numpy(), self.bias.numpy(), self.dictionary.numpy(),
                         self.centre.numpy(), self.k, self.k,
                         standardize=self.standardize)  # fmt: skip
        self.folded = FoldedTables.build(cfae, sae)

    @property
    def encoding(self):
        return self.encoder, self.bias, self.centre, self.k


def begin(device, seed: int) -> None:
    device.begin(seed, misaligned=seed % 2 == 1)


def same(got, want) -> None:
    for mine, true in zip(got, want, strict=True):
        np.testing.assert_array_equal(mine.numpy(), true.numpy())  # NaN equals NaN


def encode_both(device, model: Model, rows: Rows, seed: int):
    begin(device, seed)
    embedding = kernels.encode_rows(device, rows, model.items)
    how = {"standardize": model.standardize}
    begin(device, seed)
    got = kernels.folded_topk_encode(device, rows, model.folded.encode_side, embedding,
                                     *model.encoding, **how)  # fmt: skip
    begin(device, seed)
    want = kernels.topk_encode(device, embedding, *model.encoding, **how)
    same(got.code, want.code)
    if model.standardize:
        same(got.stats, want.stats)
    return embedding, got


@pytest.mark.parametrize("seed", SEEDS)
def test_folded_topk_encode(device, seed):
    model = Model(seed)
    rows = model.draw.rows(model.n_rows, len(model.items), 40, values=seed % 4 != 0)  # some empty
    embedding, got = encode_both(device, model, rows, seed)
    if KINDS[seed % len(KINDS)] == KINDS[seed // 2 % len(KINDS)] == "plain":
        want = reference.topk_encode(embedding.double(), *(x.double() for x in model.encoding[:3]),
                                     model.k, standardize=model.standardize)  # fmt: skip
        torch.testing.assert_close(got.code.values.double(), want.code.values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_folded_recommend(device, seed):
    model, draw = Model(seed), Draw(seed + 100)
    n_items, n_latents = len(model.items), len(model.dictionary)
    code = draw.code(model.n_rows, min(model.k, n_latents), n_latents)
    if seed % 5 == 0:
        code = Code(code.indices.clone().fill_(-1), torch.zeros_like(code.values))
    if seed % 5 == 1:
        code.indices[0, 0] = n_latents + 7  # counts as padding
    stats = draw.stats(model.n_rows) if model.standardize else None
    seen = draw.rows(model.n_rows, n_items, min(2 * n_items, 90), values=False)
    allowed = (draw.normal(n_items) > -0.5).to(torch.uint8) if seed % 4 else None
    begin(device, seed)
    embedding = kernels.sparse_decode(device, code, model.dictionary, model.centre, stats)
    how = {"bias": model.item_bias, "seen": seen if seed % 3 else None, "allowed": allowed}
    n = (1, 7, 20, n_items + 3)[seed // 2 % 4]
    begin(device, seed)
    got = kernels.folded_recommend(device, code, stats, model.folded.decode_side, embedding,
                                   model.items, n, **how)  # fmt: skip
    begin(device, seed)
    same(got, kernels.recommend(device, embedding, model.items, n, **how))


@pytest.mark.parametrize("seed", SEEDS)
def test_folded_scores(device, seed):
    model, draw = Model(seed), Draw(seed + 200)
    side, n_latents = model.folded.decode_side, len(model.dictionary)
    code = draw.code(model.n_rows, min(model.k, n_latents), n_latents)
    if seed % 5 == 1:
        code.indices[0, 0] = n_latents + 7  # counts as padding
    begin(device, seed)
    got = kernels.folded_scores(device, code, side)
    table = side.table.values.astype(np.float64) * side.table.scales[:, None]
    rows = np.where((code.indices < 0) | (code.indices >= n_latents), 0, code.indices.numpy())
    kept = np.where(rows == code.indices.numpy(), code.values.numpy(), 0.0)
    want = np.einsum("bk,bki->bi", kept.astype(np.float64), table[rows])
    reach = np.einsum("bk,bki->bi", np.abs(kept).astype(np.float64), np.abs(table[rows]))
    assert (np.abs(got.numpy() - want) <= 1e-5 * reach + 1e-37).all()


def wrong(side, by):
    """Tables whose errors and values claim something else."""
    return side._replace(table=by(side.table))


def test_the_tables_decide_only_what_they_must(device):
    """Without a slack in the bound, wrong tables give wrong answers: so they are used; with their
    errors stated, the answer is right again, and comes from a dense scan."""
    model = Model(0)
    rows = Rows(torch.tensor([0, 30]), torch.arange(30, dtype=torch.int32), None)
    embedding, want = encode_both(device, model, rows, 3)
    side = model.folded.encode_side
    lying = wrong(side, lambda table: table._replace(values=-table.values))
    arguments = (embedding, *model.encoding)
    device.begin(3)
    got = kernels.folded_topk_encode(device, rows, lying, *arguments)
    assert not torch.equal(got.code.indices, want.code.indices)
    for off in (1e3, np.inf):  # too many survivors; a bound that is worth nothing
        honest = wrong(lying, lambda t, off=off: t._replace(errors=np.full_like(t.errors, off)))
        device.begin(3)
        got = kernels.folded_topk_encode(device, rows, honest, *arguments,
                                         standardize=model.standardize)  # fmt: skip
        same(got.code, want.code)


def test_a_dense_scan_answers_for_failed_rows_alone(device):
    """What is wrong in the dense matrix shows in rows that go the dense way, and only there."""
    model = Model(0)
    items = torch.arange(30, dtype=torch.int32)
    rows = Rows(torch.tensor([0, 30, 30, 60]), items.repeat(2), None)  # the middle one is empty
    embedding, want = encode_both(device, model, rows, 2)
    far = int(want.code.indices[0].max()) + 1 if int(want.code.indices[0].max()) < 299 else 0
    assert far not in want.code.indices[0].tolist()
    encoder = model.encoder.clone()
    encoder[far] = 0.0
    bias = model.bias.clone()
    bias[far] = 1e6  # no table knows: excluded by value where the tables decide
    device.begin(2)
    got = kernels.folded_topk_encode(device, rows, model.folded.encode_side, embedding, encoder,
                                     bias, model.centre, model.k,
                                     standardize=model.standardize)  # fmt: skip
    assert far in got.code.indices[1].tolist()
    assert far not in got.code.indices[0].tolist()


def test_many_survivors_of_ties_and_the_same_under_every_schedule(device):
    draw = Draw(7)
    items = draw.normal(400, 8)[torch.arange(400) % 5]  # eighty of each: more than may survive
    dictionary, centre = draw.normal(30, 8), torch.zeros(8)
    cfae = CFAENetwork("elsa", items.numpy(), items.numpy())
    sae = SAENetwork("topk", dictionary.numpy(), np.zeros(30, np.float32), dictionary.numpy(),
                     centre.numpy(), 3, 3, standardize=False)  # fmt: skip
    side = FoldedTables.build(cfae, sae).decode_side
    code = draw.code(2, 3, 30, padded=0.0)
    answers: set[bytes] = set()
    for seed in range(20):
        device.begin(seed)
        embedding = kernels.sparse_decode(device, code, dictionary, centre)
        device.begin(seed)
        got: Recommended = kernels.folded_recommend(device, code, None, side, embedding, items, 3)
        answers.add(got.ids.numpy().tobytes() + got.scores.numpy().tobytes())
    device.begin(0)
    want = kernels.recommend(device, embedding, items, 3)
    assert answers == {want.ids.numpy().tobytes() + want.scores.numpy().tobytes()}


def test_a_failed_launch_becomes_a_status(device):
    model = Model(0)
    rows = Rows(torch.tensor([0, 30]), torch.arange(30, dtype=torch.int32), None)
    embedding, _ = encode_both(device, model, rows, 0)
    arguments = (rows, model.folded.encode_side, embedding, *model.encoding)
    device.begin(0)
    whole = kernels.folded_topk_encode(device, *arguments)
    for launch in range(device.launches):
        device.begin(0, fail_launch=launch)
        with pytest.raises(kernels.StatusError, match="launch failed"):
            kernels.folded_topk_encode(device, *arguments)
    device.begin(0)
    same(kernels.folded_topk_encode(device, *arguments).code, whole.code)
    assert isinstance(whole.stats, Stats)
