"""What nvcc makes of the kernels, for every architecture: no warning, no spill, and the budgets.

csrc/cuda/budgets.json states for every kernel its registers and static shared memory at most, and
how many blocks of `threads` and `dynamic` bytes of shared memory an SM of every architecture must
hold at once; `instructions`: what its machine code must contain. A kernel that is not in it, or a
budget without a kernel, fails. Compiled once per change of any source.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
BUDGETS = json.loads((ROOT / "csrc" / "cuda" / "budgets.json").read_text())
FLAGS = ["-std=c++17", "-O3", f"-I{ROOT / 'csrc'}", "-Werror", "all-warnings"]

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc was not found on PATH")


class Multiprocessor(NamedTuple):
    """What the blocks on one SM share (CUDA C++ programming guide, technical specifications)."""

    warps: int
    blocks: int
    shared: int  # KB; each block takes 1 KB more than it asks for
    registers: int = 65536


ARCHITECTURES = {
    80: Multiprocessor(64, 32, 164),
    86: Multiprocessor(48, 16, 100),
    89: Multiprocessor(48, 24, 100),
    90: Multiprocessor(64, 32, 228),
    100: Multiprocessor(64, 32, 228),
    120: Multiprocessor(48, 24, 100),
}


def blocks_on(sm: Multiprocessor, registers: int, shared: int, threads: int) -> int:
    """How many blocks an SM holds; a warp takes registers by 256."""
    warps = -(-threads // 32)
    of_warp = -(-registers * 32 // 256) * 256
    return min(
        sm.blocks, sm.warps // warps, sm.registers // of_warp // warps,
        (sm.shared << 10) // (shared + 1024),
    )  # fmt: skip


def nvcc(source: Path, target: Path, *flags: str) -> str:
    done = subprocess.run(
        ["nvcc", *FLAGS, *flags, str(source), "-o", str(target)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def kernel_name(mangled: str) -> str:
    """The kernel's own name, with the first template argument: scan_kernel<64,Tf32Product>."""
    name = re.search(r"\d+([a-z0-9_]*?_kernel)(I.*)?", mangled.split("_cu_", 1)[1][8:])
    assert name, mangled
    arguments = re.findall(r"ILi(\d+)E(?:NS0_\d+([A-Za-z0-9]+?)ILi)?", name[2] or "")[:1]
    inside = ",".join(word for word in (arguments[0] if arguments else ()) if word)
    return name[1] + (f"<{inside}>" if inside else "")


def usage_of(log: str) -> dict[str, dict[str, dict[str, int]]]:
    """Per architecture and kernel: registers, static shared memory and bytes spilled."""
    pattern = re.compile(
        r"Compiling entry function '(\S+)' for 'sm_(\d+)'.*?(\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers(?:[^\n]*?(\d+) bytes smem)?",
        re.S,
    )
    found: dict[str, dict[str, dict[str, int]]] = {}
    for name, arch, stores, loads, registers, shared in pattern.findall(log):
        found.setdefault(arch, {})[kernel_name(name)] = {
            "registers": int(registers),
            "shared": int(shared or 0),
            "spilled": int(stores) + int(loads),
        }
    return found


def compiled(source: Path) -> Path:
    """A folder with the fat binary of one source, for all architectures, and what ptxas said."""
    digest = hashlib.sha256(source.read_bytes())
    for header in sorted((ROOT / "csrc").rglob("*.h")):
        digest.update(header.read_bytes())
    folder = ROOT / "build" / "cuda_on_cpu" / "compiled" / source.stem
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # parallel test processes compile once
        stamp = folder / "digest"
        if stamp.exists() and stamp.read_text() == digest.hexdigest():
            return folder
        targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in ARCHITECTURES]
        newest = max(ARCHITECTURES)
        targets.append(f"-gencode=arch=compute_{newest},code=compute_{newest}")
        log = nvcc(source, folder / "kernels.fatbin", "-fatbin", "-Xptxas", "-v", *targets)
        (folder / "log").write_text(log)
        stamp.write_text(digest.hexdigest())
    return folder


