"""Floor 1: the ops on torch tensors: custom_op + fake + autograd around the engine.

Station: all arrows from `CSR -> CFAE.encode` to `scores -> top-N`. Imported with the first tensor.

Tensors are borrowed as numpy arrays inside the custom op, where no fake tensor can arrive. The
backward halves are custom ops too, so torch.compile traces through them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cfsae_fast.ops import engine
from cfsae_fast.ops.containers import Code, Encoded, Knobs, Recommended, Rows, Stats

_NAMESPACE = "cfsae"


# --- encode_rows


@torch.library.custom_op(f"{_NAMESPACE}::encode_rows", mutates_args=())
def _encode_rows(
    offsets: Tensor,
    items: Tensor,
    values: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    threads: int,
) -> Tensor:
    rows = Rows(_array(offsets), _array(items), _array(values))
    return _tensor(engine.encode_rows(rows, _array(weight), _array(bias), threads=threads))


@_encode_rows.register_fake
def _(offsets, items, values, weight, bias, threads):
    return weight.new_empty(offsets.shape[0] - 1, weight.shape[1])


@torch.library.custom_op(f"{_NAMESPACE}::encode_rows_backward", mutates_args=())
def _encode_rows_backward(
    offsets: Tensor,
    items: Tensor,
    values: Tensor | None,
    weight: Tensor,
    grad: Tensor,
    wanted: list[bool],
    threads: int,
) -> tuple[Tensor, Tensor, Tensor]:
    rows = Rows(_array(offsets), _array(items), _array(values))
    return _tensors(
        engine.encode_rows_backward(
            rows, _array(weight), _array(grad), wanted=tuple(wanted), threads=threads
        )
    )


@_encode_rows_backward.register_fake
def _(offsets, items, values, weight, grad, wanted, threads):
    return _fakes(weight, (weight.shape, weight.shape[1:], items.shape), wanted)


def _keep_for_encode_rows(ctx, inputs, output):
    offsets, items, values, weight, _, ctx.threads = inputs
    ctx.save_for_backward(offsets, items, values, weight)


def _encode_rows_autograd(ctx, grad):
    _, _, values, weight, bias, _ = ctx.needs_input_grad
    wanted = [weight, bias, values]
    grads = _encode_rows_backward(*ctx.saved_tensors, grad, wanted, ctx.threads)
    weight, bias, values = _only(grads, wanted)
    return None, None, values, weight, bias, None


_encode_rows.register_autograd(_encode_rows_autograd, setup_context=_keep_for_encode_rows)


def encode_rows(
    rows: Rows, weight: Tensor, bias: Tensor | None = None, *, threads: int = 0
) -> Tensor:
    return _encode_rows(*_tensors_of(rows), weight, _as_tensor(bias), threads)


# --- topk_encode


@torch.library.custom_op(f"{_NAMESPACE}::topk_encode", mutates_args=())
def _topk_encode(
    embedding: Tensor,
    encoder: Tensor,
    bias: Tensor,
    centre: Tensor,
    k: int,
    standardize: bool,
    threads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    arrays = map(_array, (embedding, encoder, bias, centre))
    code, stats = engine.topk_encode(*arrays, k, standardize=standardize, threads=threads)
    mean, std = stats or (None, None)
    return _tensors((code.values, mean, std, code.indices))  # a float first: opcheck sums them


@_topk_encode.register_fake
def _(embedding, encoder, bias, centre, k, standardize, threads):
    n = embedding.shape[0]
    mean, std = _fakes(embedding, ((n,), (n,)), (standardize, standardize))
    indices = embedding.new_empty((n, k), dtype=torch.int32)
    return embedding.new_empty(n, k), mean, std, indices


@torch.library.custom_op(f"{_NAMESPACE}::topk_encode_backward", mutates_args=())
def _topk_encode_backward(
    embedding: Tensor,
    encoder: Tensor,
    centre: Tensor,
    indices: Tensor,
    mean: Tensor,
    std: Tensor,
    grad_values: Tensor,
    grad_mean: Tensor,
    grad_std: Tensor,
    wanted: list[bool],
    standardize: bool,
    threads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    stats = Stats(_array(mean), _array(std)) if standardize else None
    grad_stats = Stats(_array(grad_mean), _array(grad_std)) if standardize else None
    arrays = map(_array, (embedding, encoder, centre, indices))
    return _tensors(
        engine.topk_encode_backward(
            *arrays, stats, _array(grad_values), grad_stats, wanted=tuple(wanted), threads=threads
        )
    )


@_topk_encode_backward.register_fake
def _(embedding, encoder, centre, *rest):
    wanted = rest[6]
    shapes = (embedding.shape, encoder.shape, encoder.shape[:1], centre.shape)
    return _fakes(embedding, shapes, wanted)


def _keep_for_topk_encode(ctx, inputs, output):
    embedding, encoder, _, centre, _, ctx.standardize, ctx.threads = inputs
    _, mean, std, indices = output
    ctx.mark_non_differentiable(indices)
    ctx.save_for_backward(embedding, encoder, centre, indices, mean, std)


def _topk_encode_autograd(ctx, grad_values, grad_mean, grad_std, _):
    wanted = list(ctx.needs_input_grad[:4])
    saved = ctx.saved_tensors
    grads = _topk_encode_backward(
        *saved,
        _or_zeros(grad_values, saved[0], saved[3].shape),
        _or_zeros(grad_mean, saved[0], saved[4].shape),
        _or_zeros(grad_std, saved[0], saved[5].shape),
        wanted,
        ctx.standardize,
        ctx.threads,
    )
    return (*_only(grads, wanted), None, None, None)


_topk_encode.register_autograd(_topk_encode_autograd, setup_context=_keep_for_topk_encode)


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
    arrays = map(_as_tensor, (embedding, encoder, bias, centre))
    values, mean, std, indices = _topk_encode(*arrays, k, standardize, threads)
    return Encoded(Code(indices, values), Stats(mean, std) if standardize else None)


# --- sparse_decode


@torch.library.custom_op(f"{_NAMESPACE}::sparse_decode", mutates_args=())
def _sparse_decode(
    indices: Tensor,
    values: Tensor,
    dictionary: Tensor,
    bias: Tensor | None,
    mean: Tensor | None,
    std: Tensor | None,
    threads: int,
) -> Tensor:
    code = Code(_array(indices), _array(values))
    return _tensor(
        engine.sparse_decode(
            code, _array(dictionary), _array(bias), _stats(mean, std), threads=threads
        )
    )


@_sparse_decode.register_fake
def _(indices, values, dictionary, bias, mean, std, threads):
    return values.new_empty(indices.shape[0], dictionary.shape[1])


@torch.library.custom_op(f"{_NAMESPACE}::sparse_decode_backward", mutates_args=())
def _sparse_decode_backward(
    indices: Tensor,
    values: Tensor,
    dictionary: Tensor,
    bias: Tensor | None,
    mean: Tensor | None,
    std: Tensor | None,
    grad: Tensor,
    wanted: list[bool],
    threads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    code = Code(_array(indices), _array(values))
    return _tensors(
        engine.sparse_decode_backward(
            code, _array(dictionary), _array(bias), _stats(mean, std), _array(grad),
            wanted=tuple(wanted), threads=threads,
        )
    )  # fmt: skip


@_sparse_decode_backward.register_fake
def _(indices, values, dictionary, bias, mean, std, grad, wanted, threads):
    n = values.shape[:1]
    shapes = (values.shape, dictionary.shape, dictionary.shape[1:], n, n)
    return _fakes(values, shapes, wanted)


def _keep_for_sparse_decode(ctx, inputs, output):
    *tensors, ctx.threads = inputs
    ctx.save_for_backward(*tensors)


def _sparse_decode_autograd(ctx, grad):
    wanted = list(ctx.needs_input_grad[1:6])
    grads = _sparse_decode_backward(*ctx.saved_tensors, grad, wanted, ctx.threads)
    return (None, *_only(grads, wanted), None)


_sparse_decode.register_autograd(_sparse_decode_autograd, setup_context=_keep_for_sparse_decode)


def sparse_decode(
    code: Code,
    dictionary: Tensor,
    bias: Tensor | None = None,
    stats: Stats | None = None,
    *,
    threads: int = 0,
) -> Tensor:
    mean, std = _tensors_of(stats) if stats is not None else (None, None)
    return _sparse_decode(*_tensors_of(code), dictionary, _as_tensor(bias), mean, std, threads)


# --- serving: no gradients, so plain calls on detached tensors


@torch.no_grad()
def steer(code: Code, knobs: Knobs, *, n_latents: int, threads: int = 0) -> Code:
    arrays = Code(*map(_array, code)), Knobs(*map(_array, knobs))
    return Code(*_tensors(engine.steer(*arrays, n_latents=n_latents, threads=threads)))


@torch.no_grad()
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
    return _tensor(
        engine.steer_decode(
            _array(embedding), Code(*map(_array, code)), Knobs(*map(_array, knobs)),
            _array(dictionary), _array(bias), _stats(*stats) if stats is not None else None,
            mode=mode, threads=threads,
        )
    )  # fmt: skip


@torch.no_grad()
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
    seen = Rows(*map(_array, seen)) if seen is not None else None
    found = engine.recommend(
        _array(embedding), _array(items), n,
        bias=_array(bias), seen=seen, allowed=_array(allowed), threads=threads,
    )  # fmt: skip
    return Recommended(*_tensors(found))


# --- between tensors and arrays


def _array(tensor: Tensor | np.ndarray | None) -> np.ndarray | None:
    """The tensor's memory as an array."""
    if tensor is None or isinstance(tensor, np.ndarray):
        return tensor
    if tensor.device.type != "cpu":
        raise NotImplementedError(
            f"tensors must be on the CPU, got {tensor.device}: this build of the engine has no "
            "kernels for that device; move them with .cpu()"
        )
    if tensor.dtype == torch.bfloat16:
        raise TypeError("tensors must be float32, got torch.bfloat16; convert with .float()")
    return tensor.detach().contiguous().numpy()


def _as_tensor(array: Tensor | np.ndarray | None) -> Tensor | None:
    return None if array is None else torch.as_tensor(array)


def _tensors_of(container) -> tuple[Tensor | None, ...]:
    return tuple(map(_as_tensor, container))


def _tensor(array: np.ndarray | None) -> Tensor:
    """None, which a custom op cannot return, becomes an empty tensor."""
    return torch.empty(0) if array is None else torch.from_numpy(array)


def _tensors(arrays) -> tuple[Tensor, ...]:
    return tuple(map(_tensor, arrays))


def _stats(mean: Tensor | None, std: Tensor | None) -> Stats | None:
    return None if mean is None else Stats(_array(mean), _array(std))


def _fakes(like: Tensor, shapes, wanted) -> tuple[Tensor, ...]:
    return tuple(
        like.new_empty(shape if want else (0,)) for shape, want in zip(shapes, wanted, strict=True)
    )


def _only(grads: tuple[Tensor, ...], wanted: list[bool]) -> list[Tensor | None]:
    return [grad if want else None for grad, want in zip(grads, wanted, strict=True)]


def _or_zeros(grad: Tensor | None, like: Tensor, shape: torch.Size) -> Tensor:
    return like.new_zeros(shape) if grad is None else grad
