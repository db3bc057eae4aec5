"""Several ways to one answer, timed in turn in one process, so that noise meets all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from cfsae_fast import ops

SETTLE = 0.25  # seconds


class Timed(NamedTuple):
    """Milliseconds of one way."""

    p50: float
    p99: float
    count: int


def interleaved(
    ways: dict[str, Callable[[], Any]], *, seconds: float, most: int = 500, least: int = 5
) -> dict[str, Timed]:
    """Call every way in turn, in bursts, for about `seconds`: at least `least` calls each.

    Before a burst the threads of the way before get time to stop spinning (those of OpenMP and
    ONNX Runtime look for work for about 0.1 s, on a core that this way may need). The first calls
    are not counted where a call is short: they meet the caches of the way before.
    """
    bursts = {name: _burst(way) for name, way in ways.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    end = time.perf_counter() + seconds
    while any(len(one) < least for one in taken.values()) or time.perf_counter() < end:
        for name, way in ways.items():
            warm, count = bursts[name]
            time.sleep(SETTLE)
            for at in range(warm + count):
                lasted = 1e3 * _seconds(way)
                if at >= warm and len(taken[name]) < most:
                    taken[name].append(lasted)
        if all(len(one) >= most for one in taken.values()):
            break
    return {
        name: Timed(float(np.percentile(one, 50)), float(np.percentile(one, 99)), len(one))
        for name, one in taken.items()
    }


def _burst(way: Callable[[], Any]) -> tuple[int, int]:
    """How many calls to leave out and to count: about 50 ms together; long calls one by one."""
    way()
    lasted = _seconds(way)
    return (0, 1) if lasted > 0.1 else (3, max(1, int(0.05 / max(lasted, 1e-4))))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """The same number of threads for the engine and for torch."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    ops.set_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        ops.set_threads(0)


def gigabytes_per_second(count: int) -> float:
    """What torch reads from memory on so many threads: a sum over 512 MiB, the best of five."""
    import torch

    with threads(count):
        memory = torch.ones(1 << 27)
        best = min(_seconds(memory.sum) for _ in range(5))
    return 4 * memory.numel() / best / 1e9


def gigaflops(count: int) -> float:
    """Operations per second of torch's fp32 matrix product (2048 x 2048), the best of five."""
    import torch

    with threads(count):
        left, right = torch.ones(2048, 2048), torch.ones(2048, 2048)
        best = min(_seconds(lambda: left @ right) for _ in range(5))
    return 2 * 2048**3 / best / 1e9


def _seconds(way: Callable[[], Any]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start
