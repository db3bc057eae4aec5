"""What opening an exported model costs a process: python -m benchmarks.onnx_loading MODEL CUSTOM.

Says "ready" when it has answered once, and its numbers when it reads a line; onnx_latency asks.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import numpy as np

from cfsae_fast import export


def memory(file: str) -> dict[str, float]:
    """MB: all (rss), what only this process has (anonymous), mapped of `file`; shared_share: of
    that, what another process holds too."""
    sums = {"Rss": 0, "Anonymous": 0, "mapped": 0, "shared": 0}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(file)
        elif line.endswith(" kB"):
            name, count = line.removesuffix(" kB").split(":")
            if name in sums:
                sums[name] += int(count)
            if inside and name == "Rss":
                sums["mapped"] += int(count)
            if inside and name.startswith("Shared_") and name != "Shared_Hugetlb":
                sums["shared"] += int(count)
    return {
        "rss_mb": sums["Rss"] / 1024,
        "anonymous_mb": sums["Anonymous"] / 1024,
        "mapped_mb": sums["mapped"] / 1024,
        "shared_share": sums["shared"] / max(sums["mapped"], 1),
    }


def main(path: str, custom_ops: bool) -> None:
    import onnxruntime  # noqa: F401 - importing it is no part of loading

    start = time.perf_counter()
    session = export.open_session(path, custom_ops=custom_ops, threads=2, verify=False)
    seconds = time.perf_counter() - start
    items = np.arange(1, 31)
    session.run(["ids"], {"items": items, "offsets": np.array([0, len(items)])})
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps({"load_s": seconds, **memory(f"{path}.data")}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "1")
