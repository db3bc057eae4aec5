"""How long does one optimisation step of a TopK SAE take?

Peers: `paper`, dense torch; `sparsify`, the SparseCoder of eai-sparsify with its sparse decoder.
Every step meets another batch: a few steps on one batch learn it by heart, which no training does.
Ours is timed after them, with the C library keeping memory as training.loop has it, which would
help the peers too. Before timing, our loss and the gradient of both matrices are compared with the
dense step's; sparsify minimises another loss, so its numbers cannot be.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch

from benchmarks import record, timing
from benchmarks.answers import require
from benchmarks.peers import available
from benchmarks.peers.paper import DenseSAE
from cfsae_fast.config import SAEConfig, TrainConfig
from cfsae_fast.models import make_sae
from cfsae_fast.ops.settings import one_pool
from cfsae_fast.training.adam import AdamW
from cfsae_fast.training.memory import kept_memory

BATCHES = 32


class OurStep:
    """One step as training.loop takes it."""

    def __init__(self, d: int, n_latents: int, k: int, lr: float = 1e-3) -> None:
        config = SAEConfig(n_latents=n_latents, k=k, loss="cosine")
        self.model = make_sae(d, config, seed=1).train()
        betas = TrainConfig.for_sae().betas
        self.optimizer = AdamW(self.model.parameters(), lr=lr, betas=betas)
        self.taken = 0

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.taken)
        self.taken += 1
        return self.model.loss(x, generator=generator, step=self.taken)[0]

    def step(self, x: torch.Tensor) -> None:
        loss = self.loss(x)
        self.optimizer.zero_grad()
        loss.backward()
        self.model.before_step()
        self.optimizer.step()
        self.model.after_step()


def sparsify_step(d: int, n_latents: int, k: int) -> Callable[[torch.Tensor], None]:
    """A step of eai-sparsify's SparseCoder with Adam."""
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(d, SparseCoderConfig(num_latents=n_latents, k=k))
    optimizer = torch.optim.Adam(coder.parameters(), lr=1e-3)

    def step(x: torch.Tensor) -> None:
        optimizer.zero_grad()
        coder(x).fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        coder.set_decoder_norm_to_unit_norm()

    return step


def agree(ours: OurStep, dense: DenseSAE, x: torch.Tensor) -> bool:
    """Whether loss and gradients of one batch are the dense step's."""
    pairs = (("encoder", lambda grad: grad.T), ("dictionary", lambda grad: grad))
    mine, its = ours.loss(x), dense.loss(x)
    mine.backward()
    its.backward()
    same = torch.allclose(mine, its, rtol=1e-4)
    for name, turned in pairs:
        a, b = getattr(ours.model, name).grad, turned(getattr(dense, name).grad)
        same &= bool((a - b).norm() < 1e-3 * b.norm())
    return same


def measure(batch: int, d: int, n_latents: int, k: int, threads: int, seconds: float) -> list[dict]:
    batches = torch.randn(BATCHES, batch, d, generator=torch.Generator().manual_seed(0))
    ours = OurStep(d, n_latents, k)
    dense = DenseSAE(ours.model.encoder.detach(), ours.model.dictionary.detach(), k)
    adam = torch.optim.Adam(dense.parameters(), lr=1e-3)
    steps = {"ours": ours.step} | available(
        {
            "paper": lambda: lambda one: dense.step(one, adam),
            "sparsify": lambda: sparsify_step(d, n_latents, k),
        }
    )
    ways = {name: _on(batches, step) for name, step in steps.items()}
    peers = {name: way for name, way in ways.items() if name != "ours"}
    with timing.threads(threads):
        require(agree(ours, dense, batches[0]), "the dense step")
        timed = timing.interleaved(peers, seconds=0.6 * seconds)
        with kept_memory(), one_pool():
            timed |= timing.interleaved({"ours": ways["ours"]}, seconds=0.4 * seconds)
    case, own = f"B={batch} d={d} L={n_latents} k={k} threads={threads}", timed.pop("ours")
    return [
        record.row(
            case,
            "step_ms",
            own.p50,
            peer=name,
            peer_value=its.p50,
            higher_is_better=False,
            answer_checked=True,
        )
        for name, its in timed.items()
    ]


def _on(batches: torch.Tensor, step: Callable[[torch.Tensor], None]) -> Callable[[], None]:
    """Take the step with the next batch at every call."""
    coming = itertools.cycle(batches)
    return lambda: step(next(coming))


def main(arguments: list[str] | None = None) -> None:
    parser = record.arguments("train_sae", __doc__ or "")
    for name, value in (("batch", 1024), ("d", 1024), ("latents", 8192), ("k", 32)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    chosen = parser.parse_args(arguments)
    rows = [
        one
        for threads in chosen.threads
        for one in measure(
            chosen.batch, chosen.d, chosen.latents, chosen.k, threads, 3 if chosen.quick else 40
        )
    ]
    record.finish("train_sae", rows, chosen.json)


if __name__ == "__main__":
    main()
