"""How long do training steps of ELSA take, against the published dense step?

Rows of a catalogue of the given shape, drawn by popularity; a step's time is what an epoch has
users / batch of. Quality at these settings stands in `benchmarks.quality`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks import record, timing
from benchmarks.answers import require
from benchmarks.peers.paper import DenseELSA
from cfsae_fast.config import CFAEConfig, TrainConfig
from cfsae_fast.models import make_cfae
from cfsae_fast.ops import Rows
from cfsae_fast.training.loop import autocast, decided


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
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=1e-3, weight_decay=0.0, fused=True
        )

    def loss(self, rows: Rows) -> torch.Tensor:
        with autocast(self.config):
            return self.model.loss(rows, generator=torch.Generator().manual_seed(0), step=0)[0]

    def step(self, rows: Rows) -> None:
        loss = self.loss(rows)
        self.optimizer.zero_grad(set_to_none=True)
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


def measure(batch: int, n_items: int, d: int, length: int, threads: int, seconds: float) -> list:
    rows = draw_rows(batch, n_items, min(length, n_items // 2))
    ours = OurStep(n_items, d)
    dense = DenseELSA(ours.model.items.detach())
    adam = torch.optim.Adam(dense.parameters(), lr=1e-3)
    ways: dict[str, Any] = {
        "ours": lambda: ours.step(rows),
        "paper": lambda: dense.step(dense_rows(rows, n_items), adam),
    }
    with timing.threads(threads):
        mine = ours.loss(rows).detach()
        its = dense.step(dense_rows(rows, n_items), adam)
        require(torch.allclose(mine, its, rtol=1e-2), "paper")  # ours multiplies in bf16
        timed = timing.interleaved(ways, seconds=seconds, least=3)
    case = f"ELSA B={batch} I={n_items} d={d} threads={threads}"
    peer = {"peer": "paper", "peer_value": timed["paper"].p50, "higher_is_better": False}
    return [record.row(case, "step_ms", timed["ours"].p50, answer_checked=True, **peer)]


def main(arguments: list[str] | None = None) -> None:
    parser = record.arguments("train_elsa", __doc__ or "")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--items", type=int, help="default: 5,100 (d 256) and 40,857 (d 1024)")
    parser.add_argument("--d", type=int, default=256)
    parser.add_argument("--history", type=int, default=77)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    chosen = parser.parse_args(arguments)
    shapes = [(chosen.items, chosen.d)] if chosen.items else [(5100, 256), (40857, 1024)]
    shapes = shapes[:1] if chosen.quick else shapes
    rows = []
    for n_items, d in shapes:
        for threads in chosen.threads:
            seconds = 3 if chosen.quick else 20
            rows += measure(chosen.batch, n_items, d, chosen.history, threads, seconds)
    record.finish("train_elsa", rows, chosen.json)


if __name__ == "__main__":
    main()
