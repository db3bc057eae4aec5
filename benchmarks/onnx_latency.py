"""How long does an exported model take per request: standard ops, the engine's kernels, Python?

Random networks of the sizes that matter, ELSA + TopK, residual, dense; every answer is compared
before it is timed. Requests have 75 items and one concept turned.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.problems import FULL, QUICK, WISH, Sizes, draw_histories, make_fitted
from cfsae_fast import export
from cfsae_fast.recommender import SteerableRecommender

HISTORY, N = 75, 20


def percentiles(ask: Callable[[], Any], seconds: float, most: int) -> tuple[float, float, int]:
    """p50 and p99 in ms, and of how many requests."""
    for _ in range(3):
        ask()
    taken, end = [], time.perf_counter() + seconds
    while len(taken) < most and (time.perf_counter() < end or len(taken) < 5):
        start = time.perf_counter()
        ask()
        taken.append(1e3 * (time.perf_counter() - start))
    return float(np.percentile(taken, 50)), float(np.percentile(taken, 99)), len(taken)


def measure(sizes: Sizes, batches: list[int], seconds: float, most: int) -> list[dict[str, Any]]:
    model = SteerableRecommender.from_fitted(make_fitted(sizes))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = export.to_onnx(model, Path(folder) / "m.onnx")
        sessions = {}
        for graph, custom_ops in (("plain", False), ("custom", True)):
            start = time.perf_counter()
            sessions[graph] = export.open_session(path, custom_ops=custom_ops, verify=False)
            case = f"ELSA TopK {sizes} graph={graph}"
            rows.append(record.row(case, "load_s", time.perf_counter() - start))
            found = export.check_parity(model, path, requests=32, custom_ops=custom_ops)
            assert found.holds, (graph, found)
        for batch in batches:
            rows += _one_batch(model, sessions, sizes, batch, seconds, most)
    return rows


def _one_batch(
    model: SteerableRecommender, sessions: dict, sizes: Sizes, batch: int, seconds: float, most: int
) -> list[dict[str, Any]]:
    histories = draw_histories(sizes.n_items, batch, HISTORY, seed=batch)
    asked = export.feeds(model, histories, n=N, steer=WISH)
    asks: dict[str, Callable[[], Any]] = {
        f"graph={graph}": lambda one=session: one.run(["ids", "scores"], asked)
        for graph, session in sessions.items()
    }
    asks["python"] = lambda: model.recommend(histories=histories, n=N, steer=WISH)
    timed = {name: percentiles(ask, seconds, most) for name, ask in asks.items()}
    rows = []
    for name, (p50, p99, count) in timed.items():
        case = f"ELSA TopK {sizes} B={batch} residual dense {name} requests={count}"
        peers = {"graph=custom": "graph=plain", "python": "graph=custom", "graph=plain": None}
        peer = peers[name]
        for at, metric in enumerate(("p50_ms", "p99_ms")):
            rows.append(
                record.row(
                    case,
                    metric,
                    (p50, p99)[at],
                    peer=peer,
                    peer_value=None if peer is None else timed[peer][at],
                    higher_is_better=False,
                    answer_checked=True,
                )
            )
    return rows


def main() -> None:
    chosen = record.arguments("onnx_latency", __doc__ or "").parse_args()
    if chosen.quick:
        rows = measure(QUICK, [1, 8, 64], seconds=2, most=500)
    else:
        rows = measure(FULL, [1, 8, 64, 512], seconds=40, most=2000)
    record.finish("onnx_latency", rows, chosen.json)


if __name__ == "__main__":
    main()
