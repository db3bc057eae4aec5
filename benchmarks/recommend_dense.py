"""How long from dense embeddings to the top 20 of all items, against faiss' exact flat index?"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import record, timing
from benchmarks.answers import same_top
from benchmarks.problems import unit_rows
from cfsae_fast import ops

N, TIE = 20, 1e-5


def with_faiss(items: np.ndarray, threads: int) -> Any:
    """A search of (B, d) -> scores, ids in faiss.IndexFlatIP; None where faiss is not installed."""
    try:
        import faiss
    except ModuleNotFoundError:
        print("faiss is not installed (make peers): its rows are left out")
        return None
    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)
    return lambda embedding: index.search(embedding, N)


def measure(n_items: int, d: int, batches: list[int], threads: int, seconds: float) -> list[dict]:
    items = unit_rows(n_items, d, 0)
    screen, rows = ops.Screen(items), []
    search = with_faiss(items, threads)
    for batch in batches:
        embedding = np.random.default_rng(batch).standard_normal((batch, d), dtype=np.float32)
        ways = {"ours": lambda x=embedding: ops.recommend(x, items, N, screen=screen)}
        if search is not None:
            ways["faiss"] = lambda x=embedding: search(x)
        with timing.threads(threads):
            checked = False
            if search is not None:
                scores, ids = search(embedding)
                checked = same_top(*ways["ours"](), ids, scores, tie=TIE)
            timed = timing.interleaved(ways, seconds=seconds)
        case = f"B={batch} I={n_items} d={d} threads={threads}"
        its = timed.get("faiss")
        for metric in ("p50", "p99"):
            peer = {} if its is None else {"peer": "faiss", "peer_value": getattr(its, metric)}
            value = getattr(timed["ours"], metric)
            options = {"higher_is_better": False, "answer_checked": checked, **peer}
            rows.append(record.row(case, f"{metric}_ms", value, **options))
        bytes_ms = 1e3 * n_items * d / (1e9 * timing.gigabytes_per_second(threads))
        products_ms = 2e3 * batch * n_items * d / (4e9 * timing.gigaflops(threads))
        rows.append(record.row(case, "floor_ms", max(bytes_ms, products_ms)))
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
