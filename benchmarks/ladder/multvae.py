"""The rungs of a reconstructed MultVAE request: layers by numpy's BLAS, by the engine, and the
decoder's first layer folded into the dictionary.

The engine's layers take the threads that a call is given, BLAS takes what its own pool has, and
waits for a thread that another process keeps from its core: 8 ms a layer were seen. A folded layer
adds in another order, so that scores differ in their last bits; lists_differ is the share of
requests whose list is another one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import record, timing
from benchmarks.answers import require, same_top
from benchmarks.problems import draw_histories
from cfsae_fast import ops
from cfsae_fast.inference import CFAENetwork, FoldedTables, SAENetwork
from cfsae_fast.inference.cfae import Layer
from cfsae_fast.ops import Recommended, Rows

HISTORY, N, REQUESTS = 75, 20, 200
TIE = 1e-5


class Rungs:
    """A MultVAE and an SAE of random weights, and requests: history -> code -> top-N."""

    def __init__(self, n_items: int, d: int, n_latents: int, k: int, requests: int) -> None:
        self.random = np.random.default_rng(0)
        wide = 3 * d
        self.network = CFAENetwork(
            "multvae", self._drawn(n_items, wide), self._drawn(n_items, wide),
            first_bias=self._drawn(wide), first_activation="tanh",
            encoder_layers=(Layer(self._drawn(d, wide), self._drawn(d), "none"),),
            decoder_layers=(Layer(self._drawn(wide, d), self._drawn(wide), "tanh"),),
            item_bias=self._drawn(n_items), normalize_input=True,
        )  # fmt: skip
        dictionary, none = self._drawn(n_latents, d), np.zeros(n_latents, np.float32)
        self.sae = SAENetwork("topk", dictionary, none, dictionary, self._drawn(d), k, k)
        self.tables = FoldedTables.build(self.network, self.sae)
        drawn = draw_histories(n_items, requests, HISTORY)
        self.rows = [Rows(np.array([0, len(one)]), np.array(one, np.int32)) for one in drawn]

    def by_numpy(self, rows: Rows) -> Recommended:
        network, (inner,), (outer,) = (
            self.network, self.network.encoder_layers, self.network.decoder_layers
        )  # fmt: skip
        first = ops.encode_rows(rows, network.item_weight) / network.row_norms(rows)[:, None]
        hidden = np.tanh(first + network.first_bias)
        decoded = self.sae.decode(self.sae.encode(hidden @ inner.weight.T + inner.bias))
        return network.top(np.tanh(decoded @ outer.weight.T + outer.bias), N, seen=rows)

    def by_engine(self, rows: Rows) -> Recommended:
        decoded = self.sae.decode(self.sae.encode(self.network.encode(rows)))
        return self.network.recommend(decoded, N, seen=rows)

    def folded(self, rows: Rows) -> Recommended:
        embedding = self.network.encode(rows)
        encoded = self.sae.encode(embedding)
        return self.tables.recommend(self.network, encoded, embedding, N, seen=rows)

    def _drawn(self, *shape: int) -> np.ndarray:
        drawn = self.random.standard_normal(shape, dtype=np.float32)
        return drawn / np.float32(np.sqrt(shape[-1]))


def main(arguments: list[str] | None = None) -> None:
    parser = record.arguments("ladder.multvae", __doc__ or "")
    for name, value in (("items", 40857), ("d", 1024), ("latents", 8192), ("k", 32)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--threads", type=int, nargs="*", default=(1, 2))
    chosen = parser.parse_args(arguments)
    shape = (chosen.items, chosen.d, chosen.latents, chosen.k)
    rungs = Rungs(*shape, 20 if chosen.quick else REQUESTS)
    ways: dict[str, Callable[[Rows], Recommended]] = {
        "numpy": rungs.by_numpy, "engine": rungs.by_engine, "folded": rungs.folded
    }  # fmt: skip
    case = "I={} d={} L={} k={}".format(*shape)
    rows: list[dict[str, Any]] = []
    answers = {name: [way(one) for one in rungs.rows] for name, way in ways.items()}
    for name, its in answers.items():
        pairs = list(zip(its, answers["engine"], strict=True))
        require(all(same_top(*one, *other, tie=TIE) for one, other in pairs), name)
        differ = sum(not np.array_equal(one.ids, other.ids) for one, other in pairs)
        rows.append(record.row(f"{case} {name}", "lists_differ", differ / len(pairs)))
    for threads in chosen.threads:
        with timing.threads(threads):
            going = {name: _in_turn(way, rungs.rows) for name, way in ways.items()}
            timed = timing.interleaved(going, seconds=2 if chosen.quick else 15)
        for name, one in timed.items():
            peer = {"peer": "numpy", "peer_value": timed["numpy"].p50, "higher_is_better": False}
            at = f"{case} threads={threads} {name}"
            rows.append(record.row(at, "p50_ms", one.p50, answer_checked=True, **peer))
    record.finish("ladder.multvae", rows, chosen.json)


def _in_turn(way: Callable[[Rows], Any], requests: list[Rows]) -> Callable[[], Any]:
    coming = itertools.cycle(requests)
    return lambda: way(next(coming))


if __name__ == "__main__":
    main()
