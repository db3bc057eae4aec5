"""Floor 1: between tensors and arrays: borrowed memory in, fresh tensors out.

Station: none of its own; the torch half of the ops stands on it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cfsae_fast.ops.containers import Stats


def array_of(tensor: Tensor | np.ndarray | None) -> np.ndarray | None:
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


def as_tensor(array: Tensor | np.ndarray | None) -> Tensor | None:
    return None if array is None else torch.as_tensor(array)


def as_tensors(container) -> tuple[Tensor | None, ...]:
    return tuple(map(as_tensor, container))


def tensor_of(array: np.ndarray | None) -> Tensor:
    """None, which a custom op cannot return, becomes an empty tensor."""
    return torch.empty(0) if array is None else torch.from_numpy(array)


def tensors_of(arrays) -> tuple[Tensor, ...]:
    return tuple(map(tensor_of, arrays))


def stats_of(mean: Tensor | None, std: Tensor | None) -> Stats | None:
    return None if mean is None else Stats(array_of(mean), array_of(std))


def fakes(like: Tensor, shapes, wanted) -> tuple[Tensor, ...]:
    return tuple(
        like.new_empty(shape if want else (0,)) for shape, want in zip(shapes, wanted, strict=True)
    )


def only(grads: tuple[Tensor, ...], wanted: list[bool]) -> list[Tensor | None]:
    return [grad if want else None for grad, want in zip(grads, wanted, strict=True)]


def or_zeros(grad: Tensor | None, like: Tensor, shape: torch.Size) -> Tensor:
    return like.new_zeros(shape) if grad is None else grad
