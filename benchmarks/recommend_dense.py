"""How long from dense embeddings to the top 20 of all items, against faiss' exact flat index?"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import record, timing
from benchmarks.answers import require, same_top
from benchmarks.peers import available
from benchmarks.problems import unit_rows
from cfsae_fast import ops

N, TIE = 20, 1e-5


def with_faiss(items: np.ndarray) -> Any:
    """A search of (B, d) -> ids, scores in faiss.IndexFlatIP on as many threads as torch has."""
    import faiss

    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)

    def search(embedding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        faiss.omp_set_num_threads(ops.get_threads())
        return index.search(embedding, N)[::-1]

    return search


def measure(n_items: int, d: int, batches: list[int], threads: int, seconds: float) -> list[dict]:
    items = unit_rows(n_items, d, 0)
    screen, rows = ops.Screen(items), []
    peers = available({"faiss": lambda: with_faiss(items)})
    for batch in batches:
        x = np.random.default_rng(batch).standard_normal((batch, d), dtype=np.float32)
        ways = {"ours": lambda x=x: ops.recommend(x, items, N, screen=screen)}
        ways |= {name: lambda x=x, ask=ask: ask(x) for name, ask in peers.items()}
        with timing.threads(threads):
            for name in peers:
                require(same_top(*ways["ours"](), *ways[name](), tie=TIE), name)
            timed = timing.interleaved(ways, seconds=seconds)
        case, own = f"B={batch} I={n_items} d={d} threads={threads}", timed["ours"]
        bytes_ms = n_items * d / timing.gigabytes_per_second(threads) / 1e6
        products_ms = 2 * batch * n_items * d / (4 * timing.gigaflops(threads)) / 1e6
        rows += [
            record.row(case, "p99_ms", own.p99),
            record.row(case, "floor_ms", max(bytes_ms, products_ms)),
        ]
        if not peers:
            rows.append(record.row(case, "p50_ms", own.p50))
        for name in peers:
            peer = {"peer": name, "peer_value": timed[name].p50, "answer_checked": True}
            rows.append(record.row(case, "p50_ms", own.p50, higher_is_better=False, **peer))
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = record.arguments("recommend_dense", __doc__ or "")
    parser.add_argument("--items", type=int, nargs="*", default=[40857, 1_000_000])
    parser.add_argument("--d", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 512])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    chosen = parser.parse_args(arguments)
    sizes = chosen.items[:1] if chosen.quick else chosen.items
    seconds = 1 if chosen.quick else 10
    rows = [
        one
        for n_items in sizes
        for threads in chosen.threads
        for one in measure(n_items, chosen.d, chosen.batches, threads, seconds)
    ]
    record.finish("recommend_dense", rows, chosen.json)


if __name__ == "__main__":
    main()
