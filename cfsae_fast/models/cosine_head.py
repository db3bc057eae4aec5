"""Floor 3: ELSA's loss over the whole catalogue, by tiles of items, with its gradient.

Station: embedding' -> scores, in training only. Between two matrix products a tile is read once
each way, by the engine on a CPU, by torch elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from cfsae_fast.models.item_head import (
    TILE_ELEMENTS,
    Entries,
    add_at,
    entries,
    mask_within,
    product_dtype,
    row_norms,
    tile_width,
    tiles,
    within,
)
from cfsae_fast.ops import Rows
from cfsae_fast.ops.tiles import cosine_tile_, cosine_tile_backward_, int16_product_

# Scores that are kept for the backward pass instead of computed again: 0.16 of 0.73 s of a step at
# I 40,857, d 1,024, B 1,024, which this just holds.
KEPT_BYTES = 192 << 20

_in_int16: ContextVar[bool] = ContextVar("in_int16", default=False)


@contextmanager
def int16_products() -> Iterator[None]:
    """Heads made inside multiply by `ops.tiles.int16_product_`, if they compute float32 on a CPU:
    what torch.autocast is to bf16."""
    token = _in_int16.set(True)
    try:
        yield
    finally:
        _in_int16.reset(token)


class CosineHead:
    """ELSA's loss over one batch, per row: || y/||y|| - t/||t|| ||^2, where y is
    relu(embedding @ items.T - x).

    embedding (B, d), items (I, d), inputs x (what each item says of itself) and targets t sparse
    (B, I). A row of y or t that is zero counts as a zero vector (no NaN) and passes no gradient on.
    Two passes, for an autograd function to call; a second `backward` computes scores again.
    kept_bytes: scores that may be kept for the backward pass; above it they are computed again.
    spare: tiles' memory, which a caller keeps from step to step: fresh memory costs as much as a
    pass over it. Source: Vancura et al. 2022, "Scalable Linear Shallow Autoencoder" (ELSA), eq. 4.
    """

    def __init__(
        self,
        targets: Rows,
        *,
        tile_elements: int = TILE_ELEMENTS,
        kept_bytes: int = KEPT_BYTES,
        spare: list[Tensor] | None = None,
    ) -> None:
        self.targets, self.tile_elements = targets, tile_elements
        self.kept_bytes, self.spare = kept_bytes, [] if spare is None else spare
        self._kept: dict[int, Tensor] = {}  # tiles of y, by their first item

    def forward(self, embedding: Tensor, items: Tensor, inputs: Rows) -> Tensor:
        """The loss per row (B,)."""
        self.width = tile_width(len(embedding), len(items), self.tile_elements)
        tiny = torch.finfo(embedding.dtype).tiny
        norms = _norms(self.targets, embedding.dtype)
        self._scores = _Scores(embedding, inputs, _unit(self.targets, norms.clamp_min(tiny)))
        scores = self._scores.of(embedding, items, self.spare)
        keep = len(embedding) * len(items) * scores.dtype.itemsize <= self.kept_bytes
        squares, dots = (torch.zeros_like(embedding[:, 0]) for _ in range(2))
        for low, high in tiles(len(items), self.width):
            y = scores.tile(low, high, squares, dots)
            if keep:
                self._kept[low] = y
            else:
                self.spare.append(y)
        norm = squares.sqrt()
        alive, wanted = ((one > 0).to(norm.dtype) for one in (norm, norms))
        self.scale = alive / norm.clamp_min(tiny)
        self.cosine = dots * self.scale
        return alive + wanted - 2 * self.cosine

    def backward(
        self, grad: Tensor, embedding: Tensor, items: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of embedding, items and inputs.values, from that of the loss per row."""
        scores = self._scores.of(embedding, items, self.spare)
        # d loss / d y = 2 / ||y|| * (cos * y / ||y|| - t), where y > 0
        on_scores, on_targets = (
            2 * grad * self.cosine * self.scale.square(),
            -2 * grad * self.scale,
        )
        to_embedding, to_items = torch.zeros_like(embedding), torch.empty_like(items)
        to_inputs = embedding.new_zeros(len(scores.inputs.items))
        for low, high in tiles(len(items), self.width):
            y = self._kept.pop(low, None)  # slopes take its place: a second pass computes again
            if y is None:
                y = scores.tile(low, high)
            slope = scores.slopes(y, low, high, on_scores, on_targets, to_inputs)
            scores.multiply(slope, scores.items[low:high], to_embedding, add=True)
            scores.multiply(slope.T, scores.embedding, to_items[low:high])
            self.spare.append(y)
        return to_embedding, to_items, to_inputs


