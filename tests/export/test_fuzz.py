"""The custom ops under AddressSanitizer and UBSan, asked thousands of wrong requests.

CFSAE_FUZZ_SECONDS=600 fuzzes longer; the seed is the time, and stands in what a failure says.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
CSRC = Path(__file__).parent.parent.parent / "csrc"
FLAGS = "-g -fsanitize=address,undefined -fno-sanitize-recover=undefined"


def sanitizers() -> list[str] | None:
    """The sanitizers' runtimes, which must be loaded before Python's own."""
    if shutil.which("g++") is None:
        return None
    names = ("libasan.so", "libubsan.so")
    asked = [["g++", f"-print-file-name={name}"] for name in names]
    found = [subprocess.run(one, capture_output=True, text=True).stdout.strip() for one in asked]
    return found if all(Path(one).is_absolute() for one in found) else None


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    import pybind11

    folder = tmp_path_factory.mktemp("asan")
    tools = Path(sys.executable).parent
    settings = {
        "CMAKE_BUILD_TYPE": "None",
        "CMAKE_CXX_FLAGS": FLAGS,
        "CMAKE_MAKE_PROGRAM": shutil.which("ninja", path=tools) or shutil.which("ninja"),
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }
    cmake = shutil.which("cmake", path=tools) or shutil.which("cmake")
    options = [f"-D{name}={value}" for name, value in settings.items()]
    subprocess.run([cmake, "-S", CSRC, "-B", folder, "-G", "Ninja", *options], check=True)
    subprocess.run([cmake, "--build", folder, "--target", "cfsae_ort"], check=True)
    return folder / "libcfsae_ort.so"


@pytest.mark.slow
@pytest.mark.skipif(sanitizers() is None, reason="g++ with AddressSanitizer is not installed")
def test_no_request_touches_foreign_memory(exported, library):
    _, model = exported.model("elsa", "topk", "residual")
    seconds = os.environ.get("CFSAE_FUZZ_SECONDS", "10")
    seed = str(int(time.time()))
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("fuzz.py"), model, library, seconds, seed],
        env={
            **os.environ,
            "LD_PRELOAD": " ".join(sanitizers()),
            "ASAN_OPTIONS": "detect_leaks=0",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-3000:]}"
    asked, answered = map(int, done.stdout.split())
    assert 0 < answered < asked and asked > 100
