"""Fresh random arguments of every op, on the device, at one shape."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu.roofline import Shape
from cfsae_fast import ops
from cfsae_fast.inference import CFAENetwork, FoldedTables, SAENetwork
from cfsae_fast.ops import Code, FoldedSide, FoldedTable, Knobs, Rows, Stats


class Model(NamedTuple):
    """items (I, d); encoder, dictionary (L, d); all of length 1; encoder_bias (L,); bias (d,); and
    their folded tables."""

    items: Tensor
    encoder: Tensor
    encoder_bias: Tensor
    bias: Tensor
    dictionary: Tensor
    encode_side: FoldedSide
    decode_side: FoldedSide


class Inputs(NamedTuple):
    """rows of B histories; embedding (B, d); code (B, k) as topk_encode gives it; knobs on the CPU;
    model: see Model. summed (B, d) is what encode_rows makes of the rows.
    """

    rows: Rows
    embedding: Tensor
    code: Code
    stats: Stats
    knobs: Knobs
    model: Model
    summed: Tensor

    @property
    def items(self) -> Tensor:
        return self.model.items

    @property
    def encoder(self) -> Tensor:
        return self.model.encoder

    @property
    def encoder_bias(self) -> Tensor:
        return self.model.encoder_bias

    @property
    def bias(self) -> Tensor:
        return self.model.bias

    @property
    def dictionary(self) -> Tensor:
        return self.model.dictionary


def draw(shape: Shape, place: torch.device, seed: int) -> Inputs:
    """One set of arguments; `seed` decides all of it."""
    chance = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=chance)

    batch, k = shape.batch, shape.k
    model = _model(shape.items, shape.d, shape.latents, k, place, seed)
    items = torch.randint(shape.items, (batch * shape.history,), generator=chance)
    rows = Rows((torch.arange(batch + 1) * shape.history).to(place), items.int().to(place),
                normal(len(items)).to(place))  # fmt: skip
    scores = torch.rand(batch, shape.latents, generator=chance)
    values, kept = scores.topk(k)
    code = Code(kept.int().to(place), values.to(place))
    stats = Stats(normal(batch).to(place), (normal(batch).abs() + 0.5).to(place))
    return Inputs(rows, normal(batch, shape.d).to(place), code, stats, _knobs(shape, chance), model,
                  ops.encode_rows(rows, model.items))  # fmt: skip


@lru_cache(maxsize=1)
def _model(n_items: int, d: int, n_latents: int, k: int, place: torch.device, seed: int) -> Model:
    """What is slow to draw at the benchmark's shape, and the same for every batch size."""
    chance = torch.Generator().manual_seed(seed)

    def unit(*size: int) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(*size, generator=chance))

    items, encoder, dictionary = unit(n_items, d), unit(n_latents, d), unit(n_latents, d)
    encoder_bias = 0.1 * torch.randn(n_latents, generator=chance)
    bias = 0.1 * torch.randn(d, generator=chance)
    arrays = (encoder.numpy(), encoder_bias.numpy(), dictionary.numpy(), bias.numpy())
    tables = FoldedTables.build(
        CFAENetwork("elsa", items.numpy(), items.numpy()), SAENetwork("topk", *arrays, k, k)
    )
    there = (one.to(place) for one in (items, encoder, encoder_bias, bias, dictionary))
    return Model(*there, *(_side(one, place) for one in (tables.encode_side, tables.decode_side)))


def _side(side: FoldedSide, place: torch.device) -> FoldedSide:
    table = FoldedTable(*(torch.from_numpy(one).to(place) for one in side.table))
    sums, shifts = (torch.from_numpy(one).to(place) for one in (side.sums, side.shifts))
    return FoldedSide(table, sums, shifts, side.norms)


def _knobs(shape: Shape, chance: torch.Generator) -> Knobs:
    """A MIX, a SCALE and ADDs for every row, as a user's turns give them."""
    total = shape.batch * shape.knobs
    kinds = torch.tensor([0, 1, 2])[torch.arange(total) % shape.knobs % 3].to(torch.uint8)
    weights = 0.3 * torch.rand(total, generator=chance)
    latents = torch.randint(shape.latents, (total,), generator=chance)
    offsets = torch.arange(shape.batch + 1) * shape.knobs
    return Knobs(offsets, latents.int(), weights, kinds)
