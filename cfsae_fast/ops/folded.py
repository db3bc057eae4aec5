"""Floor 1: the folded ops: tables of products stand in for the dense matrices.

Station: `history -> code` and `code -> scores -> top-N`, when the model is folded for serving.

A table only excludes; what it cannot exclude is computed in fp32 as the dense op does for one row,
so answers are those of `topk_encode` and `recommend`, bit for bit: on the CPU as it answers for one
row, on CUDA as with precision="fp32". No gradient. Torch tensors give tensors (`folded_turn` takes
arrays alone), and all of a side's arrays lie where the embedding does.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import numpy as np

from cfsae_fast import _C
from cfsae_fast.ops.arrays import as_bytes, plain
from cfsae_fast.ops.containers import Code, Encoded, Knobs, Recommended, Rows, Stats
from cfsae_fast.ops.settings import execution

Array = np.ndarray


class FoldedTable(NamedTuple):
    """A product (R, C) as int8: row r is about scales[r] * values[r], never off by over errors[r].

    values (R, C) int8; scales, errors (R,) float32.
    """

    values: Array
    scales: Array
    errors: Array


class FoldedSide(NamedTuple):
    """One end of the model, folded.

    encode: table (I, L) = item_weight @ encoder.T, sums (L,) = encoder's row sums, shifts (L,) =
    bias - encoder @ centre, norms (longest row of item_weight, of the encoder, 0, largest |bias|).

    decode: table (L, I) = dictionary @ items.T, sums (I,) = items' row sums, shifts (I,) = items @
    SAE bias, norms (longest atom, longest item, the SAE bias' length, largest |item bias|).
    """

    table: FoldedTable
    sums: Array
    shifts: Array
    norms: tuple[float, float, float, float]


def folded_topk_encode(
    rows: Rows,
    folded: FoldedSide,
    embedding: Array,
    encoder: Array,
    bias: Array,
    centre: Array,
    k: int,
    *,
    standardize: bool = True,
    threads: int = 0,
) -> Encoded:
    """topk_encode of embedding (B, d), which must be rows @ item_weight (a row without items may
    hold anything)."""
    if not 1 <= k <= len(encoder):
        raise ValueError(f"k must be in [1, n_latents={len(encoder)}], got {k}")
    if not isinstance(embedding, Array):
        return _for_tensors().folded_topk_encode(
            rows, folded, embedding, encoder, bias, centre, k,
            standardize=standardize, threads=threads,
        )  # fmt: skip
    n = len(embedding)
    code = Code(np.empty((n, k), np.int32), np.empty((n, k), np.float32))
    stats = Stats(np.empty(n, np.float32), np.empty(n, np.float32)) if standardize else None
    _C.folded_topk_encode(
        *map(plain, rows), tuple(folded.table), folded.sums, folded.shifts, folded.norms,
        plain(embedding), encoder, bias, centre, *code, *(stats or (None, None)),
        *execution(threads),
    )  # fmt: skip
    return Encoded(code, stats)


def folded_recommend(
    code: Code,
    stats: Stats | None,
    folded: FoldedSide,
    embedding: Array,
    items: Array,
    n: int,
    *,
    bias: Array | None = None,
    seen: Rows | None = None,
    allowed: Array | None = None,
    threads: int = 0,
) -> Recommended:
    """recommend of embedding (B, d), which must be sparse_decode of `code` and `stats`."""
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if not isinstance(embedding, Array):
        options = {"bias": bias, "seen": seen, "allowed": allowed, "threads": threads}
        return _for_tensors().folded_recommend(code, stats, folded, embedding, items, n, **options)
    found = _empty(len(embedding), n)
    seen_offsets, seen_items = map(plain, seen[:2]) if seen is not None else (None, None)
    _C.folded_recommend(
        *map(plain, code), *(stats or (None, None)), tuple(folded.table), folded.sums,
        folded.shifts, folded.norms, plain(embedding), items, bias, seen_offsets, seen_items,
        as_bytes(allowed), *found, *execution(threads),
    )  # fmt: skip
    return found


class FoldedModel:
    """A model of which both ends are folded, as the engine keeps it: `answer` is one call.

    Arrays as CFAENetwork and SAENetwork hold them; cold (d,) stands in for the embedding of a row
    without items; threshold: what does not exceed it leaves the code (None: nothing does).

    Raises:
        ValueError, TypeError: an array has another shape or dtype than the others ask for.
    """

    def __init__(
        self,
        item_weight: Array,
        encode_side: FoldedSide,
        encoder: Array,
        encoder_bias: Array,
        dictionary: Array,
        bias: Array,
        decode_side: FoldedSide,
        items: Array,
        item_bias: Array | None,
        cold: Array,
        k: int,
        standardize: bool = True,
        threshold: float | None = None,
    ) -> None:
        self._parts = (
            item_weight, encode_side, encoder, encoder_bias, dictionary, bias, decode_side, items,
            item_bias, cold, k, standardize, threshold,
        )  # fmt: skip
        encode_side, decode_side = (
            (tuple(side.table), side.sums, side.shifts, side.norms)
            for side in (encode_side, decode_side)
        )
        self._engine = _C.FoldedModel(
            item_weight, encode_side, encoder, encoder_bias, dictionary, bias, decode_side, items,
            item_bias, cold, k, standardize, -np.inf if threshold is None else threshold,
        )  # fmt: skip

    def __reduce__(self) -> tuple:
        return type(self), self._parts

    def answer(
        self,
        rows: Rows,
        knobs: Knobs | None,
        n: int,
        *,
        exclude_seen: bool = True,
        allowed: Array | None = None,
        threads: int = 0,
    ) -> Recommended:
        """encode_rows, folded_topk_encode, steer and steer_decode (reconstruct), then
        folded_recommend: the same bits, without a way through Python in between."""
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        found = _empty(len(rows.offsets) - 1, n)
        self._engine.answer(
            *map(plain, rows), knobs, exclude_seen, as_bytes(allowed), *found, *execution(threads)
        )
        return found


def folded_scores(code: Code, table: FoldedTable, *, threads: int = 0) -> Array:
    """About code @ dictionary @ items.T: (B, k), (L, I) -> (B, I) float32, for `folded_turn`."""
    if not isinstance(code.values, Array):
        return _for_tensors().folded_scores(code, table, threads=threads)
    out = np.empty((len(code.indices), table.values.shape[1]), np.float32)
    _C.folded_scores(*map(plain, code), tuple(table), out, *execution(threads))
    return out


def folded_turn(
    scores: tuple[Array, Array | None],
    embedding: Array,
    encoded: Encoded,
    knobs: Knobs,
    dictionary: Array,
    sae_bias: Array,
    folded: FoldedSide,
    items: Array,
    n: int,
    *,
    bias: Array | None = None,
    seen: Array | None = None,
    allowed: Array | None = None,
    threads: int = 0,
) -> Recommended:
    """steer_decode, then recommend, for one live user: knobs of one row -> (1, n).

    scores: folded_scores of the code (I,), and for residual mode the base scores (I,) of the
    embedding, else None (reconstruct). seen: (m,) item positions.
    """
    found = _empty(1, n)
    _C.folded_turn(
        *scores, embedding, *encoded.code, *(encoded.stats or (None, None)), *knobs, dictionary,
        sae_bias, tuple(folded.table), folded.sums, folded.shifts, folded.norms, items, bias,
        seen, as_bytes(allowed), *found, *execution(threads),
    )  # fmt: skip
    return found


def _for_tensors() -> ModuleType:
    from cfsae_fast.ops import folded_tensors

    return folded_tensors


def _empty(n_rows: int, n: int) -> Recommended:
    return Recommended(np.empty((n_rows, n), np.int32), np.empty((n_rows, n), np.float32))
