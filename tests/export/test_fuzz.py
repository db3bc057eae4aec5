"""The custom ops under AddressSanitizer and UBSan, asked thousands of wrong requests for a minute:
half of it good files, half tampered ones.

CFSAE_FUZZ_SECONDS=600 fuzzes longer; the seed is the time, stands in what a failure says, and comes
again by CFSAE_FUZZ_SEED.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cfsae_fast import export
from tests.export.networks import make_fitted

pytest.importorskip("onnxruntime")
ROOT = Path(__file__).parent.parent.parent
SECONDS = os.environ.get("CFSAE_FUZZ_SECONDS", "30")  # of each test
SEED = int(os.environ.get("CFSAE_FUZZ_SEED", time.time()))
FLAGS = "-g -fsanitize=address,undefined -fno-sanitize-recover=undefined"


def sanitizers() -> list[str] | None:
    """The sanitizers' runtimes, which must be loaded before Python's own."""
    if shutil.which("g++") is None:
        return None
    names = ("libasan.so", "libubsan.so")
    asked = [["g++", f"-print-file-name={name}"] for name in names]
    found = [subprocess.run(one, capture_output=True, text=True).stdout.strip() for one in asked]
    return found if all(Path(one).is_absolute() for one in found) else None


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),  # the library is built first
    pytest.mark.skipif(sanitizers() is None, reason="g++ with AddressSanitizer is not installed"),
]


@pytest.fixture(scope="module")
def library():
    """Built once for all test processes, and anew where sources changed."""
    import pybind11

    folder = ROOT / "build" / "asan"
    folder.mkdir(parents=True, exist_ok=True)
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
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        where = ["-S", ROOT / "csrc", "-B", folder, "-G", "Ninja"]
        subprocess.run([cmake, *where, *options], check=True)
        subprocess.run([cmake, "--build", folder, "--target", "cfsae_ort"], check=True)
    return folder / "libcfsae_ort.so"


def test_no_request_touches_foreign_memory(exported, library, tmp_path):
    """Small models, and ones that are large enough for the 8-bit screens."""
    paths = [path for _, path in small(exported)]
    for folded in (False, True):
        fitted = make_fitted(n_items=4100, d=64, n_latents=4100)
        options = {"mode": "reconstruct", "folded": folded, "with_code": True}
        paths.append(export.to_onnx(fitted, tmp_path / f"{folded}.onnx", **options))
    asked, answered = fuzz(library, paths)
    assert 0 < answered < asked and asked > 100


def test_no_tampered_file_touches_foreign_memory(exported, library, tmp_path):
    """Weights of other shapes and any bits, attributes of any size; good and wrong requests."""
    models = enumerate(small(exported))
    paths = [one for at, (_, path) in models for one in tampered(path, tmp_path, at)]
    asked, _ = fuzz(library, paths)
    assert asked > 100


def small(exported):
    return [
        exported.model("elsa", "topk", "residual"),
        exported.model("elsa", "topk", "reconstruct", True),
    ]


def tampered(path, folder, seed: int, count: int = 16) -> list[Path]:
    """Copies of a model, each with one initializer or attribute that is not what was exported."""
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng([seed, SEED])
    written = []
    for at in range(count):
        model = onnx.load(path)
        (change_attribute if at % 4 == 3 else change_weight)(onnx, model, rng)
        written.append(folder / f"{seed}-{at}.onnx")
        onnx.save(model, written[-1])
    return written


def change_attribute(onnx, model, rng) -> None:
    ours = [one for node in model.graph.node if node.domain for one in node.attribute]
    one = ours[int(rng.integers(len(ours)))]
    if one.type == onnx.AttributeProto.FLOAT:
        one.f = float(rng.choice([np.nan, np.inf, -1, 1e30]))
    else:
        one.i = int(rng.choice([-(2**63), -1, 0, 1, 95, 97, 2**31, 2**40, 2**63 - 1]))


def change_weight(onnx, model, rng) -> None:
    one = model.graph.initializer[int(rng.integers(len(model.graph.initializer)))]
    array = onnx.numpy_helper.to_array(one)
    if rng.random() < 0.5 and array.ndim:
        array = array[: rng.integers(0, len(array) + 1)]
    else:
        array = np.frombuffer(rng.bytes(array.nbytes), array.dtype).reshape(array.shape)
    one.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), one.name))


def fuzz(library: Path, models: list[Path]) -> tuple[int, int]:
    """How many requests were asked and answered; fails where the process did."""
    script = Path(__file__).with_name("fuzz.py")
    done = subprocess.run(
        [sys.executable, script, library, SECONDS, str(SEED), *models],
        env={
            **os.environ,
            "LD_PRELOAD": " ".join(sanitizers()),
            "ASAN_OPTIONS": "detect_leaks=0",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"CFSAE_FUZZ_SEED={SEED}: {done.stderr[-3000:]}"
    asked, answered = map(int, done.stdout.split())
    return asked, answered
