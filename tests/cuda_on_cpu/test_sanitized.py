"""The same kernels under AddressSanitizer, which watches the host code and every stack as well.

Each runs in a process of its own: the sanitizer's runtime must be loaded before everything else.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import building
import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(not building.has_compiler(), reason="no C++ compiler")


def path_of(library: str) -> str:
    command = [building.COMPILER, f"-print-file-name={library}"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(path).is_absolute():
        pytest.skip(f"the compiler has no {library}")
    return path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    libraries = [path_of("libasan.so"), path_of("libstdc++.so")]  # the latter: for exceptions
    environment = os.environ | {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "CFSAE_EMULATOR": "asan",
    }
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, cwd=HERE
    )


def test_a_planted_overrun_is_found():
    library = building.build_planted("asan")
    script = f"import ctypes; ctypes.CDLL({str(library)!r}).planted_run({{!r}}, 1, 0)"
    assert run("-c", script.format(b"right")).returncode == 0
    done = run("-c", script.format(b"device_overrun"))
    assert done.returncode != 0
    assert "use-after-poison" in done.stderr


def test_kernels_are_clean():
    building.build("asan")
    ids = [f"{name}[{seed}]" for seed in (1, 2, 4) for name in
           ("test_encode_rows_and_backward", "test_sparse_decode_and_backward",
            "test_steer_and_steer_decode", "test_topk_encode_backward")]  # fmt: skip
    ids += [f"{name}[{seed}-1]" for seed in (4, 5) for name in
            ("test_topk_encode", "test_recommend")]  # fmt: skip
    done = run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
               *(f"test_kernels.py::{name}" for name in ids))  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
