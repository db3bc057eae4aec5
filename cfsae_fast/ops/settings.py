"""Floor 1: how many threads the engine takes, what it checks, and what it was built of.

Station: none of its own; every op of the story asks here when it is given threads=0.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cfsae_fast import _C

_default_threads = 0  # 0: not set
_isa = "best"
_checking = False


def set_threads(threads: int) -> None:
    """Set the thread count that ops take by default; 0 goes back to the machine's own.

    Raises:
        ValueError: threads is negative.
    """
    global _default_threads
    if threads < 0:
        raise ValueError(f"threads must be 0 or more, got {threads}")
    _default_threads = int(threads)


def get_threads() -> int:
    """The thread count of an op called with threads=0.

    That of set_threads; else torch's, if torch is loaded; else the CPUs this process may use.
    """
    if _default_threads > 0:
        return _default_threads
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        return torch.get_num_threads()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def execution(threads: int) -> tuple[int, str]:
    """The thread count and instruction set that a call to the engine takes.

    Raises:
        ValueError: threads is negative.
    """
    if threads < 0:
        raise ValueError(f"threads must be 0 (the default) or more, got {threads}")
    return threads or get_threads(), _isa


@contextmanager
def force_isa(isa: str) -> Iterator[None]:
    """Run the ops inside the block on one instruction set: baseline, avx2 or avx512 (for tests).

    Raises:
        ValueError: this machine lacks it.
    """
    global _isa
    known = _C.build_info()["isa"]
    if isa not in known:
        raise ValueError(f"isa must be one of {known}, got {isa!r}")
    before, _isa = _isa, isa
    try:
        yield
    finally:
        _isa = before


@contextmanager
def one_pool() -> Iterator[None]:
    """Run this thread's ops inside the block on torch's threads, where those are GNU OpenMP's.

    For training, where torch's loops and the engine's take turns: a thread of OpenMP looks for work
    for milliseconds after each loop, on the core that a thread of the engine's own would need.
    """
    before = _C.use_openmp(True)
    try:
        yield
    finally:
        _C.use_openmp(before)


@contextmanager
def checked() -> Iterator[None]:
    """Read rows and codes on a CUDA device back before each op and check them, as on the CPU.

    For finding a mistake: each op waits for the device. Without it an id out of range counts as
    padding there, and offsets are trusted.
    """
    global _checking
    before, _checking = _checking, True
    try:
        yield
    finally:
        _checking = before


def is_checking() -> bool:
    return _checking


def build_info() -> dict[str, Any]:
    """What was built: version, isa (all that run here), isa_used, cuda, why, compiler."""
    info = dict(_C.build_info())
    if _isa != "best":
        info["isa_used"] = _isa
    return info
