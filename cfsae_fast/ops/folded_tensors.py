"""Floor 1: the folded ops on torch tensors: tensor_op + fake, no gradient.

Station: `history -> code` and `code -> scores -> top-N`, when the model is folded for serving.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cfsae_fast.ops import device, folded
from cfsae_fast.ops.containers import Code, Encoded, Recommended, Rows, Stats
from cfsae_fast.ops.folded import FoldedSide, FoldedTable
from cfsae_fast.ops.tensor_op import tensor_op
from cfsae_fast.ops.tensors import array_of, as_tensor, stats_of, tensor_of, tensors_of

_SIDE = "Tensor table, Tensor scales, Tensor errors, Tensor sums, Tensor shifts, float[] norms"


@tensor_op(
    "cfsae::folded_topk_encode",
    schema=(
        f"(Tensor offsets, Tensor items, Tensor? values, {_SIDE}, Tensor embedding, Tensor encoder,"
        " Tensor bias, Tensor centre, int k, bool standardize, int threads)"
        " -> (Tensor, Tensor, Tensor, Tensor)"
    ),
)
def _folded_topk_encode(offsets, items, values, *rest):
    *side, embedding, encoder, bias, centre, k, standardize, threads = rest
    rows = Rows(*map(array_of, (offsets, items, values)))
    code, stats = _home(embedding).folded_topk_encode(
        rows, _side(side), *map(array_of, (embedding, encoder, bias, centre)), k,
        standardize=standardize, threads=threads,
    )  # fmt: skip
    return tensors_of((*code, *(stats or (None, None))))


@_folded_topk_encode.register_fake
def _(offsets, items, values, *rest):
    embedding, *_, k, standardize, _ = rest[6:]
    n = embedding.shape[0]
    stats = (embedding.new_empty(n if standardize else 0) for _ in range(2))
    return embedding.new_empty((n, k), dtype=torch.int32), embedding.new_empty(n, k), *stats


def folded_topk_encode(
    rows: Rows,
    folded: FoldedSide,
    embedding: Tensor,
    encoder: Tensor,
    bias: Tensor,
    centre: Tensor,
    k: int,
    *,
    standardize: bool = True,
    threads: int = 0,
) -> Encoded:
    arrays = (*rows, *_flat(folded), embedding, encoder, bias, centre)
    *code, mean, std = _folded_topk_encode(*_detached(arrays), k, standardize, threads)
    return Encoded(Code(*code), Stats(mean, std) if standardize else None)


@tensor_op(
    "cfsae::folded_recommend",
    schema=(
        f"(Tensor indices, Tensor values, Tensor? mean, Tensor? std, {_SIDE}, Tensor embedding,"
        " Tensor items, int n, Tensor? bias, Tensor? seen_offsets, Tensor? seen_items,"
        " Tensor? allowed, int threads) -> (Tensor, Tensor)"
    ),
)
def _folded_recommend(indices, values, mean, std, *rest):
    *side, embedding, items, n, bias, seen_offsets, seen_items, allowed, threads = rest
    seen = None if seen_offsets is None else Rows(array_of(seen_offsets), array_of(seen_items))
    found = _home(embedding).folded_recommend(
        Code(array_of(indices), array_of(values)), stats_of(mean, std), _side(side),
        array_of(embedding), array_of(items), n,
        bias=array_of(bias), seen=seen, allowed=array_of(allowed), threads=threads,
    )  # fmt: skip
    return tensors_of(found)


@_folded_recommend.register_fake
def _(indices, values, mean, std, *rest):
    embedding, _, n = rest[6:9]
    shape = (embedding.shape[0], n)
    return embedding.new_empty(shape, dtype=torch.int32), embedding.new_empty(shape)


def folded_recommend(
    code: Code,
    stats: Stats | None,
    folded: FoldedSide,
    embedding: Tensor,
    items: Tensor,
    n: int,
    *,
    bias: Tensor | None = None,
    seen: Rows | None = None,
    allowed: Tensor | None = None,
    threads: int = 0,
) -> Recommended:
    given = (*code, *(stats or (None, None)), *_flat(folded), embedding, items)
    options = (bias, *(seen[:2] if seen is not None else (None, None)), allowed)
    return Recommended(*_folded_recommend(*_detached(given), n, *_detached(options), threads))


@tensor_op(
    "cfsae::folded_scores",
    schema=(
        "(Tensor indices, Tensor values, Tensor table, Tensor scales, Tensor errors, int threads)"
        " -> Tensor"
    ),
)
def _folded_scores(indices, values, table, scales, errors, threads):
    code = Code(array_of(indices), array_of(values))
    products = FoldedTable(*map(array_of, (table, scales, errors)))
    return tensor_of(_home(values).folded_scores(code, products, threads=threads))


@_folded_scores.register_fake
def _(indices, values, table, *_):
    return values.new_empty(values.shape[0], table.shape[1])


def folded_scores(code: Code, table: FoldedTable, *, threads: int = 0) -> Tensor:
    return _folded_scores(*_detached((*code, *table)), threads)


def _home(tensor: Tensor):
    return device if device.serves(tensor) else folded


def _flat(side: FoldedSide) -> tuple:
    return *side.table, side.sums, side.shifts, list(side.norms)


def _side(flat) -> FoldedSide:
    table, scales, errors, sums, shifts = map(array_of, flat[:5])
    return FoldedSide(FoldedTable(table, scales, errors), sums, shifts, tuple(flat[5]))


def _detached(values) -> list:
    """Tensors without their gradients; numbers as they are."""
    return [one if isinstance(one, list) or one is None else as_tensor(one).detach()
            for one in values]  # fmt: skip
