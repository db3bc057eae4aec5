"""Builds the package: drives CMake + Ninja over csrc/, which gives the module cfsae_fast._C
and libcfsae_ort.so beside it, the custom ops for ONNX Runtime.

The kernels of csrc/cuda are compiled where nvcc is found (CFSAE_CUDA=0 or 1 decides otherwise);
CFSAE_CUDA_ARCHS names architectures (default 80, whose PTX runs on every later one).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
ORT_LIBRARY = "libcfsae_ort.so"


def choose_cuda() -> tuple[bool, str]:
    """Whether to compile the CUDA half, and why."""
    wanted, nvcc = os.environ.get("CFSAE_CUDA"), shutil.which("nvcc")
    kernels = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    if wanted not in (None, "0", "1"):
        raise SystemExit(f"CFSAE_CUDA must be 0 or 1, got {wanted!r}")
    if wanted == "0":
        return False, "CFSAE_CUDA=0"
    if not kernels:
        if wanted == "1":
            raise SystemExit("CFSAE_CUDA must be 0 while csrc/cuda holds no kernels, got 1")
        return False, "csrc/cuda holds no kernels"
    if wanted == "1":
        return True, "CFSAE_CUDA=1"
    if nvcc is None:
        return False, "nvcc was not found on PATH"
    return True, f"compiled by {nvcc}"


def tool(name: str) -> str:
    """The path of a build tool: beside this interpreter, or on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} must be installed to build, found none; pip install {name}")
    return found


class CMakeBuild(build_ext):
    """Configures and builds csrc/ in build/cmake-<platform>, so that a rebuild is incremental."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        cuda, why = choose_cuda()
        self.announce(f"cfsae_fast: CUDA {'on' if cuda else 'off'} ({why})", level=2)
        build = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}-{self.plat_name}"
        build.mkdir(parents=True, exist_ok=True)
        settings = {
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_MAKE_PROGRAM": tool("ninja"),
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
            "CFSAE_CUDA": "ON" if cuda else "OFF",
            "CFSAE_CUDA_WHY": why.replace(";", ","),  # CMake would read a list
            "CFSAE_CUDA_ARCHS": os.environ.get("CFSAE_CUDA_ARCHS", "80"),
            "CFSAE_VERSION": self.distribution.get_version(),
        }
        options = [f"-D{key}={value}" for key, value in settings.items()]
        cmake = tool("cmake")
        subprocess.run(
            [cmake, "-S", ROOT / "csrc", "-B", build, "-G", "Ninja", *options], check=True
        )
        subprocess.run([cmake, "--build", build], check=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(build / target.name, target)
        shutil.copy2(build / ORT_LIBRARY, target.parent / ORT_LIBRARY)

    def copy_extensions_to_source(self) -> None:
        """For an editable installation: what lies beside the module goes along with it."""
        super().copy_extensions_to_source()
        built = Path(self.build_lib) / "cfsae_fast" / ORT_LIBRARY
        shutil.copy2(built, ROOT / "cfsae_fast" / ORT_LIBRARY)


packages = find_packages(include=["cfsae_fast", "cfsae_fast.*"])
package_dir = {}
if (ROOT / "export" / "__init__.py").exists():
    packages += ["cfsae_fast.export"]
    packages += [f"cfsae_fast.export.{name}" for name in find_packages("export")]
    package_dir["cfsae_fast.export"] = "export"

setup(
    packages=packages,
    package_dir=package_dir,
    package_data={
        "cfsae_fast.serving": ["docs.html"],
        "cfsae_fast.export": ["examples/*.py", "examples/*.cpp", "examples/web/*.html"],
    },
    ext_modules=[Extension("cfsae_fast._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
