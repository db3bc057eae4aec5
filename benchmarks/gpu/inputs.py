"""Fresh random arguments of every op, on the device, at one shape."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu.roofline import Shape
from cfsae_fast.ops import Code, Knobs, Rows, Stats


class Inputs(NamedTuple):
    """rows of B histories; items (I, d); embedding (B, d); encoder, dictionary (L, d) of length 1;
    encoder_bias (L,); bias (d,); code (B, k) as topk_encode gives it; knobs on the CPU.
    """

    rows: Rows
    items: Tensor
    embedding: Tensor
    encoder: Tensor
    encoder_bias: Tensor
    bias: Tensor
    dictionary: Tensor
    code: Code
    stats: Stats
    knobs: Knobs


def draw(shape: Shape, place: torch.device, seed: int) -> Inputs:
    """One set of arguments; `seed` decides all of it."""
    chance = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=chance)

    def unit(*size: int) -> Tensor:
        return torch.nn.functional.normalize(normal(*size)).to(place)

    batch, k = shape.batch, shape.k
    items = torch.randint(shape.items, (batch * shape.history,), generator=chance)
    rows = Rows((torch.arange(batch + 1) * shape.history).to(place), items.int().to(place),
                normal(len(items)).to(place))  # fmt: skip
    scores = torch.rand(batch, shape.latents, generator=chance)
    values, kept = scores.topk(k)
    code = Code(kept.int().to(place), values.to(place))
    stats = Stats(normal(batch).to(place), (normal(batch).abs() + 0.5).to(place))
    encoder, dictionary = unit(shape.latents, shape.d), unit(shape.latents, shape.d)
    return Inputs(
        rows, unit(shape.items, shape.d), normal(batch, shape.d).to(place), encoder,
        (0.1 * normal(shape.latents)).to(place), (0.1 * normal(shape.d)).to(place), dictionary,
        code, stats, _knobs(shape, chance),
    )  # fmt: skip


def _knobs(shape: Shape, chance: torch.Generator) -> Knobs:
    """A MIX, a SCALE and ADDs for every row, as a user's turns give them."""
    total = shape.batch * shape.knobs
    kinds = torch.tensor([0, 1, 2])[torch.arange(total) % shape.knobs % 3].to(torch.uint8)
    weights = 0.3 * torch.rand(total, generator=chance)
    latents = torch.randint(shape.latents, (total,), generator=chance)
    offsets = torch.arange(shape.batch + 1) * shape.knobs
    return Knobs(offsets, latents.int(), weights, kinds)