class _Scores:
    """Tiles of y = relu(embedding @ items.T - inputs), multiplied in dtype, and their slopes."""

    def __init__(self, embedding: Tensor, inputs: Rows, targets: Rows) -> None:
        self.dtype = product_dtype(embedding)
        self.inputs, self.targets = inputs, targets
        self.arrays = [_arrays(embedding, one) for one in (inputs, targets)]
        types = (torch.float32, torch.bfloat16)
        self.by_engine = None not in self.arrays and self.dtype in types
        self.in_int16 = _in_int16.get() and self.by_engine and self.dtype == torch.float32
        if not self.by_engine:
            self.listed = [entries(one, embedding.dtype) for one in (inputs, targets)]

    def of(self, embedding: Tensor, items: Tensor, spare: list[Tensor]) -> _Scores:
        """Itself, with what it multiplies, which autograd keeps between its two passes."""
        self.embedding, self.items = embedding.to(self.dtype), items.to(self.dtype)
        self.spare = spare
        return self

    def multiply(self, left: Tensor, right: Tensor, out: Tensor, *, add: bool = False) -> None:
        """out = left @ right, or += where add is set, multiplied as `dtype` and `in_int16` say."""
        if self.in_int16:
            int16_product_(left.numpy(), right.numpy(), out.numpy(), add=add)
        elif add:
            out += torch.mm(left, right)
        elif out.dtype == left.dtype:
            torch.mm(left, right, out=out)
        else:
            out.copy_(torch.mm(left, right))

    def tile(
        self, low: int, high: int, squares: Tensor | None = None, dots: Tensor | None = None
    ) -> Tensor:
        """y of items low..high-1 (B, high - low); adds its sums of squares and of y * target."""
        y = self._memory(high - low)
        self.multiply(self.embedding, self.items[low:high].T, y)
        if squares is None:
            squares, dots = (torch.zeros(len(y), device=y.device) for _ in range(2))
        if self.by_engine:
            sums = squares.numpy(), dots.numpy()
            cosine_tile_(_array(y), *self.arrays, *sums, first_item=low, n_items=len(self.items))
            return y
        row, item, value = within(self.listed[0], low, high)
        add_at(y, row, item, -value)
        y = y.relu_()
        squares += torch.linalg.vector_norm(y.to(squares.dtype), dim=1).square_()
        row, item, value = within(self.listed[1], low, high)
        dots.index_add_(0, row, y[row, item].to(dots.dtype) * value.to(dots.dtype))
        return y

    def _memory(self, width: int) -> Tensor:
        want = (len(self.embedding), width)
        while self.spare:
            found = self.spare.pop()
            if found.shape == want and found.dtype == self.dtype:
                return found
        return self.embedding.new_empty(want)

    def slopes(
        self,
        y: Tensor,
        low: int,
        high: int,
        on_scores: Tensor,
        on_targets: Tensor,
        to_inputs: Tensor,
    ) -> Tensor:
        """The gradient of the tile, which may take the place of y; to_inputs gets the inputs'."""
        if self.by_engine:
            factors = on_scores.contiguous().numpy(), on_targets.contiguous().numpy()
            cosine_tile_backward_(
                _array(y), *self.arrays, *factors, to_inputs.numpy(),
                first_item=low, n_items=len(self.items),
            )  # fmt: skip
            return y
        row, item, value = within(self.listed[1], low, high)
        pull = on_targets[row] * value * (y[row, item] > 0)
        slope = y * on_scores[:, None].to(y.dtype)
        add_at(slope, row, item, pull)
        inputs = self.listed[0]
        here = mask_within(inputs, low, high)
        own = slope[inputs.row[here], inputs.item[here] - low]
        to_inputs[here] = -own.to(to_inputs.dtype)
        return slope


def _norms(rows: Rows, dtype: torch.dtype) -> Tensor:
    """Euclidean norm of each row: (B,)."""
    if rows.values is None:
        return rows.offsets.diff().to(dtype).sqrt()
    listed: Entries = entries(rows, dtype)
    return row_norms(listed.value, listed.row, len(rows.offsets) - 1)


def _unit(rows: Rows, norms: Tensor) -> Rows:
    """The rows, divided by their norms."""
    per_entry = torch.repeat_interleave(norms, rows.offsets.diff())
    ones = rows.values is None
    return rows._replace(values=per_entry.reciprocal_() if ones else rows.values / per_entry)


def _arrays(embedding: Tensor, rows: Rows) -> Rows | None:
    """The rows as the engine takes them, or None where it cannot."""
    types = {embedding.dtype} | ({rows.values.dtype} if rows.values is not None else set())
    if embedding.device.type != "cpu" or types != {torch.float32}:
        return None
    return Rows(*(None if one is None else one.detach().contiguous().numpy() for one in rows))


def _array(y: Tensor):
    return y.view(torch.uint16).numpy() if y.dtype == torch.bfloat16 else y.numpy()
