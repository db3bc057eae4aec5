"""Compiles the kernels with g++ against the emulator, once per change of any source.

Flavours: "checked" (every load and store is looked at, see emulator/memory.h), "asan"
(AddressSanitizer instead, which also sees the host code's heap and stacks) and "plain" (neither,
and faster: for tests of what stands above the kernels).
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COMPILER = os.environ.get("CXX", "g++")

COMMON = ["-std=c++17", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas",
          f"-I{ROOT / 'csrc'}", f"-I{HERE}"]  # fmt: skip
KERNELS = {
    "checked": ["-O1", "-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0",
                "-fsanitize=bounds-strict", "-fno-aggressive-loop-optimizations"],
    "asan": ["-O1", "-g", "-fsanitize=address"],
    "plain": ["-O2", "-DEMULATOR_UNCHECKED"],
}  # fmt: skip
EMULATOR = {
    "checked": ["-O2"],
    "asan": ["-O1", "-g", "-fsanitize=address"],
    "plain": ["-O2", "-DEMULATOR_UNCHECKED"],
}
LINK = {"checked": [], "asan": ["-fsanitize=address"], "plain": []}
MODULE = "cfsae_emulated"
RUNTIME = "cfsae_ort_emulated"
MUTANTS = "mutants"
RUNTIME_DOOR = ["device_ops", "door", "folded_ops", "knobs", "ops", "parallel"]


def has_compiler() -> bool:
    return shutil.which(COMPILER) is not None


def build(flavour: str = "checked") -> Path:
    """The shared library of all kernels."""
    return _library(
        flavour, "kernels", sorted((ROOT / "csrc" / "cuda").glob("*.cu")), ROOT / "csrc"
    )


def build_mutants(csrc: Path) -> Path:
    """The kernels of a copy of csrc that asks mutation.h what is broken."""
    return _library("checked", MUTANTS, sorted((csrc / "cuda").glob("*.cu")), csrc)


def build_for_gpu() -> Path:
    """The kernels compiled by nvcc for the GPU of this machine, behind the same door."""
    target = ROOT / "build" / "cuda_on_cpu" / "gpu" / "kernels.so"
    target.parent.mkdir(parents=True, exist_ok=True)
    sources = [*sorted((ROOT / "csrc" / "cuda").glob("*.cu")), HERE / "real_device.cu"]
    flags = ["-O3", "-std=c++17", f"-I{ROOT / 'csrc'}", f"-I{HERE}", "-Xcompiler", "-fPIC"]
    arch = os.environ.get("CFSAE_CUDA_ARCH", "native")
    _run(["nvcc", f"-arch={arch}", *flags, "-shared", "-o", target, *sources, HERE / "door.cpp"])
    return target


def build_planted(flavour: str = "checked") -> Path:
    """The library of the kernels with planted bugs, for the emulator's own tests."""
    return _library(flavour, "planted", [HERE / "planted.cu"], ROOT / "csrc")


def load_module() -> ModuleType:
    """The kernels as cfsae_fast._C.cuda has them, over the emulated device."""
    path = _library("plain", MODULE, sorted((ROOT / "csrc" / "cuda").glob("*.cu")), ROOT / "csrc")
    spec = importlib.util.spec_from_file_location(MODULE, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_custom_ops() -> Path:
    """The CUDA nodes of libcfsae_ort over the emulated device, for a session without a GPU."""
    return _library("plain", RUNTIME, sorted((ROOT / "csrc" / "cuda").glob("*.cu")), ROOT / "csrc")


def _door(name: str, csrc: Path) -> list[tuple[Path, list[str]]]:
    """What stands between Python and the kernels, and its flags."""
    if name == "planted":
        return []
    if name == RUNTIME:  # the linker drops the nodes of the CPU, and the engine with them
        runtime = [csrc / "onnxruntime" / f"{one}.cpp" for one in RUNTIME_DOOR]
        flags = ["-fvisibility=hidden", "-ffunction-sections", "-fdata-sections"]
        return [(path, flags) for path in (*runtime, HERE / "emulated_runtime.cpp")]
    if name == MUTANTS:
        return [(HERE / "door.cpp", []), (HERE / "mutation.cpp", [])]
    if name != MODULE:
        return [(HERE / "door.cpp", [])]
    import pybind11

    include = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
    flags = [*include, "-fvisibility=hidden"]
    sources = sorted((csrc / "python").glob("device_*.cpp"))
    return [(path, flags) for path in (*sources, HERE / "emulated_module.cpp")]


def _library(flavour: str, name: str, kernels: list[Path], csrc: Path) -> Path:
    folder = ROOT / "build" / "cuda_on_cpu" / f"{name}-{flavour}"
    folder.mkdir(parents=True, exist_ok=True)
    headers = [*csrc.glob("*.h"), *(csrc / "cuda").glob("*.h"), *HERE.glob("*.h"),
               *HERE.glob("emulator/*.h"),
               *(csrc / "python").glob("device_*.h"),
               *(csrc / "onnxruntime").glob("*.h")]  # fmt: skip
    common = [f"-I{csrc}", *COMMON]
    asking = ["-include", HERE / "mutation.h", "-w"] if name == MUTANTS else []
    jobs = [(path, ["-x", "c++", *KERNELS[flavour], *common, *asking]) for path in kernels]
    left_out = [] if flavour == "checked" else ["instrumentation.cpp"]
    left_out += ["controls.cpp"] if name in (MODULE, RUNTIME) else []
    emulator = [path for path in HERE.glob("emulator/*.cpp") if path.name not in left_out]
    others = [(path, []) for path in emulator] + _door(name, csrc)
    jobs += [(path, [*flags, *EMULATOR[flavour], *common]) for path, flags in others]
    shared = _digest(headers)
    with open(folder / "lock", "w") as lock, ThreadPoolExecutor(2) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)  # parallel test processes build once
        objects = list(pool.map(lambda job: _compile(*job, folder, shared), jobs))
        library = folder / f"{_digest(objects)}.so"
        if not library.exists():
            for old in folder.glob("*.so"):
                old.unlink()
            unused = ["-Wl,--gc-sections"] if name == RUNTIME else []
            _run([COMPILER, "-shared", *unused, *LINK[flavour], "-o", library, *objects])
    return library


def _compile(path: Path, flags: list[str], folder: Path, shared: str) -> Path:
    digest = hashlib.sha256((shared + " ".join(map(str, flags))).encode())
    digest.update(path.read_bytes())
    target = folder / f"{path.name}-{digest.hexdigest()[:16]}.o"
    if not target.exists():
        for old in folder.glob(f"{path.name}-*.o"):
            old.unlink()
        _run([COMPILER, *flags, "-c", path, "-o", target])
    return target


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _run(command: list) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr[-4000:]}")
