"""python -m benchmarks.gpu [--build] [--json FILE]: the whole of `make gpu`, in under 8 minutes.

Builds (with --build), checks every op against the fp64 reference, lets compute-sanitizer watch the
same checks where it is present, times every op and its peers by events with a cold L2, and sets
each time beside the roofline's. A wrong answer ends it: what is wrong is not timed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BUDGET = 440.0  # seconds for everything; what does not fit any more is named and left out
SANITIZER = 100  # seconds


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    found.add_argument("--json", type=Path, help="write the rows here")
    found.add_argument(
        "--build", action="store_true", help="compile the kernels for this GPU first"
    )
    found.add_argument("--check-only", action="store_true", help="no timing; small shapes")
    found.add_argument("--seed", type=int, help="of the inputs; default: a fresh one")
    found.add_argument("--emulated", type=Path, help="dry run on an emulated device: its module")
    return found


def main(arguments: list[str] | None = None) -> int:
    started, chosen = time.monotonic(), parser().parse_args(arguments)
    if chosen.build:
        from benchmarks.gpu.building import build

        say(f"built {build()}", started)
    import torch

    from benchmarks import record  # after the build: these load the engine
    from benchmarks.gpu.device import Device
    from benchmarks.gpu.roofline import Shape

    if chosen.emulated is None and not torch.cuda.is_available():
        print(f"a CUDA device must be present, got none (torch {torch.__version__})")
        return 1
    device = Device(chosen.emulated)
    seed = int.from_bytes(os.urandom(4), "little") if chosen.seed is None else chosen.seed
    tiny, little = Shape(3, 50, 12, 40, 4, 5, 6, 3), Shape(65, 700, 36, 300, 8, 9, 10, 3)
    real = [] if chosen.check_only or chosen.emulated else [Shape(1), Shape(512)]
    wrong, checked = check(device, [tiny, little, *real], seed, started)
    if wrong:
        print(f"WRONG (seed {seed}):", *wrong, sep="\n  ")
        return 1
    if chosen.check_only:
        return 0
    rows = [] if chosen.emulated else sanitized(seed, started)
    shapes = [tiny, little] if chosen.emulated else [Shape(1), Shape(512), Shape(1024)]
    for shape in shapes:
        rows += measure(device, shape, seed, checked, started)
    print(f"{device.name}, seed {seed}")
    record.finish("gpu", rows, chosen.json)
    say("done", started)
    return 0


def say(what: str, started: float) -> None:
    print(f"[{time.monotonic() - started:5.0f} s] {what}", flush=True)


def check(device: Any, shapes: list, seed: int, started: float) -> tuple[list[str], set[str]]:
    """What is wrong, and the names of what was found right at every shape."""
    from benchmarks.gpu import checks

    wrong, right = [], set()
    for shape in shapes:
        found = checks.run(device, shape, seed)
        wrong += [f"{shape}: {one}" for one in checks.failed(found)]
        right |= set(found)
        say(f"checked {len(found)} answers at B={shape.batch} I={shape.items} d={shape.d}, "
            f"worst off by {max(found.values()):.1g}", started)  # fmt: skip
    return wrong, right


def sanitized(seed: int, started: float) -> list[dict]:
    """The small checks once more under compute-sanitizer, where it is present: errors found."""
    from benchmarks import record

    tool = shutil.which("compute-sanitizer")
    if tool is None:
        say("compute-sanitizer is left out: not on PATH", started)
        return []
    command = [tool, "--error-exitcode", "9", sys.executable, "-m", "benchmarks.gpu",
               "--check-only", "--seed", str(seed)]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SANITIZER)
    except subprocess.TimeoutExpired:
        say("compute-sanitizer is left out: it took too long", started)
        return []
    if done.returncode != 0:
        print(done.stdout[-3000:])
        raise SystemExit("compute-sanitizer found errors")
    say("compute-sanitizer found nothing", started)
    return [record.row("memcheck", "errors", 0.0, answer_checked=True)]


def measure(device: Any, shape: Any, seed: int, checked: set[str], started: float) -> list[dict]:
    """Rows of one shape: our time, each peer's, the graph's, and what the roofline says."""
    import torch

    from benchmarks import record
    from benchmarks.gpu import calls, roofline
    from benchmarks.gpu.inputs import draw

    given, rows = draw(shape, device.place, seed), []
    card = roofline.closest_card(device.name)
    predicted = roofline.costs(shape)
    # the compiler is not asked of the emulated device, nor at two batch sizes that share a path
    compiled = device.kernels is None and shape.batch != 512
    with device.answering(), torch.no_grad():
        found = calls.all_of(given, shape, compiled=compiled)
        flat = calls.faiss_top(given, shape) if device.kernels is None else None
        for op in found:
            if time.monotonic() - started > BUDGET:
                say(f"{op.name} at B={shape.batch} is left out: no time", started)
                continue
            if flat is not None and op.name.startswith("recommend"):
                op.peers["faiss without seen items"] = flat
            case = f"{op.name} B={shape.batch} I={shape.items} d={shape.d} L={shape.latents}"
            right = any(one.startswith(op.name) for one in checked)
            rows += timed(device, op, case, right)
            if card is not None:
                expected = roofline.predict(predicted[op.name], roofline.CARDS[card])
                ours = next(one["value"] for one in rows if one["case"] == case)
                rows.append(record.row(case, f"predicted_us ({card}, {expected.bottleneck})",
                                       expected.microseconds))  # fmt: skip
                rows.append(record.row(case, "measured / predicted", ours / expected.microseconds))
    say(f"timed {len(found)} ops at B={shape.batch}", started)
    return rows


def timed(device: Any, op: Any, case: str, right: bool) -> list[dict]:
    """Our median, beside each peer's; a peer that fails is named and left out."""
    from benchmarks import record

    ours = device.microseconds(op.ours, seconds=0.8)
    options = {"higher_is_better": False, "answer_checked": right}
    rows = [record.row(case, "p50_us", ours, **options)]
    for name, call in op.peers.items():
        try:
            its = device.microseconds(call, seconds=0.5)
        except Exception as error:  # somebody else's program on somebody's machine
            print(f"{name} is left out of {case}: {type(error).__name__}: {str(error)[:200]}")
            continue
        rows.append(record.row(case, "p50_us", ours, peer=name, peer_value=its, **options))
    # knobs come from the CPU, which a graph cannot record
    replay = None if op.name.startswith("steer") else device.recorded(op.ours)
    if replay is not None:
        rows.append(record.row(case, "graph_p50_us", device.microseconds(replay, 0.3), **options))
    return rows


if __name__ == "__main__":
    sys.exit(main())
