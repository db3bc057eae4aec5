"""The one shape of every benchmark's output: rows of numbers with machine, versions and command."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from cfsae_fast import ops

PACKAGES = ("cfsae-fast", "numpy", "torch", "scipy", "onnxruntime", "implicit", "faiss-cpu")


def arguments(name: str, description: str) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes: --json FILE and --quick."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--quick", action="store_true", help="under a minute, smaller or fewer")
    return parser


def row(
    case: str,
    metric: str,
    value: float,
    *,
    peer: str | None = None,
    peer_value: float | None = None,
    higher_is_better: bool = True,
    answer_checked: bool = False,
) -> dict[str, Any]:
    """One number. ratio says how many times better than the peer (above 1: better)."""
    ratio = None
    if peer_value is not None:
        better, worse = (value, peer_value) if higher_is_better else (peer_value, value)
        ratio = better / worse if worse else None
    return {
        "case": case,
        "metric": metric,
        "value": value,
        "peer": peer,
        "peer_value": peer_value,
        "ratio": ratio,
        "answer_checked": answer_checked,
    }


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x.split(":")[1].strip() for x in cpuinfo.open() if x.startswith("model name")]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "isa": ops.build_info().get("isa_used"),
        "gpu": _gpu(),
        "platform": platform.platform(),
    }


def _gpu() -> str | None:
    """The CUDA device that torch sees, if torch is loaded and sees one."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that are installed here."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def finish(name: str, rows: list[dict[str, Any]], path: Path | None) -> None:
    """Print the rows as a table and write them to `path` where one is given."""
    width = max([len(one["case"]) for one in rows], default=4)
    for one in rows:
        peer = f"{one['peer']} {one['peer_value']:.4g}" if one["peer_value"] is not None else ""
        ratio = f"x{one['ratio']:.3g}" if one["ratio"] is not None else ""
        print(f"{one['case']:<{width}}  {one['metric']:<22} {one['value']:>10.4g}  {peer} {ratio}")
    if path is not None:
        content = {
            "bench": name,
            "machine": machine(),
            "versions": versions(),
            "command": " ".join(["python -m", f"benchmarks.{name}", *sys.argv[1:]]),
            "rows": rows,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")
