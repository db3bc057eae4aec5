"""Ways to train an SAE beside the default: what they keep. Most did not become options.

plain: of what FEW_ROWS gives the spare latents alone; wide, noise: that one of it too. constant:
the loss of 4 k does not fall. spare*: another share of spare latents. asleep: silent latents are
not woken. The others are as plain, and: k64: k falls from 64 over the first half of the steps.
jumprelu: no spare latents; a learned threshold per latent, k of them on average, at most 4 k
(Rajamanoharan et al. 2024, arXiv 2407.14435). kaux*: AuxK with so many latents per d. matryoshka:
the losses of the first 1/16 and 1/4 of the latents too (Bussmann et al. 2025, arXiv 2503.17547).
ranking: also KL of the base model's softmax over all items and of that of the reconstruction,
through the frozen decoder. untied: an encoder that starts as the published one, not as the
dictionary. Judged as the experiment `reconstruction` does; base models in --out are not trained
again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.best_d import GENERATED
from benchmarks.record import arguments, finish
from benchmarks.science import rows_of
from cfsae_fast import ops, training
from cfsae_fast.config import FEW_ROWS, WIDE_SHARE, SAEConfig, TrainConfig
from cfsae_fast.evaluation.experiments import Grid, reconstruction
from cfsae_fast.evaluation.experiments.bench import Bench, assembled
from cfsae_fast.inference import SAENetwork
from cfsae_fast.models import SparseAutoencoder
from cfsae_fast.models.sae import WIDER
from cfsae_fast.ops import PADDING, Code, Encoded
from cfsae_fast.training.spares import settled, with_spares, without_spares
from cfsae_fast.training.waking import wake_all

START_K = 64
PREFIXES, KL_WEIGHT = (1 / 16, 1 / 4), 1.0
BANDWIDTH, SPARSITY = 0.2, 0.05  # of jumprelu: its gradient's window, the weight of its k


class FallingK(SparseAutoencoder):
    """k falls linearly from START_K over the first half of `steps`."""

    steps, step = 1, 0

    @property
    def width(self) -> int:
        left = max(0.0, 1 - 2 * self.step / self.steps) if self.training else 0.0
        return round(self.config.k + (START_K - self.config.k) * left)

    def loss(self, embedding: Tensor, *, generator: torch.Generator, step: int):
        self.step = step
        return super().loss(embedding, generator=generator, step=step)


class Matryoshka(SparseAutoencoder):
    """The loss, and that of the code's latents among the first PREFIXES of all, for each."""

    def loss(self, embedding: Tensor, *, generator: torch.Generator, step: int):
        loss, logged = super().loss(embedding, generator=generator, step=step)
        (indices, values), stats = self._encode_training(embedding)
        target = self._target(embedding, stats)
        for share in PREFIXES:
            first = indices < round(share * self.n_latents)  # padding, -1, has the value 0
            code = Code(torch.where(first, indices, PADDING), torch.where(first, values, 0.0))
            loss = loss + self._distance(
                ops.sparse_decode(code, self.dictionary, self.bias), target
            )
        return loss, {**logged, "loss": loss.detach()}


class Ranking(SparseAutoencoder):
    """The loss, and KL_WEIGHT times the mean KL between softmaxes of base and decoded scores."""

    scores_of: Callable[[Tensor], Tensor]

    def loss(self, embedding: Tensor, *, generator: torch.Generator, step: int):
        loss, logged = super().loss(embedding, generator=generator, step=step)
        decoded = self.decode(Encoded(*self._encode_training(embedding)))
        with torch.no_grad():
            wanted = self.scores_of(embedding).log_softmax(dim=1)
        found = self.scores_of(decoded).log_softmax(dim=1)
        kl = nn.functional.kl_div(found, wanted, reduction="batchmean", log_target=True)
        return loss + KL_WEIGHT * kl, {**logged, "kl": kl.detach()}


class Untied(SparseAutoencoder):
    """The encoder starts as compat "paper" has it."""

    def __init__(self, d: int, config: SAEConfig, *, generator: torch.Generator) -> None:
        super().__init__(d, config, generator=generator)
        bound = (6 / self.n_latents) ** 0.5
        with torch.no_grad():
            self.encoder.uniform_(-bound, bound, generator=generator)


