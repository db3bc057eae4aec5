"""How do latency, memory and fit time grow with items, latents and users?

Every point is a process of its own, so that its peak memory is its own. Memory is compared with
the formulas of docs/memory.md: `rss_mb` is what the process took above an idle one, and the peer
"formula" what they predict. Users are streamed in blocks, as a catalogue of 10 million needs it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.problems import WISH, Sizes, draw_histories, make_fitted
from cfsae_fast.ops import Rows
from cfsae_fast.recommender import SteerableRecommender

MB = 1e6
BLOCK = 20_000  # streamed users at a time


def serving_bytes(sizes: Sizes, *, folded: bool, users: int = 1) -> int:
    """What serving ELSA + TopK takes (docs/memory.md)."""
    n_items, d, n_latents, _ = sizes
    model = 4 * (n_items * d + 2 * n_latents * d)
    screens = (n_items + n_latents) * (4 * -(-d // 4) + 12)
    tables = 2 * n_items * n_latents + 16 * (n_items + n_latents) if folded else 0
    return model + screens + tables + 16 * (n_items + users)  # ids and their positions


def fitting_bytes(n_users: int, n_entries: int, sizes: Sizes) -> int:
    """What fit takes beside torch itself (docs/memory.md)."""
    from cfsae_fast.models.cosine_head import KEPT_BYTES  # torch: not for a process that serves

    n_items, d, n_latents, _ = sizes
    elsa, sae = 4 * n_items * d, 8 * n_latents * d
    states = 6 * elsa + 5 * sae  # weights, two gradients, two moments, best; the SAE comes after
    rows = 2 * (8 * n_entries + 16 * n_users)  # all of them, and the part to train on
    scores = min(KEPT_BYTES, 4 * 1024 * n_items)
    return states + rows + scores


# ---- in the child


def peak_bytes() -> int:
    """The most that this process held. (getrusage would count its parent's, from before exec.)"""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(x for x in status.splitlines() if x.startswith("VmHWM")).split()[1])


def build(folder: str, sizes: Sizes, folded: bool) -> dict[str, float]:
    model = SteerableRecommender.from_fitted(make_fitted(sizes))
    started = time.perf_counter()
    if folded:
        model.fold(limit_bytes=20 << 30)
    seconds = time.perf_counter() - started
    model.save(folder)
    return {"fold_s": seconds}


def serve(folder: str, sizes: Sizes, folded: bool) -> dict[str, float]:
    idle = peak_bytes()
    model = SteerableRecommender.load(folder)
    mode = "reconstruct" if folded else "residual"
    requests = [draw_histories(sizes.n_items, 1, 75, seed) for seed in range(40)]
    taken = []
    for one in requests * 3:
        started = time.perf_counter()
        model.recommend(histories=one, n=20, steer=WISH, mode=mode, threads=1)
        taken.append(1e3 * (time.perf_counter() - started))
    return {"p50_ms": float(np.median(taken[len(requests) :])), "bytes": peak_bytes() - idle}


def stream(folder: str, n_users: int) -> dict[str, float]:
    """Histories of 20 items, drawn block by block: seconds, and memory that must not grow."""
    idle = peak_bytes()
    model, rng = SteerableRecommender.load(folder), np.random.default_rng(0)
    fitted, started = model.fitted, time.perf_counter()
    for first in range(0, n_users, BLOCK):
        n = min(BLOCK, n_users - first)
        drawn = np.sort(rng.integers(0, len(fitted.item_ids), (n, 20)), axis=1).astype(np.int32)
        rows = Rows(np.arange(0, 20 * n + 1, 20), drawn.ravel())
        fitted.cfae.recommend(fitted.cfae.encode(rows), 20, seen=rows)
    return {"seconds": time.perf_counter() - started, "bytes": peak_bytes() - idle}


def fit(n_users: int, sizes: Sizes) -> dict[str, float]:
    """One epoch of each stage, on users of 50 items each."""
    import scipy.sparse
    import torch  # noqa: F401  before the idle memory is taken

    from cfsae_fast.config import CFAEConfig, SAEConfig, TrainConfig
    from cfsae_fast.data import Interactions

    n_items, d, n_latents, k = sizes
    idle, rng = peak_bytes(), np.random.default_rng(0)
    items = (n_items * rng.random((n_users, 50), dtype=np.float32) ** 2).astype(np.int32)
    offsets = np.arange(0, 50 * n_users + 1, 50)
    ones = np.ones(items.size, np.float32)
    interactions = Interactions.from_scipy(scipy.sparse.csr_matrix((ones, items.ravel(), offsets)))
    del items, ones
    once = TrainConfig(epochs=1, monitor="loss")
    model = SteerableRecommender(
        CFAEConfig(model="elsa", d=d),
        SAEConfig(k=k, n_latents=n_latents),
        cfae_training=once,
        sae_training=once,
    )
    started = time.perf_counter()
    model.fit(interactions)
    entries = len(interactions.items)
    return {
        "fit_s": time.perf_counter() - started,
        "bytes": peak_bytes() - idle,
        "formula": fitting_bytes(n_users, entries, sizes),
    }


CHILDREN = {"build": build, "serve": serve, "stream": stream, "fit": fit}


# ---- in the parent


def child(name: str, *arguments: Any) -> dict[str, float]:
    """What a fresh process prints."""
    command = [sys.executable, "-m", "benchmarks.scale", "--child", name, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} {arguments} must end well, got: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def serving_rows(sizes: Sizes, *, folded: bool, users: tuple[int, ...] = ()) -> list[dict]:
    path, rows = "folded" if folded else "dense", []
    case = f"{sizes} threads=1 {path}"
    with tempfile.TemporaryDirectory() as scratch:
        folder = str(Path(scratch) / "model")
        built = child("build", folder, sizes, folded)
        found = child("serve", folder, sizes, folded)
        for count in users:
            streamed = child("stream", folder, count)
            words = f"{sizes} users={count} dense"
            rows.append(record.row(words, "stream_s", streamed["seconds"]))
            rows.append(record.row(words, "rss_mb", streamed["bytes"] / MB))
    rows.append(record.row(case, "p50_ms", found["p50_ms"]))
    if folded:
        rows.append(record.row(case, "fold_s", built["fold_s"]))
    return [*rows, _memory(case, found["bytes"], serving_bytes(sizes, folded=folded))]


def fit_rows(n_users: int, sizes: Sizes) -> list[dict[str, Any]]:
    found, case = child("fit", n_users, sizes), f"{sizes} users={n_users} ELSA TopK epochs=1"
    rows = [record.row(case, "fit_s", found["fit_s"])]
    return [*rows, _memory(case, found["bytes"], found["formula"])]


def _memory(case: str, own: float, formula: float) -> dict[str, Any]:
    peer = {"peer": "formula", "peer_value": formula / MB, "higher_is_better": False}
    return record.row(case, "rss_mb", own / MB, **peer)


def main(arguments: list[str] | None = None) -> None:
    parser = record.arguments("scale", __doc__ or "")
    parser.add_argument("--child", nargs=2, help="for the program itself")
    chosen = parser.parse_args(arguments)
    if chosen.child:
        name, given = chosen.child
        values = [Sizes(*one) if isinstance(one, list) else one for one in json.loads(given)]
        print(json.dumps(CHILDREN[name](*values)))
        return
    rows: list[dict[str, Any]] = []
    for n_items in (10_000, 30_000) if chosen.quick else (10_000, 100_000, 1_000_000):
        users = () if chosen.quick or n_items > 10_000 else (10_000, 100_000, 1_000_000, 10_000_000)
        rows += serving_rows(Sizes(n_items, 128, 4096, 32), folded=False, users=users)
    for n_items in (10_000,) if chosen.quick else (10_000, 100_000, 300_000):
        rows += serving_rows(Sizes(n_items, 128, 4096, 32), folded=True)
    for n_latents in (4096,) if chosen.quick else (16_384, 65_536):
        rows += serving_rows(Sizes(20_000, 128, n_latents, 32), folded=True)
    for n_users in (10_000,) if chosen.quick else (25_000, 50_000, 100_000):
        rows += fit_rows(n_users, Sizes(20_000, 128, 1024, 32))
    record.finish("scale", rows, chosen.json)


if __name__ == "__main__":
    main()
