"""Builds the engine with its kernels for the GPU of this machine, with cmake, ninja and pybind11.

Nothing is installed: the module is laid into the source tree, where the Python that runs finds it.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def build(arch: str = "native") -> Path:
    """cfsae_fast/_C.*.so with kernels for `arch`, as CMAKE_CUDA_ARCHITECTURES takes it.

    Raises:
        RuntimeError: a tool is missing, or the build failed; the message says which and how.
    """
    module = f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    folder = ROOT / "build" / f"gpu-{sys.implementation.cache_tag}"
    settings = {
        "CMAKE_BUILD_TYPE": "Release",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": _pybind11(),
        "CFSAE_CUDA": "ON",
        "CFSAE_CUDA_WHY": "make gpu",
        "CFSAE_CUDA_ARCHS": arch,
        "CFSAE_VERSION": (ROOT / "cfsae_fast" / "_version.py").read_text().split('"')[1],
    }
    options = [f"-D{key}={value}" for key, value in settings.items()]
    _run([_tool("cmake"), "-S", ROOT / "csrc", "-B", folder, "-G", "Ninja", *options])
    _run([_tool("cmake"), "--build", folder, "--target", "_C"])
    return Path(shutil.copy2(folder / module, ROOT / "cfsae_fast" / module))


def _pybind11() -> str:
    if importlib.util.find_spec("pybind11") is None:
        raise RuntimeError("pybind11 must be installed for this Python, found none")
    import pybind11

    return pybind11.get_cmake_dir()


def _tool(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None or shutil.which("nvcc") is None:
        raise RuntimeError(f"{name} and nvcc must be on PATH to build the kernels")
    return found


def _run(command: list) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{done.stdout[-4000:]}"
                           f"{done.stderr[-2000:]}")  # fmt: skip
