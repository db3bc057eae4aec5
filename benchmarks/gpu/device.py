"""The device that is asked: a GPU, or the emulated one of tests/cuda_on_cpu for a dry run."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cfsae_fast.ops import device as ops_device

FLUSHED = 256 << 20  # bytes written between calls, so that none finds its arrays in L2


class Device:
    """Where tensors go and how calls are timed."""

    def __init__(self, emulated: Path | None) -> None:
        self.kernels = None if emulated is None else _load(emulated)
        self.place = torch.device("cpu" if emulated else "cuda")
        self.name = "emulated" if emulated else torch.cuda.get_device_name()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """The ops inside the block run on this device."""
        if self.kernels is None:
            yield
            return
        with ops_device.emulate(self.kernels):
            yield

    def wait(self) -> None:
        if self.kernels is None:
            torch.cuda.synchronize()

    def microseconds(self, call: Callable[[], Any], seconds: float, most: int = 100) -> float:
        """The median time of a call: by events, with a cold L2, after warming up."""
        if self.kernels is not None:
            return min(_clocked(call) for _ in range(2))
        for _ in range(3):
            call()
        flush = torch.empty(FLUSHED, dtype=torch.uint8, device=self.place)
        taken: list[float] = []
        end = time.perf_counter() + seconds
        while len(taken) < 10 or (len(taken) < most and time.perf_counter() < end):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush.zero_()
            start.record()
            call()
            stop.record()
            stop.synchronize()
            taken.append(1e3 * start.elapsed_time(stop))
        return sorted(taken)[len(taken) // 2]

    def recorded(self, call: Callable[[], Any]) -> Callable[[], Any] | None:
        """The call as a CUDA graph, ready to be replayed; None on the emulated device."""
        if self.kernels is not None:
            return None
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph.replay


@contextmanager
def poisoned() -> Iterator[None]:
    """Every torch.empty inside the block, results and workspaces alike, starts as NaN or 255."""
    before = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = filled


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("cfsae_emulated", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _clocked(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return 1e6 * (time.perf_counter() - start)
