"""Floor 3: losses over the whole catalogue, by tiles of items, with their gradients.

Station: embedding' -> scores, in training only. (B, I) scores never exist beyond one tile: the
forward pass keeps sums per row, the backward pass computes each tile's scores again (or reuses
them where one tile holds the whole catalogue).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cfsae_fast.ops.containers import Rows

# 32 MiB of fp32 scores: large enough that the products run at full speed, small next to a model.
TILE_ELEMENTS = 1 << 23


class Entries(NamedTuple):
    """A sparse (B, I) matrix as a list: row (nnz,) int64, item (nnz,) int64, value (nnz,)."""

    row: Tensor
    item: Tensor
    value: Tensor


def entries(rows: Rows, dtype: torch.dtype = torch.float32) -> Entries:
    """The non-zeros of `rows` (tensors), ones where it has no values."""
    counts = rows.offsets.diff()
    row = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    item = rows.items.long()
    value = torch.ones(len(item), device=item.device) if rows.values is None else rows.values
    return Entries(row, item, value.to(dtype))


def row_norms(values: Tensor, row: Tensor, n_rows: int) -> Tensor:
    """Euclidean norm of each row of a sparse matrix: (B,)."""
    return values.new_zeros(n_rows).index_add_(0, row, values.square()).sqrt()


def multinomial_head(
    hidden: Tensor,
    items: Tensor,
    item_bias: Tensor,
    targets: Entries,
    *,
    tile_elements: int = TILE_ELEMENTS,
) -> Tensor:
    """Multinomial negative log-likelihood: -sum_i t_i log softmax(hidden @ items.T + item_bias)_i.

    hidden (B, h), items (I, h), item_bias (I,), targets sparse (B, I) -> (B,).
    Source: Liang et al. 2018 (arXiv 1802.05814), eq. 2.
    """
    width = tile_width(len(hidden), len(items), tile_elements)
    return _MultinomialHead.apply(hidden, items, item_bias, targets, width)


class _MultinomialHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, items, item_bias, targets, width):
        dtype = product_dtype(hidden)
        highest = torch.full_like(hidden[:, 0], -torch.inf)
        total, likelihood, mass = (hidden.new_zeros(len(hidden)) for _ in range(3))
        for low, high in tiles(len(items), width):
            logits = _product(hidden, items[low:high].T, dtype) + item_bias[low:high]
            raised = torch.maximum(highest, logits.amax(dim=1))
            total = total * torch.exp(highest - raised) + (logits - raised[:, None]).exp_().sum(1)
            highest = raised
            row, item, value = within(targets, low, high)
            likelihood.index_add_(0, row, logits[row, item] * value)
        log_total = highest + total.log()
        mass.index_add_(0, targets.row, targets.value)
        ctx.save_for_backward(hidden, items, item_bias, log_total, mass, *targets)
        ctx.width, ctx.dtype, ctx.only_tile = width, dtype, logits if width >= len(items) else None
        return mass * log_total - likelihood

    @staticmethod
    def backward(ctx, grad):
        hidden, items, item_bias, log_total, mass, *sparse = ctx.saved_tensors
        targets = Entries(*sparse)
        to_hidden, to_items = torch.zeros_like(hidden), torch.zeros_like(items)
        to_bias = torch.zeros_like(item_bias)
        for low, high in tiles(len(items), ctx.width):
            logits = ctx.only_tile
            if logits is None:
                logits = _product(hidden, items[low:high].T, ctx.dtype) + item_bias[low:high]
            slope = (logits - log_total[:, None]).exp_().mul_((mass * grad)[:, None])
            row, item, value = within(targets, low, high)
            add_at(slope, row, item, -value * grad[row])
            to_hidden += _product(slope, items[low:high], ctx.dtype)
            to_items[low:high] = _product(slope.T, hidden, ctx.dtype)
            to_bias[low:high] = slope.sum(0)
        return to_hidden, to_items, to_bias, None, None


def add_at(matrix: Tensor, row: Tensor, item: Tensor, value: Tensor) -> None:
    """matrix[row, item] += value in place, repeats adding up, in the order of the list on a CPU."""
    matrix.view(-1).index_add_(0, row * matrix.shape[1] + item, value.to(matrix.dtype))


def within(sparse: Entries, low: int, high: int) -> Entries:
    """The entries of items low..high-1, with items counted from low."""
    here = mask_within(sparse, low, high)
    return Entries(sparse.row[here], sparse.item[here] - low, sparse.value[here])


def mask_within(sparse: Entries, low: int, high: int) -> Tensor:
    """Which entries are of items low..high-1."""
    return (sparse.item >= low) & (sparse.item < high)


def tile_width(n_rows: int, n_items: int, tile_elements: int) -> int:
    return max(1, min(n_items, tile_elements // max(1, n_rows)))


def tiles(n_items: int, width: int) -> list[tuple[int, int]]:
    return [(low, min(low + width, n_items)) for low in range(0, n_items, width)]


def product_dtype(tensor: Tensor) -> torch.dtype:
    kind = tensor.device.type
    if tensor.dtype == torch.float32 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return tensor.dtype


def _product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """left @ right, multiplied in `dtype`, returned in the type of `left`."""
    return torch.mm(left.to(dtype), right.to(dtype)).to(left.dtype)
