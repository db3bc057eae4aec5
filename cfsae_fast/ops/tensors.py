"""Floor 1: between tensors and arrays: borrowed memory in, fresh tensors out.

Station: none of its own; the torch half of the ops stands on it.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from cfsae_fast.ops import device, engine
from cfsae_fast.ops.containers import Stats


def engine_of(tensor: Tensor) -> ModuleType:
    """The module whose ops answer for this tensor: `device`, or `engine` for the CPU."""
    return device if device.serves(tensor) else engine


def array_of(tensor: Tensor | np.ndarray | None) -> np.ndarray | Tensor | None:
    """The tensor's memory as an array; one on a device stays a tensor, contiguous."""
    if tensor is None or isinstance(tensor, np.ndarray):
        return tensor
    if device.serves(tensor):
        return tensor.detach().contiguous()
    if tensor.device.type != "cpu":
        raise NotImplementedError(
            f"tensors must be on the CPU, got {tensor.device}: this build of the engine has no "
            "kernels for that device; move them with .cpu()"
        )
    if tensor.dtype == torch.bfloat16:
        raise TypeError("tensors must be float32, got torch.bfloat16; convert with .float()")
    return tensor.detach().contiguous().numpy()


def exactness(tensor: Tensor, precision: str) -> dict[str, str]:
    """The argument that only the device's ops have."""
    return {"precision": precision} if device.serves(tensor) else {}


def as_tensor(array: Tensor | np.ndarray | None) -> Tensor | None:
    return None if array is None else torch.as_tensor(array)


def as_tensors(container) -> tuple[Tensor | None, ...]:
    return tuple(map(as_tensor, container))


def tensor_of(array: np.ndarray | Tensor | None, like: torch.device | None = None) -> Tensor:
    """None, which a custom op cannot return, becomes an empty tensor on the device `like`."""
    if isinstance(array, Tensor):
        return array
    return torch.empty(0, device=like) if array is None else torch.from_numpy(array)


def tensors_of(arrays) -> tuple[Tensor, ...]:
    arrays = tuple(arrays)
    like = next((one.device for one in arrays if isinstance(one, Tensor)), None)
    return tuple(tensor_of(one, like) for one in arrays)


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
