"""What nvcc makes of the kernels: no warning, no spill, registers and shared memory in budget.

csrc/cuda/budgets.json holds the budget of every kernel for sm_80; a kernel that is not in it, or a
budget without a kernel, fails. Every other architecture is compiled under the `slow` marker.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
BUDGETS = json.loads((ROOT / "csrc" / "cuda" / "budgets.json").read_text())
ARCHITECTURES = [80, 86, 89, 90, 100, 120]
FLAGS = ["-std=c++17", "-O3", f"-I{ROOT / 'csrc'}", "-Werror", "all-warnings"]

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc was not found on PATH")


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


def usage_of(log: str) -> dict[str, dict[str, int]]:
    """Per kernel: registers, static shared memory and bytes spilled, as ptxas says them."""
    pattern = re.compile(
        r"Compiling entry function '(\S+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers(?:[^\n]*?(\d+) bytes smem)?",
        re.S,
    )
    return {
        kernel_name(name): {
            "registers": int(registers),
            "shared": int(shared or 0),
            "spilled": int(stores) + int(loads),
        }
        for name, stores, loads, registers, shared in pattern.findall(log)
    }


@pytest.fixture(scope="module")
def usage(tmp_path_factory) -> dict[str, dict[str, int]]:
    folder = tmp_path_factory.mktemp("cubin")
    flags = ["-arch=sm_80", "-cubin", "-Xptxas", "-v"]
    with ThreadPoolExecutor(2) as pool:
        logs = pool.map(lambda path: nvcc(path, folder / f"{path.stem}.cubin", *flags), SOURCES)
    found: dict[str, dict[str, int]] = {}
    for log in logs:
        found |= usage_of(log)
    return found


def test_every_kernel_has_a_budget(usage):
    assert sorted(usage) == sorted(BUDGETS)


def test_kernels_stay_within_their_budget(usage):
    over = {
        name: used
        for name, used in usage.items()
        if used["spilled"] > 0
        or used["registers"] > BUDGETS[name]["registers"]
        or used["shared"] > BUDGETS[name]["shared"]
    }
    assert not over


def test_the_scan_uses_tensor_cores_and_asynchronous_copies(tmp_path):
    target = tmp_path / "top_scan.ptx"
    nvcc(ROOT / "csrc" / "cuda" / "top_scan.cu", target, "-arch=compute_80", "-ptx")
    ptx = target.read_text()
    assert re.search(r"wmma\.mma\.sync\S*m16n16k8\S*tf32", ptx)
    assert re.search(r"cp\.async\.c[ag]\.shared\.global", ptx)
    kernels = ptx.split(".entry ")[1:]
    fp32 = [body for body in kernels if "Fp32Product" in body.split("(", 1)[0]]
    assert fp32
    assert not any("wmma" in body for body in fp32)


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_architecture_compiles_without_a_warning_or_a_spill(source, tmp_path):
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in ARCHITECTURES]
    ptx = f"-gencode=arch=compute_{ARCHITECTURES[-1]},code=compute_{ARCHITECTURES[-1]}"
    log = nvcc(source, tmp_path / "kernels.fatbin", "-fatbin", "-Xptxas", "-v", *targets, ptx)
    assert not re.search(r"[1-9]\d* bytes spill", log), log