class JumpReLU(SparseAutoencoder):
    """An activation counts where it exceeds its latent's threshold, which is learned through a
    window of BANDWIDTH; a penalty holds the mean number at k."""

    def __init__(self, d: int, config: SAEConfig, *, generator: torch.Generator) -> None:
        super().__init__(d, config, generator=generator)
        self.thresholds = nn.Parameter(torch.zeros(self.n_latents))

    @property
    def width(self) -> int:
        return WIDER * self.config.k

    @torch.no_grad()
    def start_from(self, embedding: Tensor) -> None:
        super().start_from(embedding)
        values = super()._encode_wide(embedding[:2048]).code.values
        self.thresholds.fill_(float(values[:, self.config.k - 1].mean()))

    def loss(self, embedding: Tensor, *, generator: torch.Generator, step: int):
        (indices, values), stats = self._encode_wide(embedding)
        level = self.thresholds[indices.clamp_min(0).long()]
        near = ((values - level).abs() < BANDWIDTH / 2).float() / BANDWIDTH
        past = level - level.detach()  # zero, with the threshold's gradient
        on = (values > level).float()
        code = Code(indices, values * on - level.detach() * near * past)
        target = self._target(embedding, stats)
        output = ops.sparse_decode(code, self.dictionary, self.bias)
        count = (on - near * past).sum(dim=1).mean()
        aux, dead = self._aux(embedding, (target - output).detach())
        loss = self._distance(output, target) + SPARSITY * (count / self.config.k - 1).square()
        self._watch(Code(torch.where(on > 0, indices, PADDING), code.values))
        loss = loss + self.config.aux_coefficient * aux
        return loss, {"loss": loss.detach(), "l0": count.detach(), "dead": dead}

    def network(self) -> SAENetwork:
        plain = super().network()
        return _Jumping(**{**vars(plain), "levels": self.thresholds.detach().numpy()})


@dataclass(frozen=True)
class _Jumping(SAENetwork):
    levels: np.ndarray | None = None

    def finish(self, encoded: Encoded) -> Encoded:
        indices, values = encoded.code
        kept = values > self.levels[np.maximum(indices, 0)]
        return encoded._replace(
            code=Code(np.where(kept, indices, PADDING), np.where(kept, values, 0))
        )


class Constant(SparseAutoencoder):
    """The loss of 4 k keeps its weight."""

    def wide_weight(self, step: int) -> float:
        return self.config.wide_loss


@dataclass(frozen=True)
class Variant:
    kind: type[SparseAutoencoder] = SparseAutoencoder
    settings: dict[str, Any] = field(default_factory=dict)


def variants(d: int) -> dict[str, Variant]:
    plain = {"wide_loss": 0.0, "noise": 0.0, "wake": False}
    return {
        "default": Variant(),
        "plain": Variant(settings=plain),
        "wide": Variant(settings=plain | {"wide_loss": FEW_ROWS["wide_loss"]}),
        "noise": Variant(settings=plain | {"noise": FEW_ROWS["noise"]}),
        "constant": Variant(Constant),
        **{f"spare{share}": Variant(settings={"spare": share}) for share in (0.0, 0.25, 1.0)},
        "asleep": Variant(settings={"wake": False}),
        "k64": Variant(FallingK, plain),
        "matryoshka": Variant(Matryoshka, plain),
        "ranking": Variant(Ranking, plain),
        "untied": Variant(Untied, plain),
        "jumprelu": Variant(JumpReLU, plain | {"spare": 0.0}),
        **{
            f"kaux{share}": Variant(settings=plain | {"k_aux": round(d * share)})
            for share in (0.25, 1, 2)
        },
    }


def judge(bench: Bench, cell: Any, one: Variant, steps: int) -> dict[str, Any]:
    """Train the variant and judge it, in the shape of an experiment's job."""
    cut, base, rows = bench.cut(cell), bench.base(cell), bench.cut(cell).train.rows()
    config = TrainConfig.for_sae(epochs=1, steps_per_epoch=steps, seed=cell.seed)
    sampler = training.EmbeddingSampler(
        base.encode, rows, config.batch_size, seed=cell.seed, mixed=True
    )
    sae = settled(replace(bench.grid.sae(cell), **one.settings), base.d, sampler.n_rows, sums=True)
    generator = torch.Generator().manual_seed(cell.seed)
    model = one.kind(base.d, with_spares(sae), generator=generator)
    model.steps, model.wide_until = steps, WIDE_SHARE * steps
    model.scores_of = base.requires_grad_(False).decode
    model.start_from(torch.cat([sampler.batch(at) for at in range(8)]))
    training.train(model, sampler, config)
    model = without_spares(model, sae, sampler.whole(1024))
    if sae.wake:
        wake_all(model, sampler)
    network = model.network()
    fitted = assembled(cut, base.network(), network, labelled=False)
    found = reconstruction.judge(fitted, cut, cell)
    return {"job_cfg": {"cell": vars(cell)}, "results": {"reconstruction": found}}


def main() -> None:
    parser = arguments("science_variants", __doc__)
    parser.add_argument("--data", default="anime-5k")
    parser.add_argument("--d", type=int, default=256)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--seeds", nargs="*", type=int, default=[42, 43, 44])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--variants", nargs="*", choices=list(variants(1)), default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/science"))
    options = parser.parse_args()
    data = GENERATED if options.quick else options.data
    grid = Grid(
        data=(data,),
        d=(32 if options.quick else options.d,),
        k=(options.k,),
        seed=tuple(options.seeds),
    )
    bench, rows = Bench(grid, options.out, False), []
    for name in options.variants or variants(1):
        jobs = []
        for cell in grid.cells():
            print(f"{name}: {cell.name}", flush=True)
            jobs.append(judge(bench, cell, variants(cell.d)[name], options.steps))
        rows += [{**one, "case": f"{name} {one['case']}"} for one in rows_of(jobs)]
    finish("science_variants", rows, options.json)


if __name__ == "__main__":
    main()
