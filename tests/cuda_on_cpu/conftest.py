"""One emulated device per flavour of the build."""

from __future__ import annotations

import os
from pathlib import Path

import building
import pytest
from kernels import Device


@pytest.fixture(scope="session")
def device() -> Device:
    if not building.has_compiler():
        pytest.skip("no C++ compiler")
    mutant = os.environ.get("CFSAE_CUDA_CSRC")  # set by mutants.py
    if mutant:
        return Device(building.build(csrc=Path(mutant), name="mutant"))
    flavour = os.environ.get("CFSAE_EMULATOR", "checked")
    return Device(building.build_for_gpu() if flavour == "gpu" else building.build(flavour))
