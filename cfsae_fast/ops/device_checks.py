"""Floor 1: what is in tensors of a device, where somebody needs to know it.

Station: none of its own; the device half of the ops asks here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from cfsae_fast import _C
from cfsae_fast.ops.containers import PADDING, Code, Knobs, Rows
from cfsae_fast.ops.settings import is_checking

MOST_SLOTS = 2048  # k + knobs of a row: what a block keeps in shared memory


class Read(NamedTuple):
    """Knobs on the device, the largest number a row has, and of distinct latents a row turns."""

    knobs: Knobs
    most: int
    width: int


def rows(given: Rows, n_items: int, name: str) -> None:
    """Raises: ValueError: under `ops.checked`, offsets that do not rise or items out of range."""
    if not is_checking():
        return
    offsets, n = given.offsets, len(given.items)
    before = torch.cat([offsets.new_zeros(1), offsets[:-1]])
    wrong = (offsets < before) | (offsets > n)
    if bool(wrong.any()):
        at = int(wrong.int().argmax())
        raise ValueError(
            f"{name}.offsets must rise from 0 or more to at most the number of entries, {n}, got "
            f"{int(offsets[at])} at position {at}"
        )
    _ids(given.items, 0, n_items, f"{name}.items")


def code(given: Code, n_latents: int) -> None:
    """Raises: ValueError: under `ops.checked`, indices out of range."""
    if is_checking():
        _ids(given.indices, PADDING, n_latents, "code.indices")


def knobs(
    given: Knobs, n_rows: int, n_latents: int, device: torch.device, *, must_know: bool = False
) -> Read:
    """The knobs on `device`, checked as on the CPU; they may lie on the CPU, where that is free.

    While a CUDA graph is captured they cannot be read back: all entries then bound a row's.

    Raises:
        ValueError: a knob is wrong, or during capture there are too many in all.
        RuntimeError: the width must be known and a graph is being captured.
    """
    given = Knobs(*map(torch.as_tensor, given))
    if capturing() and given.latents.device == device:
        if must_know:
            raise RuntimeError(
                "steer must know how many latents the knobs turn, which a CUDA graph cannot wait "
                "for; call steer_decode, or steer before the capture"
            )
        return Read(given, min(len(given.latents), MOST_SLOTS), 0)
    host = Knobs(*(one.detach().cpu().contiguous().numpy() for one in given))
    width = _C.knob_width(*host, n_latents, n_rows)
    counts = host.offsets[1:] - host.offsets[:-1]
    moved = Knobs(*(one.to(device).contiguous() for one in given))
    return Read(moved, int(counts.max(initial=0)), width)


def capturing() -> bool:
    """Whether the current stream's work is being recorded in a CUDA graph."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _ids(ids: torch.Tensor, low: int, high: int, name: str) -> None:
    outside = (ids < low) | (ids >= high)
    if bool(outside.any()):
        at = int(outside.flatten().int().argmax())
        got = int(ids.flatten()[at])
        raise ValueError(f"{name} must lie in [{low}, {high}), got {got} at position {at}")
