"""Floor 0: every op of the engine in slow, obvious PyTorch: oracle and definition.

Station: all arrows from `CSR -> CFAE.encode` to `scores -> top-N`, one function each.

Any float dtype goes (float64 is the oracle the engine is tested against) and autograd is torch's
own. Names and arguments are those of `cfsae_fast.ops`; `threads` is accepted and ignored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cfsae_fast.ops.containers import (
    PADDING,
    Code,
    Encoded,
    KnobKind,
    Knobs,
    Recommended,
    Rows,
    Stats,
)

STD_EPSILON = 1e-7  # added to the standard deviation of a row; the paper's code has the same


def encode_rows(
    rows: Rows, weight: Tensor, bias: Tensor | None = None, *, threads: int = 0
) -> Tensor:
    """bias + sum_j value_j * weight[item_j] over each row: Rows of B, (I, d), (d,) -> (B, d)."""
    lengths = rows.offsets[1:] - rows.offsets[:-1]
    owner = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    taken = slice(int(rows.offsets[0]), int(rows.offsets[-1]))
    gathered = weight[rows.items[taken].long()]
    if rows.values is not None:
        gathered = rows.values[taken, None] * gathered
    out = torch.zeros(len(lengths), weight.shape[1], dtype=weight.dtype)
    out = out.index_add(0, owner, gathered)
    return out if bias is None else out + bias


def topk_encode(
    embedding: Tensor,
    encoder: Tensor,
    bias: Tensor,
    centre: Tensor,
    k: int,
    *,
    standardize: bool = True,
    threads: int = 0,
) -> Encoded:
    """The k largest strictly positive pre-activations of each row, and the row's stats.

    u = (embedding - mean) / std with std the unbiased deviation + 1e-7 (1 where d = 1);
    pre = (u - centre) @ encoder.T + bias. A NaN is never kept. standardize=False: u = embedding
    and the stats are None.
    (B, d), (L, d), (L,), (d,) -> Encoded with a code of (B, k) and stats of (B,).
    """
    stats = row_stats(embedding) if standardize else None
    u = embedding if stats is None else (embedding - stats.mean[:, None]) / stats.std[:, None]
    pre = (u - centre) @ encoder.T + bias
    ranked = torch.where(pre.isnan(), -1.0, pre)
    order = torch.sort(ranked, dim=1, descending=True, stable=True).indices[:, :k]
    values = pre.gather(1, order)
    kept = values > 0
    indices = torch.where(kept, order, PADDING).to(torch.int32)
    return Encoded(Code(indices, torch.where(kept, values, 0.0)), stats)


def row_stats(embedding: Tensor) -> Stats:
    """Mean (B,) and unbiased standard deviation + 1e-7 (B,) of each row; 1 where d = 1."""
    mean = embedding.mean(dim=1)
    if embedding.shape[1] == 1:
        return Stats(mean, torch.ones_like(mean))
    return Stats(mean, embedding.std(dim=1) + STD_EPSILON)


def sparse_decode(
    code: Code,
    dictionary: Tensor,
    bias: Tensor | None = None,
    stats: Stats | None = None,
    *,
    threads: int = 0,
) -> Tensor:
    """mean + std * (bias + sum_j value_j * dictionary[index_j]): (B, k), (L, d), (d,) -> (B, d)."""
    kept = code.indices != PADDING
    atoms = dictionary[torch.where(kept, code.indices, 0).long()]
    out = (torch.where(kept, code.values, 0.0)[:, :, None] * atoms).sum(dim=1)
    if bias is not None:
        out = out + bias
    return out if stats is None else stats.mean[:, None] + stats.std[:, None] * out


def steer(code: Code, knobs: Knobs, *, n_latents: int, threads: int = 0) -> Code:
    """The code after its row's knobs, of width k + m.

    m is the largest number of distinct latents a row turns. Sorted by value descending, ties to
    the smaller index; exact zeros and NaN become padding, which stands last, after negatives.
    A NaN in the code counts as 0.
    (B, k) and knobs of B rows (or one row for all) -> (B, k + m).
    """
    n_rows, k = code.indices.shape
    width = k + max(
        (len(set(_row_knobs(knobs, row)[0])) for row in range(len(knobs.offsets) - 1)), default=0
    )
    indices = torch.full((n_rows, width), PADDING, dtype=torch.int32)
    values = torch.zeros(n_rows, width, dtype=code.values.dtype)
    for row, z in enumerate(_steered(code, knobs, n_latents)):
        order = torch.sort(z, descending=True, stable=True).indices
        order = order[z[order] != 0]
        indices[row, : len(order)] = order.to(torch.int32)
        values[row, : len(order)] = z[order]
    return Code(indices, values)


def steer_decode(
    embedding: Tensor,
    code: Code,
    knobs: Knobs,
    dictionary: Tensor,
    bias: Tensor | None,
    stats: Stats | None,
    *,
    mode: str,
    threads: int = 0,
) -> Tensor:
    """Turn the knobs and decode, z' being the steered code: (B, d), (B, k), (L, d) -> (B, d).

    reconstruct: mean + std * (z' @ dictionary + bias).
    residual: embedding + std * ((z' - z) @ dictionary); a row without knobs keeps its embedding.
    """
    n_latents = len(dictionary)
    steered = _steered(code, knobs, n_latents)
    mean = torch.zeros(len(embedding)) if stats is None else stats.mean
    std = torch.ones(len(embedding)) if stats is None else stats.std
    if mode == "reconstruct":
        decoded = steered @ dictionary
        decoded = decoded if bias is None else decoded + bias
        return mean[:, None] + std[:, None] * decoded
    moved = embedding + std[:, None] * ((steered - _dense(code, n_latents)) @ dictionary)
    turned = [len(_row_knobs(knobs, row)[0]) > 0 for row in range(len(embedding))]
    return torch.where(torch.tensor(turned, dtype=torch.bool)[:, None], moved, embedding)


def recommend(
    embedding: Tensor,
    items: Tensor,
    n: int,
    *,
    bias: Tensor | None = None,
    seen: Rows | None = None,
    allowed: Tensor | None = None,
    threads: int = 0,
) -> Recommended:
    """The n best items of embedding @ items.T + bias, ties to the smaller id.

    Items seen by the row, items not allowed, and scores of NaN or -inf are never returned; where
    fewer than n remain, ids are padded with -1 and scores with -inf.
    (B, d), (I, d), (I,) -> Recommended of (B, n).
    """
    scores = embedding @ items.T
    scores = scores if bias is None else scores + bias
    scores = torch.where(scores.isnan(), -torch.inf, scores)
    if allowed is not None:
        scores[:, ~allowed.bool()] = -torch.inf
    if seen is not None:
        for row in range(len(scores)):
            owned = seen.items[int(seen.offsets[row]) : int(seen.offsets[row + 1])]
            scores[row, owned.long()] = -torch.inf
    short = max(0, n - scores.shape[1])
    scores = torch.nn.functional.pad(scores, (0, short), value=-torch.inf)
    ordered, ids = torch.sort(scores, dim=1, descending=True, stable=True)
    ids = torch.where(ordered[:, :n] == -torch.inf, PADDING, ids[:, :n])
    return Recommended(ids.to(torch.int32), ordered[:, :n])


def _dense(code: Code, n_latents: int) -> Tensor:
    """The code as a dense (B, L) matrix; a latent that stands twice counts with its sum."""
    z = torch.zeros(len(code.indices), n_latents, dtype=code.values.dtype)
    kept = (code.indices != PADDING) & ~code.values.isnan()
    at = torch.where(kept, code.indices, 0).long()
    return z.scatter_add(1, at, torch.where(kept, code.values, 0.0))


def _row_knobs(knobs: Knobs, row: int) -> tuple[list[int], list[float], list[int]]:
    """Latents, weights and kinds turned in one row."""
    row = 0 if len(knobs.offsets) == 2 else row
    span = slice(int(knobs.offsets[row]), int(knobs.offsets[row + 1]))
    return (
        knobs.latents[span].tolist(),
        knobs.weights[span].tolist(),
        knobs.kinds[span].tolist(),
    )


def _steered(code: Code, knobs: Knobs, n_latents: int) -> Tensor:
    """z' (B, L): SCALE, then MIX, then ADD, each acting on what the one before left."""
    z = _dense(code, n_latents)
    for row in range(len(z)):
        latents, weights, kinds = _row_knobs(knobs, row)
        turns = list(zip(latents, weights, kinds, strict=True))
        for latent, weight, kind in turns:
            if kind == KnobKind.SCALE:
                z[row, latent] *= weight
        total = z[row].sum()
        if total != 0:
            mixes = [(latent, weight) for latent, weight, kind in turns if kind == KnobKind.MIX]
            z[row] *= 1 - min(1.0, sum(weight for _, weight in mixes))
            for latent, weight in mixes:
                z[row, latent] += total * weight
        for latent, weight, kind in turns:
            if kind == KnobKind.ADD:
                z[row, latent] += weight
    return torch.where(z.isnan(), 0.0, z)
