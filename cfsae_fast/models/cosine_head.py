"""Floor 3: ELSA's loss over the whole catalogue, by tiles of items, with its gradient.

Station: embedding' -> scores, in training only. Between two matrix products a tile is read once
each way, by the engine on a CPU, by torch elsewhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cfsae_fast.models.item_head import (
    TILE_ELEMENTS,
    Entries,
    add_at,
    mask_within,
    product_dtype,
    row_norms,
    tile_width,
    tiles,
    within,
)
from cfsae_fast.ops import Rows
from cfsae_fast.ops.tiles import cosine_tile_, cosine_tile_backward_

# Scores that are kept for the backward pass instead of computed again: a quarter of a step's time.
KEPT_BYTES = 128 << 20


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
        targets: Entries,
        *,
        tile_elements: int = TILE_ELEMENTS,
        kept_bytes: int = KEPT_BYTES,
        spare: list[Tensor] | None = None,
    ) -> None:
        self.targets, self.tile_elements = targets, tile_elements
        self.kept_bytes, self.spare = kept_bytes, [] if spare is None else spare
        self._kept: dict[int, Tensor] = {}  # tiles of y, by their first item

    def forward(self, embedding: Tensor, items: Tensor, inputs: Entries) -> Tensor:
        """The loss per row (B,)."""
        self.width = tile_width(len(embedding), len(items), self.tile_elements)
        norms = row_norms(self.targets.value, self.targets.row, len(embedding))
        tiny = torch.finfo(norms.dtype).tiny
        unit = self.targets.value / norms.clamp_min(tiny)[self.targets.row]
        self.targets = self.targets._replace(value=unit)
        scores = _Scores(embedding, items, inputs, self.targets, self.spare)
        self.dtype = scores.dtype
        keep = len(embedding) * len(items) * scores.dtype.itemsize <= self.kept_bytes
        squares, dots = (torch.zeros_like(embedding[:, 0]) for _ in range(2))
        for low, high in tiles(len(items), self.width):
            y = scores.tile(low, high, squares, dots)
            if keep:
                self._kept[low] = y
            else:
                self.spare.append(y)
        norm = squares.sqrt()
        alive = (norm > 0).to(norm.dtype)
        self.scale = alive / norm.clamp_min(tiny)
        self.cosine = dots * self.scale
        target_norm = row_norms(unit, self.targets.row, len(embedding))
        return alive + target_norm.square() - 2 * self.cosine

    def backward(
        self, grad: Tensor, embedding: Tensor, items: Tensor, inputs: Entries
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of embedding, items and inputs.value, from that of the loss per row."""
        scores = _Scores(embedding, items, inputs, self.targets, self.spare, self.dtype)
        # d loss / d y = 2 / ||y|| * (cos * y / ||y|| - t), where y > 0
        on_scores, on_targets = (
            2 * grad * self.cosine * self.scale.square(),
            -2 * grad * self.scale,
        )
        to_embedding, to_items = torch.zeros_like(embedding), torch.empty_like(items)
        to_inputs = torch.zeros_like(inputs.value)
        for low, high in tiles(len(items), self.width):
            y = self._kept.pop(low, None)  # slopes take its place: a second pass computes again
            if y is None:
                y = scores.tile(low, high)
            slope = scores.slopes(y, low, high, on_scores, on_targets, to_inputs)
            to_embedding += torch.mm(slope, scores.items[low:high])
            to_items[low:high] = torch.mm(slope.T, scores.embedding)
            self.spare.append(y)
        return to_embedding, to_items, to_inputs


class _Scores:
    """Tiles of y = relu(embedding @ items.T - inputs), multiplied in dtype, and their slopes."""

    def __init__(
        self,
        embedding: Tensor,
        items: Tensor,
        inputs: Entries,
        targets: Entries,
        spare: list[Tensor],
        dtype: torch.dtype | None = None,
    ) -> None:
        self.dtype = dtype or product_dtype(embedding)
        self.embedding, self.items = embedding.to(self.dtype), items.to(self.dtype)
        self.inputs, self.targets, self.spare = inputs, targets, spare
        self.rows = _rows(embedding, inputs), _rows(embedding, targets)
        types = (torch.float32, torch.bfloat16)
        self.by_engine = None not in self.rows and self.dtype in types

    def tile(
        self, low: int, high: int, squares: Tensor | None = None, dots: Tensor | None = None
    ) -> Tensor:
        """y of items low..high-1 (B, high - low); adds its sums of squares and of y * target."""
        y = self._memory(high - low)
        torch.mm(self.embedding, self.items[low:high].T, out=y)
        if squares is None:
            squares, dots = (self.targets.value.new_zeros(len(y)) for _ in range(2))
        if self.by_engine:
            sums = squares.numpy(), dots.numpy()
            cosine_tile_(_array(y), *self.rows, *sums, first_item=low, n_items=len(self.items))
            return y
        row, item, value = within(self.inputs, low, high)
        add_at(y, row, item, -value)
        y = y.relu_()
        squares += torch.linalg.vector_norm(y.to(squares.dtype), dim=1).square_()
        row, item, value = within(self.targets, low, high)
        dots.index_add_(0, row, y[row, item].to(value.dtype) * value)
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
                _array(y), *self.rows, *factors, to_inputs.numpy(),
                first_item=low, n_items=len(self.items),
            )  # fmt: skip
            return y
        row, item, value = within(self.targets, low, high)
        pull = on_targets[row] * value * (y[row, item] > 0)
        slope = y * on_scores[:, None].to(y.dtype)
        add_at(slope, row, item, pull)
        here = mask_within(self.inputs, low, high)
        own = slope[self.inputs.row[here], self.inputs.item[here] - low]
        to_inputs[here] = -own.to(to_inputs.dtype)
        return slope


def _rows(embedding: Tensor, sparse: Entries) -> Rows | None:
    """The entries as the engine takes them, or None where it cannot."""
    value, row = sparse.value, sparse.row
    if embedding.device.type != "cpu" or value.dtype != torch.float32:
        return None
    if len(row) and bool((row[1:] < row[:-1]).any()):
        return None
    counts = torch.bincount(row, minlength=len(embedding))
    offsets = torch.zeros(len(embedding) + 1, dtype=torch.int64)
    torch.cumsum(counts, 0, out=offsets[1:])
    items = sparse.item.to(torch.int32)
    return Rows(offsets.numpy(), items.numpy(), value.detach().contiguous().numpy())


def _array(y: Tensor):
    return y.view(torch.uint16).numpy() if y.dtype == torch.bfloat16 else y.numpy()
