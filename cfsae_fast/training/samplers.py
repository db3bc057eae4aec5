"""Floor 4: batches of a step: rows, embeddings of parts of rows, or rows of a matrix.

Station: CSR -> batches. A batch is a function of (seed, step) alone; rows stay sparse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from cfsae_fast.ops.containers import Rows
from cfsae_fast.training.randomness import Purpose, numpy_generator

# Of a mixed batch. anime-5k, ELSA d 256, k 32, L 2048, 2,500 steps: test nDCG@20 kept 92 % with no
# unions, 96.3 % with unions alone, 96.1 % with 70 % unions and 10 % single items; the latter leaves
# 1.2 % of latents dead over the training users, where unions alone leave 4.5 %.
MIXED_SHARE = 0.8
MIXED_LEAST = 0.05
ITEM_SHARE = 0.05


class Sampler(Protocol):
    """What the loop draws batches from."""

    steps_per_pass: int

    def batch(self, step: int) -> Any:
        """The batch of a step, counted from 0 over the whole training."""


class _Order:
    """Positions of each step's batch: passes over all rows, each in its own random order."""

    def __init__(self, n_rows: int, batch_size: int, seed: int) -> None:
        self.n_rows, self.batch_size, self.seed = n_rows, min(batch_size, n_rows), seed
        self.steps_per_pass = -(-n_rows // self.batch_size)
        self._at, self._order = -1, np.empty(0, dtype=np.int64)

    def positions(self, step: int) -> np.ndarray:
        at, place = divmod(step, self.steps_per_pass)
        if at != self._at:
            generator = numpy_generator(self.seed, Purpose.ORDER, at)
            self._at, self._order = at, generator.permutation(self.n_rows)
        return self._order[place * self.batch_size : (place + 1) * self.batch_size]


class RowSampler:
    """Batches of whole rows (tensors on `device`); rows without interactions are left out.

    Raises:
        ValueError: no row holds an interaction.
    """

    def __init__(self, rows: Rows, batch_size: int, *, seed: int, device: str = "cpu") -> None:
        self.rows, self.device = rows, device
        self._used = np.flatnonzero(np.diff(rows.offsets))
        if not len(self._used):
            raise ValueError("rows must hold at least one interaction, got none")
        self._order = _Order(len(self._used), batch_size, seed)
        self.steps_per_pass = self._order.steps_per_pass

    def batch(self, step: int) -> Rows:
        return to_tensors(self._drawn(step), self.device)

    @property
    def n_rows(self) -> int:
        """Rows that hold an interaction."""
        return len(self._used)

    def _drawn(self, step: int) -> Rows:
        return self.rows.take(self._used[self._order.positions(step)])


class EmbeddingSampler(RowSampler):
    """Embeddings (B, d) of fresh random histories, made of users' rows, through a frozen encoder.

    Each row draws a share uniformly in [min_share, 1] and keeps each of its items with that
    probability, at least one. `mixed`: MIXED_SHARE of a batch's rows are instead unions of such
    parts of two users, drawn from MIXED_LEAST upwards, and ITEM_SHARE are single items; every item
    of theirs counts 1. With few users an SAE would otherwise see too few embeddings, and learn
    those by heart.
    """

    def __init__(
        self,
        encode: Callable[[Rows], Tensor],
        rows: Rows,
        batch_size: int,
        *,
        seed: int,
        min_share: float = 0.5,
        mixed: bool = False,
        device: str = "cpu",
    ) -> None:
        super().__init__(rows, batch_size, seed=seed, device=device)
        self.encode, self.seed, self.min_share, self.mixed = encode, seed, min_share, mixed
        self._items = np.unique(rows.items) if mixed else rows.items

    def batch(self, step: int) -> Tensor:
        rows = self._drawn(step)
        generator = numpy_generator(self.seed, Purpose.HISTORY, step)
        if self.mixed:
            rows = self._mixed(rows, generator)
        elif self.min_share < 1:
            rows = part_of_rows(rows, self.min_share, generator)
        with torch.no_grad():
            return self.encode(to_tensors(rows, self.device))

    def whole(self, block: int) -> Iterator[Tensor]:
        """Embeddings (at most block, d) of all rows as they are, in order."""
        for low in range(0, self.n_rows, block):
            rows = self.rows.take(self._used[low : low + block])
            with torch.no_grad():
                yield self.encode(to_tensors(rows, self.device))

    def _mixed(self, rows: Rows, generator: np.random.Generator) -> Rows:
        count = len(rows.offsets) - 1
        n_mixed, n_items = round(MIXED_SHARE * count), round(ITEM_SHARE * count)
        one = part_of_rows(rows.take(np.arange(n_mixed)), MIXED_LEAST, generator)
        others = self.rows.take(self._used[generator.integers(0, len(self._used), n_mixed)])
        union = union_of_rows(one, part_of_rows(others, MIXED_LEAST, generator))
        rest = rows.take(np.arange(n_mixed, count - n_items))
        items = self._items[generator.integers(0, len(self._items), n_items)]
        single = Rows(np.arange(n_items + 1, dtype=np.int64), items)
        return _stacked(union, part_of_rows(rest, self.min_share, generator), single)


class ArraySampler:
    """Batches (B, d) of the rows of a float32 matrix (n, d)."""

    def __init__(
        self, array: np.ndarray, batch_size: int, *, seed: int, device: str = "cpu"
    ) -> None:
        self.array, self.device = array, device
        self._order = _Order(len(array), batch_size, seed)
        self.steps_per_pass = self._order.steps_per_pass

    @property
    def n_rows(self) -> int:
        return len(self.array)

    def whole(self, block: int) -> Iterator[Tensor]:
        """The rows (at most block, d), in order."""
        for low in range(0, self.n_rows, block):
            yield torch.from_numpy(np.array(self.array[low : low + block])).to(self.device)

    def batch(self, step: int) -> Tensor:
        taken = self.array[np.sort(self._order.positions(step))]
        return torch.from_numpy(taken).to(self.device)


def part_of_rows(rows: Rows, min_share: float, generator: np.random.Generator) -> Rows:
    """A random part of each (non-empty) row, of a share uniform in [min_share, 1], never empty."""
    counts = np.diff(rows.offsets)
    share = generator.uniform(min_share, 1.0, size=len(counts))
    drawn = generator.random(len(rows.items))
    least = np.minimum.reduceat(drawn, rows.offsets[:-1]) if len(counts) else drawn
    keep = drawn < np.repeat(np.maximum(share, np.nextafter(least, 1)), counts)
    kept_before = np.zeros(len(keep) + 1, dtype=np.int64)
    np.cumsum(keep, out=kept_before[1:])
    values = None if rows.values is None else rows.values[keep]
    return Rows(kept_before[rows.offsets], rows.items[keep], values)


def union_of_rows(one: Rows, other: Rows) -> Rows:
    """Row by row the items of both, each once, ascending; values are left out."""
    both = np.concatenate([one.items, other.items]).astype(np.int64)
    owner = [np.repeat(np.arange(len(x.offsets) - 1), np.diff(x.offsets)) for x in (one, other)]
    width = int(both.max(initial=0)) + 1
    row, item = np.divmod(np.unique(np.concatenate(owner) * width + both), width)
    counts = np.bincount(row, minlength=len(one.offsets) - 1)
    return Rows(_offsets(counts), item.astype(one.items.dtype))


def _stacked(*parts: Rows) -> Rows:
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    return Rows(_offsets(counts), np.concatenate([part.items for part in parts]))


def _offsets(counts: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def to_tensors(rows: Rows, device: str = "cpu") -> Rows:
    """Rows of arrays as rows of tensors on `device`."""
    return Rows(*[None if one is None else torch.from_numpy(one).to(device) for one in rows])
