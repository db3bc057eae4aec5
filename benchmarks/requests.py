"""Steered requests through every path: what serve_one_user, turn_knob and serve_batch measure.

Answers are compared before anything is timed: the ids of a peer must be ours but for near ties.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record, timing
from benchmarks.answers import same_top
from benchmarks.peers.paper import DensePath
from benchmarks.problems import WISH, Sizes, draw_histories, make_fitted
from cfsae_fast import export
from cfsae_fast.recommender import SteerableRecommender

HISTORY, N = 75, 20
THREADS = (1, 2)
TIE = 1e-4  # of the largest score


class Paths:
    """One model, folded and dense, and its peers."""

    def __init__(self, sizes: Sizes, *, compiled: bool = True) -> None:
        fitted = make_fitted(sizes)
        self.sizes = sizes
        self.dense = SteerableRecommender.from_fitted(fitted)
        self.folded = SteerableRecommender.from_fitted(fitted).fold(limit_bytes=20 << 30)
        self.peers: dict[str, Callable[[list[list[int]]], tuple[np.ndarray, np.ndarray]]] = {}
        dense = DensePath(fitted, N)
        self.peers["paper"] = dense
        if compiled:
            self.peers["torch.compile"] = dense.compiled()
        self._graph()

    def _graph(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = export.to_onnx(self.dense, Path(folder) / "m.onnx", mode="reconstruct")
            self._sessions = {
                count: export.open_session(path, custom_ops=False, verify=False, threads=count)
                for count in (1, 2)
            }

    def ask(self, model: SteerableRecommender, histories: list[list[int]]) -> Any:
        return model.recommend(histories=histories, n=N, steer=WISH, mode="reconstruct")

    def ways(self, requests: list[list[list[int]]], threads: int) -> dict[str, Callable[[], Any]]:
        """Our paths and the peers, each going round the requests (batches of histories)."""
        session = self._sessions[threads]
        fed = [export.feeds(self.dense, one, n=N, steer=WISH) for one in requests]
        ways: dict[str, Callable[[], Any]] = {
            "folded": _round(lambda one: self.ask(self.folded, one), requests),
            "dense": _round(lambda one: self.ask(self.dense, one), requests),
            "onnxruntime": _round(lambda one: session.run(["ids", "scores"], one), fed),
        }
        return ways | {name: _round(peer, requests) for name, peer in self.peers.items()}

    def check(self, ways: dict[str, Callable[[], Any]]) -> list[str]:
        """Names of the peers whose answer is not ours; a wrong answer of our own raises.

        Raises:
            AssertionError: the folded path does not answer as the dense path.
        """
        ours = ways["dense"]()
        folded = ways["folded"]()
        assert np.array_equal(ours.ids, folded.ids), "folded and dense must agree"
        assert np.array_equal(ours.scores, folded.scores), "folded and dense must agree"
        others = [name for name in ways if name not in ("dense", "folded")]
        return [name for name in others if not same_top(*ours, *ways[name](), tie=TIE)]

    def measure(self, batch: int, threads: int, *, seconds: float, most: int) -> list[dict]:
        """Rows of p50, p99 (and users per second above one user) against every peer."""
        with timing.threads(threads):
            many = 64 if batch == 1 else 1  # else one user's rows of the tables would stay cached
            requests = [
                draw_histories(self.sizes.n_items, batch, HISTORY, seed) for seed in range(many)
            ]
            wrong = self.check(self.ways(requests, threads))
            ways = self.ways(requests, threads)
            timed = timing.interleaved(ways, seconds=seconds, most=most)
        words = f"B={batch} {self.sizes} threads={threads} reconstruct"
        rows = []
        for path in ("folded", "dense"):
            case, own = f"{words} {path}", timed[path]
            rows.append(record.row(case, "p99_ms", own.p99))
            for peer in [name for name in timed if name not in ("folded", "dense")]:
                checked = peer not in wrong
                rows.append(_row(case, own.p50, peer, timed[peer].p50, batch, checked))
        return rows


def _round(ask: Callable[[Any], Any], requests: list) -> Callable[[], Any]:
    """Ask for the next request at every call."""
    coming = itertools.cycle(requests)
    return lambda: ask(next(coming))


def _row(case: str, own: float, peer: str, its: float, batch: int, checked: bool) -> dict[str, Any]:
    faster = {"peer": peer, "answer_checked": checked}
    if batch == 1:
        return record.row(case, "p50_ms", own, peer_value=its, higher_is_better=False, **faster)
    users = [1e3 * batch / one for one in (own, its)]
    return record.row(case, "users_per_s", users[0], peer_value=users[1], **faster)


def floors(sizes: Sizes, batch: int, threads: int) -> list[dict[str, Any]]:
    """What one folded request cannot do without: reading its rows of both tables, in bytes."""
    read = batch * (HISTORY * (sizes.n_latents + 4 * sizes.d) + (sizes.k + 1) * sizes.n_items)
    speed = timing.gigabytes_per_second(threads)
    case = f"B={batch} {sizes} threads={threads} reconstruct folded"
    return [
        record.row(case, "floor_ms", 1e3 * read / (speed * 1e9)),
        record.row(f"threads={threads}", "memory_gb_per_s", speed),
        record.row(f"threads={threads}", "gflops_fp32", timing.gigaflops(threads)),
    ]


def with_shapes(parser: Any, default: Sizes) -> Any:
    """--items --d --latents --k, and --threads."""
    for name, value in zip(("items", "d", "latents", "k"), default, strict=True):
        parser.add_argument(f"--{name}", type=int, help=f"default {value}")
    parser.add_argument("--threads", type=int, nargs="*", choices=THREADS, default=THREADS)
    return parser


def sizes_of(chosen: Any, full: Sizes, quick: Sizes) -> Sizes:
    given = (chosen.items, chosen.d, chosen.latents, chosen.k)
    return Sizes(*(a or b for a, b in zip(given, quick if chosen.quick else full, strict=True)))
