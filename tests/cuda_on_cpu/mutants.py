"""Mutation check of the kernels: break one line at a time and ask whether a test notices.

    python tests/cuda_on_cpu/mutants.py [--kind barriers|bounds|all] [--share 1.0] [--json FILE]
                                        [--files top_scan.cu ...]

barriers: each barrier, warp sync and wait is taken out. bounds: each `<` becomes `<=`, each `<=`
becomes `<`, and so for `>`, in loops and conditions. Of test_kernels.py and test_folded_kernels.py
those tests run that reach the file (TESTS). Survivors are listed; those that are equivalent (a
spare barrier, a bound that an earlier one makes idle) can only be told by reading:
docs/gpu-mutants.md holds the last run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BARRIER = re.compile(r"^\s*(__syncthreads|__syncwarp|Team::sync|wait_for_copies<[^>]*>)\(\);", re.M)
BOUND = re.compile(r"(?<=\w|\)|\]) (<=|<|>=|>) (?=\w|\()")
SWAPPED = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
SECONDS = 900  # for one mutant, its build included
_GATHERS = "encode_rows or gradients or sparse_decode or topk_encode_backward or schedule"
_SCANS = "(topk_encode or recommend or scan or schedule or fp32) and not backward"
TESTS = {  # file: which tests reach it; not named: all
    "adam.cu": "adam",
    "folded.cu": "folded or tables or dense or survivors",
    "folded_sums.h": "folded or tables or dense or survivors",
    "encode_rows.cu": "encode_rows or gradients or schedule",
    "gather.cu": _GATHERS,
    "gather.h": _GATHERS,
    "grouped.cu": _GATHERS,
    "grouped.h": _GATHERS,
    "recommend.cu": "recommend or several",
    "selector.h": _SCANS,
    "sparse_decode.cu": "sparse_decode",
    "steer.cu": "steer",
    "steer_decode.cu": "steer",
    "steer_row.h": "steer",
    "tiles.h": _SCANS,
    "top_scan.cu": _SCANS,
    "top_scan.h": _SCANS,
    "top_scan_exact.cu": _SCANS,
    "top_scan_exact.h": _SCANS,
    "topk_encode.cu": "topk_encode or schedule",
}


class Mutant(NamedTuple):
    path: Path
    line: int
    before: str
    after: str


def mutants_of(path: Path, kind: str) -> Iterator[Mutant]:
    """Every mutant of one file."""
    for number, line in enumerate(path.read_text().splitlines()):
        code = line.split("//")[0]
        if kind in ("barriers", "all") and BARRIER.search(code):
            yield Mutant(path, number, line, "")
        if kind in ("bounds", "all") and re.search(r"\b(for|if|while|return)\b|\?", code):
            for found in BOUND.finditer(code):
                swapped = SWAPPED[found[1]]
                yield Mutant(path, number, line,
                             line[: found.start(1)] + swapped + line[found.end(1) :])  # fmt: skip


def is_noticed(mutant: Mutant, folder: Path) -> bool:
    """Whether a kernel test fails, or the mutant does not compile, with this line broken."""
    csrc = folder / "csrc"
    shutil.rmtree(csrc, ignore_errors=True)
    (csrc / "cuda").mkdir(parents=True)
    for header in (ROOT / "csrc").glob("*.h"):
        shutil.copy(header, csrc)
    for source in (ROOT / "csrc" / "cuda").iterdir():
        shutil.copy(source, csrc / "cuda")
    target = csrc / "cuda" / mutant.path.name
    lines = target.read_text().splitlines()
    lines[mutant.line] = mutant.after
    target.write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider",
               "-k", TESTS.get(mutant.path.name, "test"),
               str(HERE / "test_kernels.py"), str(HERE / "test_folded_kernels.py")]  # fmt: skip
    environment = os.environ | {"CFSAE_CUDA_CSRC": str(csrc)}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def say(verdict: str, mutant: Mutant) -> None:
    change = f" -> {mutant.after.strip()}" if mutant.after else ""
    where = f"{mutant.path.name}:{mutant.line + 1}"
    sys.stdout.write(f"{verdict} {where}: {mutant.before.strip()}{change}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=["barriers", "bounds", "all"], default="all")
    parser.add_argument("--share", type=float, default=1.0, help="of the mutants, drawn at random")
    parser.add_argument("--files", nargs="*", help="names of files in csrc/cuda; default: all")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sources = (ROOT / "csrc" / "cuda").iterdir()
    wanted = [path for path in sources if path.suffix in (".cu", ".h")]
    paths = sorted(p for p in wanted if not arguments.files or p.name in arguments.files)
    mutants = [mutant for path in paths for mutant in mutants_of(path, arguments.kind)]
    count = max(1, round(arguments.share * len(mutants)))
    mutants = sorted(random.Random(0).sample(mutants, count))
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        for mutant in mutants:
            noticed = is_noticed(mutant, Path(folder))
            survivors += [] if noticed else [mutant]
            say("noticed " if noticed else "SURVIVED", mutant)
    caught = 1 - len(survivors) / len(mutants)
    sys.stdout.write(f"{len(mutants)} mutants, {caught:.1%} noticed\n")
    if arguments.json:
        found = [mutant._replace(path=mutant.path.name)._asdict() for mutant in survivors]
        arguments.json.write_text(json.dumps({"mutants": len(mutants), "survivors": found}))
    return 0 if caught >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
