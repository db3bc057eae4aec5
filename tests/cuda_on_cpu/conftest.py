"""One emulated device per flavour of the build."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import building
import pytest
from kernels import Device


@cache
def the_device() -> Device:
    mutants = os.environ.get("CFSAE_CUDA_CSRC")  # set by mutants.py
    if mutants:
        return Device(building.build_mutants(Path(mutants)))
    flavour = os.environ.get("CFSAE_EMULATOR", "checked")
    return Device(building.build_for_gpu() if flavour == "gpu" else building.build(flavour))


@pytest.fixture(scope="session")
def device() -> Device:
    if not building.has_compiler():
        pytest.skip("no C++ compiler")
    return the_device()
