"""The emulated device behind the ops: tensors on the CPU stand in for tensors on CUDA."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "cuda_on_cpu"))

import building  # noqa: E402


@pytest.fixture(scope="session")
def kernels():
    if not building.has_compiler():
        pytest.skip("no C++ compiler")
    return building.load_module()


@pytest.fixture
def emulated(kernels):
    """Sends the ops of the test to the emulated device; gives its controls."""
    from cfsae_fast.ops import device

    kernels.begin()
    with device.emulate(kernels):
        yield kernels
    kernels.begin()
