"""Room 3: weights in fewer bits: what the file holds, and the fp32 matrix that comes back.

Station: none of its own; the graph turns such weights into fp32 when a session loads them, so files
and downloads shrink, not the memory of a session. Vectors stay fp32: they weigh nothing.

fp16, bf16     rounded to nearest
int8           one scale per row: w is about scale * round(w / scale), scale = max |row| / 127
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from cfsae_fast.inference import CFAENetwork, Layer, SAENetwork
from cfsae_fast.recommender.fitted import Fitted

PRECISIONS = ("fp32", "fp16", "bf16", "int8")


class Stored(NamedTuple):
    """A matrix in fewer bits. bits: float16, uint16 (bf16) or int8, as the matrix; scales (rows, 1)
    float32 for int8, else None."""

    precision: str
    bits: np.ndarray
    scales: np.ndarray | None = None

    def full(self) -> np.ndarray:
        """The float32 matrix that a session computes with."""
        if self.precision == "bf16":
            return (self.bits.astype(np.uint32) << 16).view(np.float32)
        values = self.bits.astype(np.float32)
        return values if self.scales is None else values * self.scales


def store(matrix: np.ndarray, precision: str) -> Stored:
    """A float32 matrix in fp16, bf16 or int8.

    Raises:
        ValueError: an entry is beyond what fp16 can hold.
    """
    if precision == "fp16":
        with np.errstate(over="ignore"):
            bits = matrix.astype(np.float16)
        if np.isinf(bits).any() and np.isfinite(matrix).all():
            largest = float(np.abs(matrix).max())
            raise ValueError(
                f"precision must be 'bf16' or 'fp32' for weights of up to {largest:g}, got 'fp16'"
            )
        return Stored(precision, bits)
    if precision == "bf16":
        bits = np.ascontiguousarray(matrix, dtype=np.float32).view(np.uint32)
        to_even = (bits >> 16) & 1
        return Stored(precision, ((bits + 0x7FFF + to_even) >> 16).astype(np.uint16))
    scales = np.abs(matrix).max(axis=1, keepdims=True, initial=0).astype(np.float32) / 127
    scales = np.maximum(scales, np.float32(1e-30))
    return Stored(precision, np.rint(matrix / scales).astype(np.int8), scales)


def lower(fitted: Fitted, precision: str) -> tuple[Fitted, dict[int, Stored]]:
    """The recommender that a file of this precision holds, and its matrices by the id of theirs.

    Its answers are the exported graph's; those of `fitted` are what they are judged against.
    """
    if precision == "fp32":
        return fitted, {}
    made: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    stored: dict[int, Stored] = {}

    def round_off(matrix: np.ndarray) -> np.ndarray:
        if id(matrix) not in made:  # ELSA's two ends are one array, and stay one
            kept = store(matrix, precision)
            made[id(matrix)] = (matrix, kept.full())
            stored[id(made[id(matrix)][1])] = kept
        return made[id(matrix)][1]

    cfae, sae = fitted.cfae, fitted.sae
    lowered = replace(
        fitted, cfae=_lower_cfae(cfae, round_off), sae=_lower_sae(sae, round_off), folded=None
    )
    return lowered, stored


def _lower_cfae(cfae: CFAENetwork, round_off) -> CFAENetwork:
    def layers(old: tuple[Layer, ...]) -> tuple[Layer, ...]:
        return tuple(one._replace(weight=round_off(one.weight)) for one in old)

    return replace(
        cfae,
        item_weight=round_off(cfae.item_weight),
        items=round_off(cfae.items),
        encoder_layers=layers(cfae.encoder_layers),
        decoder_layers=layers(cfae.decoder_layers),
    )


def _lower_sae(sae: SAENetwork, round_off) -> SAENetwork:
    return replace(sae, encoder=round_off(sae.encoder), dictionary=round_off(sae.dictionary))
