"""Floor 1: passes that only training makes, in place, on arrays.

Station: embedding' -> scores by tiles, and the weights between two steps.
"""

from __future__ import annotations

import numpy as np

from cfsae_fast import _C
from cfsae_fast.ops.containers import Rows
from cfsae_fast.ops.settings import execution

Array = np.ndarray


def cosine_tile_(
    scores: Array,
    inputs: Rows,
    targets: Rows,
    squares: Array,
    dots: Array,
    *,
    first_item: int,
    n_items: int,
    threads: int = 0,
) -> None:
    """y = relu(scores - inputs) in place; squares += sum y^2, dots += y . targets, row by row.

    scores (B, width): items first_item .. first_item + width - 1 of n_items, float32, or uint16
    that holds bf16. inputs, targets: sparse (B, n_items). squares, dots (B,) float32.
    Source: the parts of ELSA's loss, models.cosine_head.CosineHead.
    """
    _C.cosine_tile(
        tuple(inputs), tuple(targets), scores, first_item, n_items, squares, dots,
        *execution(threads),
    )  # fmt: skip


def cosine_tile_backward_(
    scores: Array,
    inputs: Rows,
    targets: Rows,
    on_scores: Array,
    on_targets: Array,
    grad_inputs: Array,
    *,
    first_item: int,
    n_items: int,
    threads: int = 0,
) -> None:
    """y becomes its slope, in place: on_scores_b y_bc + on_targets_b t_bc where y_bc > 0.

    scores: y as `cosine_tile_` left it. on_scores, on_targets (B,) float32. grad_inputs (nnz,): of
    the tile's entries, minus the slope there; others are left alone.
    """
    _C.cosine_tile_backward(
        tuple(inputs), tuple(targets), scores, first_item, n_items, on_scores, on_targets,
        grad_inputs, *execution(threads),
    )  # fmt: skip


def int16_product_(
    left: Array, right: Array, out: Array, *, add: bool = False, threads: int = 0
) -> None:
    """out = left @ right, or += where add is set: (M, K), (K, N), (M, N) float32.

    Each of the two may be the transpose of an array. Both are rounded to whole numbers of 16 bits,
    every 256 terms of the sum anew: a row (or column) of length s there to multiples of s / 46,300
    or, if that is more, of its largest magnitude / 32,767. Whole numbers are added exactly.
    """
    _C.int16_product(left, right, out, add, *execution(threads))


def tangent_rows_(rows: Array, grad: Array, *, threads: int = 0) -> None:
    """grad_r -= (grad_r . row_r) row_r in place: (n, d) float32 each, rows of length 1."""
    _C.tangent_rows(rows, grad, *execution(threads))


def add_item_grads_(rows: Rows, grad: Array, grad_weight: Array, *, threads: int = 0) -> None:
    """grad_weight (I, d) += the gradient that encode_rows of `rows` sends to its weight, in place.

    grad (B, d). Only the rows of items that occur are touched.
    """
    _C.add_item_grads(tuple(rows), grad, grad_weight, *execution(threads))
