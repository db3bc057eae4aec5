"""How long does ELSA train, against the published dense step?

Epochs: both ways go through the same batches of anime-5k from the same start, with the published
objective and the same Adam; what they learned is compared by nDCG@20 of test users before their
times are. Steps: rows drawn by popularity from a catalogue of the given shape (40,857 items and 77
to a row are ML-25M's); an epoch of its 160,776 users has 157 of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from benchmarks import record, timing
from benchmarks.answers import require
from benchmarks.peers.paper import DenseELSA
from cfsae_fast import evaluation, metrics, ops
from cfsae_fast.config import CFAEConfig, TrainConfig
from cfsae_fast.data import load
from cfsae_fast.models import make_cfae
from cfsae_fast.ops import Rows
from cfsae_fast.ops.settings import one_pool
from cfsae_fast.training.adam import AdamW
from cfsae_fast.training.memory import kept_memory
from cfsae_fast.training.precision import decided, products
from cfsae_fast.training.samplers import RowSampler


def draw_rows(n_users: int, n_items: int, length: int) -> Rows:
    """Users with `length` different items each, popular ones more often: tensors."""
    rng = np.random.default_rng(0)
    odds = 1.0 / np.arange(10, n_items + 10)
    odds /= odds.sum()
    items = [rng.choice(n_items, length, replace=False, p=odds) for _ in range(n_users)]
    offsets = torch.arange(0, (n_users + 1) * length, length)
    return Rows(offsets, torch.from_numpy(np.concatenate(items).astype(np.int32)))


class OurStep:
    """One step as training.loop takes it; precision as TrainConfig has it by default."""

    def __init__(self, n_items: int, d: int) -> None:
        self.config = decided(TrainConfig.for_cfae("elsa"), model="elsa")
        published = CFAEConfig(d=d, item_lengths="unit", dropout=0.0)
        self.model = make_cfae(n_items, published, seed=1).train()
        self.optimizer = AdamW(self.model.parameters(), lr=1e-3)

    def loss(self, rows: Rows) -> torch.Tensor:
        with products(self.config):
            return self.model.loss(rows, generator=torch.Generator().manual_seed(0), step=0)[0]

    def step_alone(self, rows: Rows) -> None:
        with one_pool():
            self.step(rows)

    def step(self, rows: Rows) -> None:
        loss = self.loss(rows)
        self.optimizer.zero_grad()
        loss.backward()
        self.model.before_step()
        self.optimizer.step()
        self.model.after_step()


def dense_rows(rows: Rows, n_items: int) -> torch.Tensor:
    """(B, I) ones, made anew for every step as the published code does."""
    out = torch.zeros(len(rows.offsets) - 1, n_items)
    users = torch.repeat_interleave(torch.arange(len(out)), rows.offsets.diff())
    out[users, rows.items.long()] = 1.0
    return out


def epochs(name: str, d: int, threads: int, count: int) -> list[dict[str, Any]]:
    """Epochs of both ways in turn, on a data set; their quality, then their median seconds."""
    cut = evaluation.prepare(load(name), seed=42)
    n_items = cut.train.n_items
    sampler = RowSampler(cut.train.rows(), 1024, seed=42)
    ours = OurStep(n_items, d)
    dense = DenseELSA(ours.model.items.detach())
    adam = torch.optim.Adam(dense.parameters(), lr=1e-3)
    ways = {
        "ours": ours.step,
        "paper": lambda rows: dense.step(dense_rows(rows, n_items), adam),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with timing.threads(threads):
        for epoch in range(count):
            for way, step in ways.items():
                time.sleep(timing.SETTLE)
                with _as_trained() if way == "ours" else nullcontext():
                    started = time.perf_counter()
                    for at in range(sampler.steps_per_pass):
                        step(sampler.batch(epoch * sampler.steps_per_pass + at))
                    seconds[way].append(time.perf_counter() - started)
    mine, its = (_ndcg(items, cut.test) for items in (ours.model.items, dense.items))
    require(abs(mine - its) < 0.01 * its, "paper")
    case = f"{name} ELSA B=1024 I={n_items} d={d} threads={threads}"
    own, other = (float(np.median(one)) for one in seconds.values())
    peer = {"peer": "paper", "answer_checked": True}
    return [
        record.row(case, "ndcg@20", mine, peer_value=its, **peer),
        record.row(case, "epoch_s", own, peer_value=other, higher_is_better=False, **peer),
    ]


@contextmanager
def _as_trained() -> Iterator[None]:
    """What training.loop does to the process while it trains."""
    with kept_memory(), one_pool():
        yield


def _ndcg(items: torch.Tensor, test: Any) -> float:
    """nDCG@20 of test users, seen items left out, by an ELSA of these item vectors."""
    keep = np.flatnonzero(test.targets.counts_per_user())
    inputs, vectors = test.inputs.rows(keep), items.detach().numpy()
    found = ops.recommend(ops.encode_rows(inputs, vectors), vectors, 20, seen=inputs)
    return metrics.estimate(metrics.ndcg_at(found.ids, test.targets.rows(keep), 20)).mean


def measure(batch: int, n_items: int, d: int, length: int, threads: int, seconds: float) -> list:
    rows = draw_rows(batch, n_items, min(length, n_items // 2))
    ours = OurStep(n_items, d)
    dense = DenseELSA(ours.model.items.detach())
    adam = torch.optim.Adam(dense.parameters(), lr=1e-3)
    ways: dict[str, Any] = {
        "ours": lambda: ours.step_alone(rows),
        "paper": lambda: dense.step(dense_rows(rows, n_items), adam),
    }
    with timing.threads(threads):
        mine = ours.loss(rows).detach()
        its = dense.step(dense_rows(rows, n_items), adam)
        require(torch.allclose(mine, its, rtol=1e-2), "paper")  # ours may multiply in bf16
        timed = timing.interleaved(ways, seconds=seconds, least=3)
    case = f"ELSA B={batch} I={n_items} d={d} threads={threads}"
    peer = {"peer": "paper", "peer_value": timed["paper"].p50, "higher_is_better": False}
    return [record.row(case, "step_ms", timed["ours"].p50, answer_checked=True, **peer)]


def main(arguments: list[str] | None = None) -> None:
    parser = record.arguments("train_elsa", __doc__ or "")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--data", default="anime-5k", help="for the epochs")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--items", type=int, help="steps of this shape alone")
    parser.add_argument("--d", type=int, default=256)
    parser.add_argument("--history", type=int, default=77)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    chosen = parser.parse_args(arguments)
    shapes = [(chosen.items, chosen.d)] if chosen.items else [(40857, 1024)]
    shapes = [(5100, 256)] if chosen.quick else shapes
    rows = []
    for threads in [] if chosen.items else chosen.threads:
        rows += epochs(chosen.data, chosen.d, threads, 3 if chosen.quick else chosen.epochs)
    for n_items, d in shapes:
        for threads in chosen.threads:
            seconds = 3 if chosen.quick else 20
            rows += measure(chosen.batch, n_items, d, chosen.history, threads, seconds)
    record.finish("train_elsa", rows, chosen.json)


if __name__ == "__main__":
    main()
