"""Floor 1: the ops on numpy arrays: make contiguous, allocate the result, call the engine.

Station: all arrows from `CSR -> CFAE.encode` to `scores -> top-N`, with their backward halves.

The engine's binding checks dtypes, shapes and index ranges; nothing here repeats that.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cfsae_fast import _C
from cfsae_fast.ops.arrays import as_bytes, plain
from cfsae_fast.ops.containers import Code, Encoded, Knobs, Recommended, Rows, Stats
from cfsae_fast.ops.screens import Screen, memory_of
from cfsae_fast.ops.settings import execution

Array = np.ndarray


class EncodeRowsGrads(NamedTuple):
    """Gradients of encode_rows; None where not wanted."""

    weight: Array | None
    bias: Array | None
    values: Array | None


class TopkEncodeGrads(NamedTuple):
    """Gradients of topk_encode; None where not wanted."""

    embedding: Array | None
    encoder: Array | None
    bias: Array | None
    centre: Array | None


class SparseDecodeGrads(NamedTuple):
    """Gradients of sparse_decode; None where not wanted."""

    values: Array | None
    dictionary: Array | None
    bias: Array | None
    mean: Array | None
    std: Array | None


def encode_rows(rows: Rows, weight: Array, bias: Array | None = None, *, threads: int = 0) -> Array:
    rows, weight = _each(rows), plain(weight)
    out = _float_like((_length(rows.offsets) - 1, _width(weight)))
    _C.encode_rows(*rows, weight, plain(bias), out, *execution(threads))
    return out


def encode_rows_backward(
    rows: Rows, weight: Array, grad: Array, *, wanted: tuple[bool, bool, bool], threads: int = 0
) -> EncodeRowsGrads:
    rows, weight, grad = _each(rows), plain(weight), plain(grad)
    shapes = (weight.shape, weight.shape[1:], rows.items.shape)
    out = EncodeRowsGrads(*_wanted(shapes, wanted))
    if out.values is not None:
        out.values.fill(0)  # entries outside the offsets
    _C.encode_rows_backward(*rows, weight, grad, *out, *execution(threads))
    return out


def topk_encode(
    embedding: Array,
    encoder: Array,
    bias: Array,
    centre: Array,
    k: int,
    *,
    standardize: bool = True,
    screen: Screen | None = None,
    threads: int = 0,
) -> Encoded:
    screened = memory_of(screen, encoder, "encoder")
    embedding, encoder = plain(embedding), plain(encoder)
    if not 1 <= k <= _length(encoder):
        raise ValueError(f"k must be in [1, n_latents={_length(encoder)}], got {k}")
    n = _length(embedding)
    code = _empty_code(n, k)
    stats = Stats(_float_like((n,)), _float_like((n,))) if standardize else None
    _C.topk_encode(
        embedding, encoder, plain(bias), plain(centre),
        *code, *(stats or (None, None)), screened, *execution(threads),
    )  # fmt: skip
    return Encoded(code, stats)


def topk_encode_backward(
    embedding: Array,
    encoder: Array,
    centre: Array,
    indices: Array,
    stats: Stats | None,
    grad_values: Array,
    grad_stats: Stats | None,
    *,
    wanted: tuple[bool, bool, bool, bool],
    threads: int = 0,
) -> TopkEncodeGrads:
    embedding, encoder = plain(embedding), plain(encoder)
    shapes = (embedding.shape, encoder.shape, encoder.shape[:1], embedding.shape[1:])
    out = TopkEncodeGrads(*_wanted(shapes, wanted))
    _C.topk_encode_backward(
        embedding, encoder, plain(centre), plain(indices), plain(grad_values),
        *_stats(stats), *_stats(grad_stats), *out, *execution(threads),
    )  # fmt: skip
    return out


def sparse_decode(
    code: Code,
    dictionary: Array,
    bias: Array | None = None,
    stats: Stats | None = None,
    *,
    threads: int = 0,
) -> Array:
    code, dictionary = _each(code), plain(dictionary)
    out = _float_like((_length(code.indices), _width(dictionary)))
    _C.sparse_decode(
        *code, dictionary, plain(bias), *_stats(stats), out, *execution(threads)
    )  # fmt: skip
    return out


def sparse_decode_backward(
    code: Code,
    dictionary: Array,
    bias: Array | None,
    stats: Stats | None,
    grad: Array,
    *,
    wanted: tuple[bool, bool, bool, bool, bool],
    threads: int = 0,
) -> SparseDecodeGrads:
    code, dictionary = _each(code), plain(dictionary)
    n = code.indices.shape[:1]
    shapes = (code.values.shape, dictionary.shape, dictionary.shape[1:], n, n)
    out = SparseDecodeGrads(*_wanted(shapes, wanted))
    _C.sparse_decode_backward(
        *code, dictionary, plain(bias), *_stats(stats), plain(grad), *out, *execution(threads)
    )  # fmt: skip
    return out


def steer(code: Code, knobs: Knobs, *, n_latents: int, threads: int = 0) -> Code:
    code, knobs = _each(code), _each(knobs)
    n, width = _length(code.indices), _width(code.indices)
    out = _empty_code(n, width + _C.knob_width(*knobs, n_latents, n))
    _C.steer(*code, *knobs, n_latents, *out, *execution(threads))
    return out


def steer_decode(
    embedding: Array,
    code: Code,
    knobs: Knobs,
    dictionary: Array,
    bias: Array | None,
    stats: Stats | None,
    *,
    mode: str,
    threads: int = 0,
) -> Array:
    embedding = plain(embedding)
    out = np.empty(embedding.shape, np.float32)
    _C.steer_decode(
        embedding, *_each(code), *_each(knobs), plain(dictionary), plain(bias),
        *_stats(stats), mode, out, *execution(threads),
    )  # fmt: skip
    return out


def recommend(
    embedding: Array,
    items: Array,
    n: int,
    *,
    bias: Array | None = None,
    seen: Rows | None = None,
    allowed: Array | None = None,
    screen: Screen | None = None,
    threads: int = 0,
) -> Recommended:
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    screened = memory_of(screen, items, "items")
    embedding = plain(embedding)
    ids, scores = _empty_code(_length(embedding), n)
    seen_offsets, seen_items, _ = _each(seen) if seen is not None else (None, None, None)
    _C.recommend(
        embedding, plain(items), plain(bias), seen_offsets, seen_items, as_bytes(allowed),
        ids, scores, screened, *execution(threads),
    )  # fmt: skip
    return Recommended(ids, scores)


def _each(container):
    """The same container of contiguous arrays."""
    return type(container)(*map(plain, container))


def _stats(stats: Stats | None) -> tuple[Array | None, Array | None]:
    return (None, None) if stats is None else tuple(map(plain, stats))


def _length(array: Array) -> int:
    return array.shape[0]


def _width(array: Array) -> int:
    return array.shape[1] if array.ndim > 1 else 0  # the binding refuses the shape


def _float_like(shape: tuple[int, ...]) -> Array:
    return np.empty(tuple(max(0, size) for size in shape), np.float32)


def _empty_code(n: int, k: int) -> tuple[Array, Array]:
    return Code(np.empty((n, k), np.int32), np.empty((n, k), np.float32))


def _wanted(shapes: tuple, wanted: tuple[bool, ...]) -> list[Array | None]:
    return [
        np.empty(shape, np.float32) if want else None
        for shape, want in zip(shapes, wanted, strict=True)
    ]
