"""Floor 1: the differentiable ops on torch tensors: tensor_op + fake + autograd.

Station: `CSR -> CFAE.encode -> embedding -> SAE.encode -> code` and `SAE.decode -> embedding'`.

Tensors are borrowed as numpy arrays inside the op, where no fake tensor can arrive. The
backward halves are ops too, so torch.compile traces through them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cfsae_fast.ops.containers import Code, Encoded, Rows, Stats
from cfsae_fast.ops.tensor_op import tensor_op
from cfsae_fast.ops.tensors import (
    array_of,
    as_tensor,
    as_tensors,
    engine_of,
    exactness,
    fakes,
    only,
    or_zeros,
    stats_of,
    tensor_of,
    tensors_of,
)

# --- encode_rows


@tensor_op(
    "cfsae::encode_rows",
    schema=(
        "(Tensor offsets, Tensor items, Tensor? values, Tensor weight, Tensor? bias, int "
        "threads) -> Tensor"
    ),
)
def _encode_rows(offsets, items, values, weight, bias, threads):
    rows = Rows(array_of(offsets), array_of(items), array_of(values))
    return tensor_of(
        engine_of(weight).encode_rows(rows, array_of(weight), array_of(bias), threads=threads)
    )


@_encode_rows.register_fake
def _(offsets, items, values, weight, bias, threads):
    return weight.new_empty(offsets.shape[0] - 1, weight.shape[1])


@tensor_op(
    "cfsae::encode_rows_backward",
    schema=(
        "(Tensor offsets, Tensor items, Tensor? values, Tensor weight, Tensor grad, bool[] "
        "wanted, int threads) -> (Tensor, Tensor, Tensor)"
    ),
)
def _encode_rows_backward(offsets, items, values, weight, grad, wanted, threads):
    rows = Rows(array_of(offsets), array_of(items), array_of(values))
    return tensors_of(
        engine_of(weight).encode_rows_backward(
            rows, array_of(weight), array_of(grad), wanted=tuple(wanted), threads=threads
        )
    )


@_encode_rows_backward.register_fake
def _(offsets, items, values, weight, grad, wanted, threads):
    return fakes(weight, (weight.shape, weight.shape[1:], items.shape), wanted)


def _keep_for_encode_rows(ctx, inputs, output):
    offsets, items, values, weight, _, ctx.threads = inputs
    ctx.save_for_backward(offsets, items, values, weight)


def _encode_rows_autograd(ctx, grad):
    _, _, values, weight, bias, _ = ctx.needs_input_grad
    wanted = [weight, bias, values]
    grads = _encode_rows_backward(*ctx.saved_tensors, grad, wanted, ctx.threads)
    weight, bias, values = only(grads, wanted)
    return None, None, values, weight, bias, None


_encode_rows.register_autograd(_encode_rows_autograd, setup_context=_keep_for_encode_rows)


def encode_rows(
    rows: Rows, weight: Tensor, bias: Tensor | None = None, *, threads: int = 0
) -> Tensor:
    return _encode_rows(*as_tensors(rows), weight, as_tensor(bias), threads)


# --- topk_encode


@tensor_op(
    "cfsae::topk_encode",
    schema=(
        "(Tensor embedding, Tensor encoder, Tensor bias, Tensor centre, int k, bool "
        "standardize, int threads, str precision='exact') -> (Tensor, Tensor, Tensor, Tensor)"
    ),
)
def _topk_encode(embedding, encoder, bias, centre, k, standardize, threads, precision="exact"):
    arrays = map(array_of, (embedding, encoder, bias, centre))
    code, stats = engine_of(embedding).topk_encode(
        *arrays, k, standardize=standardize, threads=threads, **exactness(embedding, precision)
    )
    mean, std = stats or (None, None)
    return tensors_of((code.values, mean, std, code.indices))  # a float first: opcheck sums them


@_topk_encode.register_fake
def _(embedding, encoder, bias, centre, k, standardize, threads, precision="exact"):
    n = embedding.shape[0]
    mean, std = fakes(embedding, ((n,), (n,)), (standardize, standardize))
    indices = embedding.new_empty((n, k), dtype=torch.int32)
    return embedding.new_empty(n, k), mean, std, indices


@tensor_op(
    "cfsae::topk_encode_backward",
    schema=(
        "(Tensor embedding, Tensor encoder, Tensor centre, Tensor indices, Tensor mean, Tensor "
        "std, Tensor grad_values, Tensor grad_mean, Tensor grad_std, bool[] wanted, bool "
        "standardize, int threads) -> (Tensor, Tensor, Tensor, Tensor)"
    ),
)
def _topk_encode_backward(
    embedding,
    encoder,
    centre,
    indices,
    mean,
    std,
    grad_values,
    grad_mean,
    grad_std,
    wanted,
    standardize,
    threads,
):
    stats = Stats(array_of(mean), array_of(std)) if standardize else None
    grad_stats = Stats(array_of(grad_mean), array_of(grad_std)) if standardize else None
    arrays = map(array_of, (embedding, encoder, centre, indices))
    return tensors_of(
        engine_of(embedding).topk_encode_backward(
            *arrays, stats, array_of(grad_values), grad_stats, wanted=tuple(wanted), threads=threads
        )
    )


@_topk_encode_backward.register_fake
def _(embedding, encoder, centre, *rest):
    wanted = rest[6]
    shapes = (embedding.shape, encoder.shape, encoder.shape[:1], centre.shape)
    return fakes(embedding, shapes, wanted)


def _keep_for_topk_encode(ctx, inputs, output):
    embedding, encoder, _, centre, _, ctx.standardize, ctx.threads, _ = inputs
    _, mean, std, indices = output
    given = not ctx.needs_input_grad[0]  # then stats are constants: no gradient need flow to them
    ctx.mark_non_differentiable(indices, *((mean, std) if given else ()))
    ctx.save_for_backward(embedding, encoder, centre, indices, mean, std)


def _topk_encode_autograd(ctx, grad_values, grad_mean, grad_std, _):
    wanted = list(ctx.needs_input_grad[:4])
    saved = ctx.saved_tensors
    grads = _topk_encode_backward(
        *saved,
        or_zeros(grad_values, saved[0], saved[3].shape),
        or_zeros(grad_mean, saved[0], saved[4].shape),
        or_zeros(grad_std, saved[0], saved[5].shape),
        wanted,
        ctx.standardize,
        ctx.threads,
    )
    return (*only(grads, wanted), None, None, None, None)


_topk_encode.register_autograd(_topk_encode_autograd, setup_context=_keep_for_topk_encode)


def topk_encode(
    embedding: Tensor,
    encoder: Tensor,
    bias: Tensor,
    centre: Tensor,
    k: int,
    *,
    standardize: bool = True,
    precision: str = "exact",
    threads: int = 0,
) -> Encoded:
    arrays = map(as_tensor, (embedding, encoder, bias, centre))
    values, mean, std, indices = _topk_encode(*arrays, k, standardize, threads, precision)
    return Encoded(Code(indices, values), Stats(mean, std) if standardize else None)


# --- sparse_decode


@tensor_op(
    "cfsae::sparse_decode",
    schema=(
        "(Tensor indices, Tensor values, Tensor dictionary, Tensor? bias, Tensor? mean, Tensor? "
        "std, int threads) -> Tensor"
    ),
)
def _sparse_decode(indices, values, dictionary, bias, mean, std, threads):
    code = Code(array_of(indices), array_of(values))
    return tensor_of(
        engine_of(dictionary).sparse_decode(
            code, array_of(dictionary), array_of(bias), stats_of(mean, std), threads=threads
        )
    )


@_sparse_decode.register_fake
def _(indices, values, dictionary, bias, mean, std, threads):
    return values.new_empty(indices.shape[0], dictionary.shape[1])


@tensor_op(
    "cfsae::sparse_decode_backward",
    schema=(
        "(Tensor indices, Tensor values, Tensor dictionary, Tensor? bias, Tensor? mean, Tensor? "
        "std, Tensor grad, bool[] wanted, int threads) -> (Tensor, Tensor, Tensor, Tensor, "
        "Tensor)"
    ),
)
def _sparse_decode_backward(indices, values, dictionary, bias, mean, std, grad, wanted, threads):
    code = Code(array_of(indices), array_of(values))
    return tensors_of(
        engine_of(dictionary).sparse_decode_backward(
            code, array_of(dictionary), array_of(bias), stats_of(mean, std), array_of(grad),
            wanted=tuple(wanted), threads=threads,
        )
    )  # fmt: skip


@_sparse_decode_backward.register_fake
def _(indices, values, dictionary, bias, mean, std, grad, wanted, threads):
    n = values.shape[:1]
    shapes = (values.shape, dictionary.shape, dictionary.shape[1:], n, n)
    return fakes(values, shapes, wanted)


def _keep_for_sparse_decode(ctx, inputs, output):
    *tensors, ctx.threads = inputs
    ctx.save_for_backward(*tensors)


def _sparse_decode_autograd(ctx, grad):
    wanted = list(ctx.needs_input_grad[1:6])
    grads = _sparse_decode_backward(*ctx.saved_tensors, grad, wanted, ctx.threads)
    return (None, *only(grads, wanted), None)


_sparse_decode.register_autograd(_sparse_decode_autograd, setup_context=_keep_for_sparse_decode)


def sparse_decode(
    code: Code,
    dictionary: Tensor,
    bias: Tensor | None = None,
    stats: Stats | None = None,
    *,
    threads: int = 0,
) -> Tensor:
    mean, std = as_tensors(stats) if stats is not None else (None, None)
    return _sparse_decode(*as_tensors(code), dictionary, as_tensor(bias), mean, std, threads)
