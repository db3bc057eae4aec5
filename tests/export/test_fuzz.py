"""The custom ops under AddressSanitizer and UBSan, asked thousands of wrong requests.

CFSAE_FUZZ_SECONDS=600 fuzzes longer; the seed is the time, and stands in what a failure says.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
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
    models = [exported.model("elsa", "topk", "residual"), folded(exported)]
    seconds = os.environ.get("CFSAE_FUZZ_SECONDS", "10")
    asked, answered = fuzz(library, [path for _, path in models], seconds)
    assert 0 < answered < asked and asked > 100


@pytest.mark.slow
@pytest.mark.skipif(sanitizers() is None, reason="g++ with AddressSanitizer is not installed")
def test_no_tampered_weight_touches_foreign_memory(exported, library, tmp_path):
    """Files whose initializers have other shapes and any bits, asked good and wrong requests."""
    seconds = os.environ.get("CFSAE_FUZZ_SECONDS", "10")
    models = [exported.model("elsa", "topk", "residual"), folded(exported)]
    paths = [one for at, (_, path) in enumerate(models) for one in tampered(path, tmp_path, at)]
    asked, _ = fuzz(library, paths, seconds)
    assert asked > 100


def folded(exported):
    return exported.model("elsa", "topk", "reconstruct", True)


def tampered(path, folder, seed: int, count: int = 12) -> list[Path]:
    """Copies of a model, each with one initializer of another shape or of random bits."""
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng(seed)
    written = []
    for at in range(count):
        model = onnx.load(path)
        one = model.graph.initializer[int(rng.integers(len(model.graph.initializer)))]
        array = onnx.numpy_helper.to_array(one)
        if rng.random() < 0.5 and array.ndim:
            array = array[: rng.integers(0, len(array) + 1)]
        else:
            noise = rng.bytes(array.nbytes)
            array = np.frombuffer(noise, array.dtype).reshape(array.shape)
        one.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), one.name))
        written.append(folder / f"{seed}-{at}.onnx")
        onnx.save(model, written[-1])
    return written


def fuzz(library: Path, models: list[Path], seconds: str) -> tuple[int, int]:
    """How many requests were asked and answered; fails where the process did."""
    seed = str(int(time.time()))
    script = Path(__file__).with_name("fuzz.py")
    done = subprocess.run(
        [sys.executable, script, library, seconds, seed, *models],
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
    return asked, answered
