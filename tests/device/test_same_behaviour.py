"""The behaviour suite of the ops, asked of the kernels: see tests/ops/conftest.py.

Left out: thread counts and instruction sets, which a device has none of, and gradients at the two
largest shapes, which take the emulator long and differ from the smaller ones in nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import building
import pytest

OPS = Path(__file__).parent.parent / "ops"


LEFT_OUT = "threads or avx or (gradients and (shape6 or shape7))"


@pytest.mark.parametrize(
    "name", ["encode_rows", "topk_encode", "sparse_decode", "steer", "recommend"]
)
def test_the_ops_behave_as_on_the_cpu(name):
    if not building.has_compiler():
        pytest.skip("no C++ compiler")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
         "--device", "emulated", "-k", f"not ({LEFT_OUT})", str(OPS / f"test_{name}.py")],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
