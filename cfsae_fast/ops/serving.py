"""Floor 1: the ops of serving on torch tensors: tensor_op + fake, no gradient.

Station: `code -> steer -> SAE.decode -> embedding' -> CFAE.decode -> scores -> top-N`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cfsae_fast.ops.containers import Code, Knobs, Recommended, Rows, Stats
from cfsae_fast.ops.tensor_op import tensor_op
from cfsae_fast.ops.tensors import (
    array_of,
    as_tensor,
    as_tensors,
    engine_of,
    exactness,
    stats_of,
    tensor_of,
    tensors_of,
)


@tensor_op(
    "cfsae::steer",
    schema=(
        "(Tensor indices, Tensor values, Tensor offsets, Tensor latents, Tensor weights, Tensor "
        "kinds, int n_latents, int threads) -> (Tensor, Tensor)"
    ),
)
def _steer(indices, values, offsets, latents, weights, kinds, n_latents, threads):
    code = Code(array_of(indices), array_of(values))
    knobs = Knobs(*map(array_of, (offsets, latents, weights, kinds)))
    return tensors_of(engine_of(indices).steer(code, knobs, n_latents=n_latents, threads=threads))


@_steer.register_fake
def _(indices, values, *_):
    width = torch.library.get_ctx().new_dynamic_size()  # k + m, and m depends on the knobs
    n = indices.shape[0]
    return indices.new_empty(n, width), values.new_empty(n, width)


def steer(code: Code, knobs: Knobs, *, n_latents: int, threads: int = 0) -> Code:
    return Code(*_steer(*_detached(*code, *knobs), n_latents, threads))


@tensor_op(
    "cfsae::steer_decode",
    schema=(
        "(Tensor embedding, Tensor indices, Tensor values, Tensor offsets, Tensor latents, "
        "Tensor weights, Tensor kinds, Tensor dictionary, Tensor? bias, Tensor? mean, Tensor? "
        "std, str mode, int threads) -> Tensor"
    ),
)
def _steer_decode(
    embedding,
    indices,
    values,
    offsets,
    latents,
    weights,
    kinds,
    dictionary,
    bias,
    mean,
    std,
    mode,
    threads,
):
    code = Code(array_of(indices), array_of(values))
    knobs = Knobs(*map(array_of, (offsets, latents, weights, kinds)))
    return tensor_of(
        engine_of(embedding).steer_decode(
            array_of(embedding), code, knobs, array_of(dictionary), array_of(bias),
            stats_of(mean, std), mode=mode, threads=threads,
        )
    )  # fmt: skip


@_steer_decode.register_fake
def _(embedding, *_):
    return torch.empty_like(embedding, memory_format=torch.contiguous_format)


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
    arrays = (embedding, *code, *knobs, dictionary, bias, *(stats or (None, None)))
    return _steer_decode(*_detached(*arrays), mode, threads)


@tensor_op(
    "cfsae::recommend",
    schema=(
        "(Tensor embedding, Tensor items, int n, Tensor? bias, Tensor? seen_offsets, Tensor? "
        "seen_items, Tensor? allowed, int threads, str precision='exact') -> (Tensor, Tensor)"
    ),
)
def _recommend(
    embedding, items, n, bias, seen_offsets, seen_items, allowed, threads, precision="exact"
):
    seen = None if seen_offsets is None else Rows(array_of(seen_offsets), array_of(seen_items))
    found = engine_of(embedding).recommend(
        array_of(embedding), array_of(items), n,
        bias=array_of(bias), seen=seen, allowed=array_of(allowed), threads=threads,
        **exactness(embedding, precision),
    )  # fmt: skip
    return tensors_of(found)


@_recommend.register_fake
def _(embedding, items, n, *_):
    shape = (embedding.shape[0], n)
    return embedding.new_empty(shape, dtype=torch.int32), embedding.new_empty(shape)


def recommend(
    embedding: Tensor,
    items: Tensor,
    n: int,
    *,
    bias: Tensor | None = None,
    seen: Rows | None = None,
    allowed: Tensor | None = None,
    precision: str = "exact",
    threads: int = 0,
) -> Recommended:
    embedding, items, bias, allowed = _detached(embedding, items, bias, allowed)
    seen_offsets, seen_items = as_tensors(seen[:2]) if seen is not None else (None, None)
    arguments = (embedding, items, n, bias, seen_offsets, seen_items, allowed, threads)
    found = _recommend(*arguments, precision)
    return Recommended(*found)


def _detached(*arrays) -> list[Tensor | None]:
    tensors = map(as_tensor, arrays)
    return [tensor if tensor is None else tensor.detach() for tensor in tensors]
