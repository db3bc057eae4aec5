"""Steered requests through every path: what serve_one_user, turn_knob and serve_batch measure.

Answers to all requests are compared before anything is timed.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record, timing
from benchmarks.answers import require, same_top
from benchmarks.peers import available
from benchmarks.peers.als import AlsPath
from benchmarks.peers.paper import DensePath
from benchmarks.problems import FULL, QUICK, WISH, Sizes, draw_histories, make_fitted
from cfsae_fast import export
from cfsae_fast.recommender import SteerableRecommender

HISTORY, N = 75, 20
THREADS = (1, 2)
TIE = 1e-4  # of the largest score


class Paths:
    """One model, folded and dense, and its peers, for batches of one size."""

    def __init__(self, sizes: Sizes, batch: int) -> None:
        self.sizes, self.batch = sizes, batch
        many = 64 if batch == 1 else 1  # else one user's rows of the tables would stay cached
        self.requests = [draw_histories(sizes.n_items, batch, HISTORY, at) for at in range(many)]
        fitted = make_fitted(sizes)
        self.dense = SteerableRecommender.from_fitted(fitted)
        self.folded = SteerableRecommender.from_fitted(fitted).fold(limit_bytes=20 << 30)
        paper = DensePath(fitted, N)
        als = {"implicit": lambda: dict.fromkeys(THREADS, AlsPath(fitted.cfae.items, N))}
        self.peers = available(
            {
                "paper": lambda: dict.fromkeys(THREADS, paper),
                "torch.compile": lambda: dict.fromkeys(THREADS, paper.compiled(self.requests[0])),
                "onnxruntime": self._graph,
                **(als if batch == 1 else {}),  # it solves for every user: minutes for a batch
            }
        )

    def _graph(self) -> dict[int, Callable[[list[list[int]]], list[np.ndarray]]]:
        """The exported standard operators, by the number of threads."""
        with tempfile.TemporaryDirectory() as folder:
            path = export.to_onnx(self.dense, Path(folder) / "m.onnx", mode="reconstruct")
            options = {"custom_ops": False, "verify": False}
            sessions = {
                count: export.open_session(path, threads=count, **options) for count in THREADS
            }
        fed = {id(one): export.feeds(self.dense, one, n=N, steer=WISH) for one in self.requests}
        return {
            count: lambda one, run=session.run: run(["ids", "scores"], fed[id(one)])
            for count, session in sessions.items()
        }

    def ways(self, threads: int) -> dict[str, Callable[[list[list[int]]], Any]]:
        """Our paths and the peers: a request in, ids and scores out."""
        return {
            "folded": lambda one: _ask(self.folded, one),
            "dense": lambda one: _ask(self.dense, one),
            **{name: peer[threads] for name, peer in self.peers.items()},
        }

    def check(self, ways: dict[str, Callable[[list[list[int]]], Any]]) -> None:
        """Compare all ways on all requests.

        Raises:
            WrongAnswer: the folded path is not the dense one to the bit, or a peer is not ours.
        """
        for request in self.requests:
            ours, folded = ways["dense"](request), ways["folded"](request)
            require(np.array_equal(ours.ids, folded.ids), "folded")
            require(np.array_equal(ours.scores, folded.scores), "folded")
            for name in set(self.peers) - {"implicit"}:  # which answers another question
                require(same_top(*ours, *ways[name](request), tie=TIE), name)

    def measure(self, threads: int, *, seconds: float, most: int) -> list[dict[str, Any]]:
        """Rows of p50, p99 (and users per second above one user) against every peer."""
        with timing.threads(threads):
            ways = self.ways(threads)
            self.check(ways)
            going = {name: _round(way, self.requests) for name, way in ways.items()}
            timed = timing.interleaved(going, seconds=seconds, most=most)
        words = f"B={self.batch} {self.sizes} threads={threads} reconstruct"
        rows = []
        for path in ("folded", "dense"):
            case, own = f"{words} {path}", timed[path]
            rows.append(record.row(case, "p99_ms", own.p99))
            rows += [_row(case, own.p50, name, timed[name].p50, self.batch) for name in self.peers]
        return rows

    def floors(self, threads: int) -> list[dict[str, Any]]:
        """What the folded path cannot do without: reading each table row that its first request
        needs once, or adding up all of them, whichever takes longer."""
        request, (n_items, d, n_latents, _) = self.requests[0], self.sizes
        latents = self.dense.encode(histories=request).code.indices
        read = len(set().union(*request)) * (n_latents + 4 * d) + len(np.unique(latents)) * n_items
        added = sum(map(len, request)) * (n_latents + d) + latents.size * n_items
        memory, products = timing.gigabytes_per_second(threads), timing.gigaflops(threads)
        case = f"B={self.batch} {self.sizes} threads={threads} reconstruct folded"
        return [
            record.row(case, "floor_ms", max(read / memory, 2 * added / products) / 1e6),
            record.row(f"threads={threads}", "memory_gb_per_s", memory),
            record.row(f"threads={threads}", "gflops_fp32", products),
        ]


def serve(name: str, description: str, batch: int | None, arguments: list[str] | None) -> None:
    """The program `name`; batch None: an argument, 512 by default."""
    parser = with_shapes(record.arguments(name, description), FULL)
    if batch is None:
        parser.add_argument("--batch", type=int, default=512)
    chosen = parser.parse_args(arguments)
    paths = Paths(sizes_of(chosen, FULL, QUICK), batch or chosen.batch)
    rows = []
    for threads in chosen.threads:
        rows += paths.measure(threads, seconds=3 if chosen.quick else 25, most=1000)
        rows += paths.floors(threads)
    record.finish(name, rows, chosen.json)


def _ask(model: SteerableRecommender, histories: list[list[int]]) -> Any:
    return model.recommend(histories=histories, n=N, steer=WISH, mode="reconstruct")


def _round(way: Callable[[Any], Any], requests: list) -> Callable[[], Any]:
    """Ask for the next request at every call."""
    coming = itertools.cycle(requests)
    return lambda: way(next(coming))


def _row(case: str, own: float, peer: str, its: float, batch: int) -> dict[str, Any]:
    against = {"peer": peer, "answer_checked": peer != "implicit"}
    if batch == 1:
        return record.row(case, "p50_ms", own, peer_value=its, higher_is_better=False, **against)
    users = [1e3 * batch / one for one in (own, its)]
    return record.row(case, "users_per_s", users[0], peer_value=users[1], **against)


def with_shapes(parser: Any, default: Sizes) -> Any:
    """--items --d --latents --k, and --threads."""
    for name, value in zip(("items", "d", "latents", "k"), default, strict=True):
        parser.add_argument(f"--{name}", type=int, help=f"default {value}")
    parser.add_argument("--threads", type=int, nargs="*", choices=THREADS, default=THREADS)
    return parser


def sizes_of(chosen: Any, full: Sizes, quick: Sizes) -> Sizes:
    given = (chosen.items, chosen.d, chosen.latents, chosen.k)
    return Sizes(*(a or b for a, b in zip(given, quick if chosen.quick else full, strict=True)))