@pytest.fixture(scope="module")
def usage() -> dict[str, dict[str, dict[str, int]]]:
    found: dict[str, dict[str, dict[str, int]]] = {str(arch): {} for arch in ARCHITECTURES}
    with ThreadPoolExecutor(2) as pool:
        for folder in pool.map(compiled, SOURCES):
            for arch, kernels in usage_of((folder / "log").read_text()).items():
                found[arch] |= kernels
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_kernel_has_a_budget_on_every_architecture(usage):
    for arch, kernels in usage.items():
        assert sorted(kernels) == sorted(BUDGETS), arch


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_kernels_stay_within_their_budget(usage, arch):
    over = {}
    for name, used in usage[str(arch)].items():
        budget = BUDGETS[name]
        shared = used["shared"] + budget["dynamic"]
        sizes = used["registers"], shared, budget["threads"]
        used["blocks"] = blocks_on(ARCHITECTURES[arch], *sizes)
        if (
            used["spilled"] > 0
            or used["registers"] > budget["registers"]
            or used["shared"] > budget["shared"]
            or used["blocks"] < budget["blocks"]
        ):
            over[name] = used
    assert not over


def test_occupancy_is_that_of_the_guide():
    a100, rtx4090 = ARCHITECTURES[80], ARCHITECTURES[89]
    assert blocks_on(a100, 32, 0, 256) == 8  # 64 warps
    assert blocks_on(a100, 128, 0, 256) == 2  # 65536 registers
    assert blocks_on(a100, 33, 0, 1024) == 1  # 40 a thread after rounding
    assert blocks_on(rtx4090, 16, 48 << 10, 64) == 2  # 100 KB of shared memory
    assert blocks_on(rtx4090, 16, 0, 32) == 24


def cuobjdump() -> str | None:
    """The tool and the disassembler it calls: on PATH, or of PyPI's nvidia-cuda-cuobjdump."""
    import site

    found = shutil.which("cuobjdump")
    for folder in site.getsitepackages():
        beside = Path(folder) / "nvidia" / "cu13" / "bin"
        if found is None and (beside / "cuobjdump").exists() and (beside / "nvdisasm").exists():
            found = str(beside / "cuobjdump")
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(cuobjdump() is None, reason="cuobjdump was not found")
def test_machine_code_holds_the_instructions_of_the_design():
    """Tensor cores and asynchronous copies where the budget names them, and nowhere else."""
    tool = cuobjdump()
    wanted = {name: set(budget.get("instructions", [])) for name, budget in BUDGETS.items()}
    environment = os.environ | {"PATH": f"{Path(tool).parent}:{os.environ['PATH']}"}
    for source in SOURCES:
        binary = compiled(source) / "kernels.fatbin"
        done = subprocess.run([tool, "-sass", str(binary)], capture_output=True, text=True,
                              env=environment, check=True)  # fmt: skip
        for body in done.stdout.split("Function : ")[1:]:
            name = kernel_name(body.split()[0])
            there = {word for word in ("HMMA", "LDGSTS") if re.search(rf"\b{word}\b", body)}
            assert there == wanted[name], name


def test_the_scan_uses_tensor_cores_and_asynchronous_copies(tmp_path):
    target = tmp_path / "top_scan.ptx"
    nvcc(ROOT / "csrc" / "cuda" / "top_scan.cu", target, "-arch=compute_80", "-ptx")
    ptx = target.read_text()
    assert re.search(r"wmma\.mma\.sync\S*m16n16k8\S*tf32", ptx)
    assert re.search(r"wmma\.mma\.sync\S*m16n16k16\S*bf16", ptx)
    assert re.search(r"cp\.async\.c[ag]\.shared\.global", ptx)
    kernels = ptx.split(".entry ")[1:]
    fp32 = [body for body in kernels if "Fp32Product" in body.split("(", 1)[0]]
    assert fp32
    assert not any("wmma" in body for body in fp32)
