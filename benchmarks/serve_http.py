"""How many requests does `cfsae serve` answer, and how late? Clients on the same two cores.

A random network (ELSA + TopK), folded, behind the real server in a process of its own; clients hold
connections and ask one after the other, 75 items and one concept turned. One answer is compared
with the library's first. Where more clients come than the queue holds, 503 is counted apart.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.answers import require
from benchmarks.problems import QUICK, WISH, Sizes, draw_histories, make_fitted
from cfsae_fast.recommender import SteerableRecommender

HISTORY, N = 75, 20
MIDDLE = Sizes(20_000, 512, 4096, 32)


@contextmanager
def server(model: SteerableRecommender, folder: Path, *options: str) -> Iterator[int]:
    """The port of `cfsae serve` with this model, up until the end of the block."""
    saved = model.save(folder / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cfsae_fast", "serve", str(saved), "--port", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = subprocess.Popen([*command, *options], env=os.environ, **quiet)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                if Client(port).ask("GET", "/healthz")[0] == 200:
                    break
            except OSError:
                if time.monotonic() > end or running.poll() is not None:
                    raise
                time.sleep(0.1)
        yield port
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(30)


class Client:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        self.connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        return answer.status, answer.read()


def bodies(sizes: Sizes, batch: int, count: int) -> list[bytes]:
    return [
        json.dumps(
            {
                "histories": draw_histories(sizes.n_items, batch, HISTORY, at),
                "steer": WISH,
                "mode": "reconstruct",
                "n": N,
            }
        ).encode()
        for at in range(count)
    ]


def load(port: int, asked: list[bytes], clients: int, seconds: float) -> dict[str, float]:
    """p50 and p99 in ms of answered requests, requests per second, share of 503."""
    taken: list[float] = []
    refused: list[int] = []
    end = time.monotonic() + seconds

    def work(start: int) -> None:
        client, at = Client(port), start
        while time.monotonic() < end:
            begun = time.perf_counter()
            status, _ = client.ask("POST", "/recommend", asked[at % len(asked)])
            if status == 200:
                taken.append(1e3 * (time.perf_counter() - begun))
            elif status == 503:
                refused.append(at)
            else:
                raise RuntimeError(f"the server answered {status}")
            at += clients

    threads = [threading.Thread(target=work, args=(at,)) for at in range(clients)]
    begun = time.perf_counter()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    lasted = time.perf_counter() - begun
    return {
        "p50_ms": float(np.percentile(taken, 50)),
        "p99_ms": float(np.percentile(taken, 99)),
        "requests_per_s": len(taken) / lasted,
        "refused_share": len(refused) / (len(taken) + len(refused)),
    }


def check(port: int, model: SteerableRecommender, sizes: Sizes) -> None:
    status, content = Client(port).ask("POST", "/recommend", bodies(sizes, 2, 1)[0])
    require(status == 200, "the server")
    histories = draw_histories(sizes.n_items, 2, HISTORY, 0)
    want = model.recommend(histories=histories, n=N, steer=WISH, mode="reconstruct")
    got = [[one["item"] for one in row] for row in json.loads(content)["results"]]
    require(got == want.ids.tolist(), "the server")


def measure(
    sizes: Sizes, cases: list[tuple[int, int]], seconds: float, *options: str
) -> list[dict[str, Any]]:
    """cases: (clients, histories in a request)."""
    model = SteerableRecommender.from_fitted(make_fitted(sizes)).fold()
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        server(model, Path(folder), *options) as port,
    ):
        check(port, model, sizes)
        for clients, batch in cases:
            asked = bodies(sizes, batch, 64 if batch == 1 else 8)
            load(port, asked, clients, min(1.0, seconds))  # the first requests map the tables
            found = load(port, asked, clients, seconds)
            case = f"ELSA TopK {sizes} reconstruct folded B={batch} clients={clients}"
            rows += [
                record.row(case, name, value, answer_checked=True) for name, value in found.items()
            ]
    return rows


def main() -> None:
    chosen = record.arguments("serve_http", __doc__ or "").parse_args()
    cases = [(1, 1), (4, 1), (16, 1), (100, 1), (2, 64)]
    sizes, seconds = (QUICK, 4.0) if chosen.quick else (MIDDLE, 10.0)
    record.finish("serve_http", measure(sizes, cases, seconds), chosen.json)


if __name__ == "__main__":
    main()
