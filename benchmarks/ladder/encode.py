"""The rungs of topk_encode on a batch: numpy, fp32 tiles by instruction set, the 8-bit screen.

Tried between the last two and lost, in ms on one thread of an Intel Xeon (B 1024, d 1024, L 8192,
k 32; the screen as it is now takes 80):

    126-139  floors from heaps, every survivor rescored in fp32 (410 a user)
         90  the k best first, then the rest; survivors pushed one by one
         83  sinks filled by whole vectors, minima and maxima in scalar code
      83-87  rescoring over ranges of 1 or 2 MiB, or four rows of a query at a time: no gain
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import record, timing
from benchmarks.answers import require, same_top
from benchmarks.problems import unit_rows
from cfsae_fast import ops

TIE = 1e-5


def in_numpy(x: np.ndarray, encoder: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Standardise, multiply, ReLU, argpartition."""
    u = (x - x.mean(1, keepdims=True)) / (x.std(1, ddof=1, keepdims=True) + 1e-7)
    dense = np.maximum(u @ encoder.T, 0)
    found = np.argpartition(-dense, k, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(dense, found, 1), axis=1, kind="stable")
    found = np.take_along_axis(found, order, 1)
    return found, np.take_along_axis(dense, found, 1)


def main(arguments: list[str] | None = None) -> None:
    parser = record.arguments("ladder.encode", __doc__ or "")
    for name, value in (("batch", 1024), ("d", 1024), ("latents", 8192), ("k", 32)):
        parser.add_argument(f"--{name}", type=int, default=value)
    chosen = parser.parse_args(arguments)
    d, k = chosen.d, chosen.k
    x = np.random.default_rng(0).standard_normal((chosen.batch, d), dtype=np.float32)
    encoder, bias = unit_rows(chosen.latents, d, 1), np.zeros(chosen.latents, np.float32)

    def on(isa: str) -> Callable[[], Any]:
        def run() -> Any:
            with ops.force_isa(isa):
                return ops.topk_encode(x, encoder, bias, np.zeros(d, np.float32), k).code

        return run

    ways = {"numpy": lambda: in_numpy(x, encoder, k)}
    ways |= {isa: on(isa) for isa in ops.build_info()["isa"]}
    with timing.threads(1):
        for name, way in ways.items():
            require(same_top(*way(), *ways["numpy"](), tie=TIE), name)
        timed = timing.interleaved(ways, seconds=2 if chosen.quick else 20, least=3)
    case = f"B={chosen.batch} d={d} L={chosen.latents} k={k} threads=1"
    peer = {"peer": "numpy", "peer_value": timed["numpy"].p50, "higher_is_better": False}
    rows = [
        record.row(f"{case} {name}", "p50_ms", one.p50, answer_checked=True, **peer)
        for name, one in timed.items()
    ]
    record.finish("ladder.encode", rows, chosen.json)


if __name__ == "__main__":
    main()
