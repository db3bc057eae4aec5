"""`--device emulated`: the same tests, on the CUDA kernels compiled for an emulated device;
`--device cuda`: on those of a real one.

Arrays go to the ops as tensors and come back as arrays, and rows and codes are checked as on the
CPU, so that a test cannot tell which engine answered.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from cfsae_fast import ops

OPS = ("encode_rows", "topk_encode", "sparse_decode", "steer", "steer_decode", "recommend")


def pytest_addoption(parser):
    parser.addoption("--device", choices=["cpu", "emulated", "cuda"], default="cpu")


def as_tensors(value, place):
    import torch

    if isinstance(value, tuple):
        parts = [as_tensors(one, place) for one in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value).copy()).to(place)
    return value


def as_arrays(value):
    if isinstance(value, tuple):
        return type(value)(*map(as_arrays, value))
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def on_tensors(op, place):
    def call(*arguments, **options):
        given = (*arguments, *options.values())
        first = next(one[0] if isinstance(one, tuple) else one for one in given)
        if not isinstance(first, np.ndarray):
            return op(*arguments, **options)
        moved = {name: as_tensors(one, place) for name, one in options.items()}
        return as_arrays(op(*as_tensors(arguments, place), **moved))

    return call


@pytest.fixture(autouse=True)
def chosen_device(request, monkeypatch):
    """Sends the ops of every test to the device that the command line asks for."""
    chosen = request.config.getoption("--device", default="cpu")
    if chosen == "cpu":
        yield
        return
    sys.path.insert(0, str(Path(__file__).parent.parent / "cuda_on_cpu"))
    import building

    from cfsae_fast.ops import device

    place = "cuda" if chosen == "cuda" else "cpu"
    for name in OPS:
        monkeypatch.setattr(ops, name, on_tensors(getattr(ops, name), place))
    kernels = None if chosen == "cuda" else building.load_module()
    with device.emulate(kernels), ops.checked():
        yield
