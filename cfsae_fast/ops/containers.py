"""Floor 1: the words that travel between floors - rows, codes, stats, knobs.

Arrays or tensors alike.

Station: every arrow of the story carries one of these.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

Array = Any  # numpy.ndarray or torch.Tensor; the ops take either and answer in kind

PADDING = -1  # index of an empty slot in a code or a recommendation


class Rows(NamedTuple):
    """Users' histories in CSR form: row b holds items[offsets[b]:offsets[b + 1]].

    offsets (B + 1,) int64; items (nnz,) int32; values (nnz,) float32, or None where all are 1.
    Order inside a row is free; a repeated item counts as often as it stands there.
    """

    offsets: Array
    items: Array
    values: Array | None = None

    def take(self, positions: np.ndarray) -> Rows:
        """The rows (of arrays) at `positions`, in that order, copied."""
        starts = self.offsets[positions]
        counts = self.offsets[positions + 1] - starts
        offsets = np.zeros(len(positions) + 1, dtype=np.int64)
        np.cumsum(counts, out=offsets[1:])
        entries = np.repeat(starts - offsets[:-1], counts) + np.arange(offsets[-1])
        values = None if self.values is None else self.values[entries]
        return Rows(offsets, self.items[entries], values)


class Code(NamedTuple):
    """Sparse codes: indices (B, k) int32 and values (B, k) float32.

    Sorted by value descending, ties to the smaller index; empty slots are -1 / 0 and stand last.
    """

    indices: Array
    values: Array


class Stats(NamedTuple):
    """Per-row mean (B,) and standard deviation (B,), removed before the SAE and put back after."""

    mean: Array
    std: Array


class Encoded(NamedTuple):
    """What the SAE says of an embedding, and the stats it set aside (None: not standardised)."""

    code: Code
    stats: Stats | None


class KnobKind(IntEnum):
    """How a knob acts on its latent; a row's knobs act in this order: scale, then mix, then add."""

    MIX = 0
    SCALE = 1
    ADD = 2


class Knobs(NamedTuple):
    """Knobs of a batch in CSR form: row b turns latents[offsets[b]:offsets[b + 1]].

    offsets (B + 1,) int64, or (2,) for one set shared by every row; latents (m,) int32;
    weights (m,) float32; kinds (m,) uint8 of KnobKind. With z the row's code, s = sum(z):

        SCALE  z_n <- weight * z_n                      weight >= 0; at most once per latent and row
        MIX    z   <- (1 - a) z + s * sum_n weight_n e_n
                   weight >= 0; a = sum of the row's MIX weights, at most 1
        ADD    z_n <- z_n + weight                      any sign; repeats add up
    """

    offsets: Array
    latents: Array
    weights: Array
    kinds: Array


class Recommended(NamedTuple):
    """Top-N: ids (B, N) int32 item positions padded with -1, scores (B, N) padded with -inf."""

    ids: Array
    scores: Array
