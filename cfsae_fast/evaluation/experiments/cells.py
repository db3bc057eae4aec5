"""Floor 6: what an experiment is made of: one cell, and the grid of all combinations.

Station: before everything. A cell's file name tells everything that its numbers depend on.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

from cfsae_fast.config import (
    FEW_ROWS,
    WIDE_SHARE,
    CFAEConfig,
    SAEConfig,
    TrainConfig,
    to_dict,
)

KINDS = {"topk": "TopK", "batchtopk": "BatchTopK", "basic": "Basic"}  # as benchmarks spell them


@dataclass(frozen=True)
class Cell:
    """One SAE on one CFAE on one data set."""

    data: str
    model: str
    d: int
    n_latents: int
    k: int
    loss: str
    compat: str
    seed: int
    l1: float | None = None
    kind: str = "topk"

    @property
    def base(self) -> tuple[str, int, str, int]:
        """What cells that share a CFAE have in common."""
        return self.data, self.seed, self.model, self.d

    @property
    def name(self) -> str:
        """As benchmarks spell a case."""
        source = self.data.partition(":")[0]
        weight = "" if self.l1 is None else f"l1={self.l1:g} "
        return (
            f"{source} {self.model} {KINDS[self.kind]} d={self.d} L={self.n_latents} k={self.k} "
            f"loss={self.loss} {weight}compat={self.compat} seed={self.seed}"
        )


@dataclass(frozen=True)
class Grid:
    """All combinations of data, model, d, wide (L / d), k, loss, l1, compat and seed, and what they
    share: training settings, filters (min_value, min_item, min_user), the SAE's kind and histories.

    published_cfae: the base model as the paper's code has it (METHOD.md 2): ELSA with items of
    length 1 and no dropout; MultVAE on rows as they are, with its slow annealing. sae_config: other
    fields of SAEConfig. min_tag: as `protocol.prepare`, which counts by compat.
    """

    LISTS: ClassVar[tuple[str, ...]] = (
        "data", "model", "d", "wide", "k", "loss", "l1", "compat", "seed",
    )  # fmt: skip

    data: tuple[str, ...]
    model: tuple[str, ...] = ("elsa",)
    d: tuple[int, ...] = (256,)
    wide: tuple[int, ...] = (8,)
    k: tuple[int, ...] = (32,)
    loss: tuple[str, ...] = ("l2",)
    compat: tuple[str, ...] = ("corrected",)
    seed: tuple[int, ...] = (42,)
    l1: tuple[float | None, ...] = (None,)
    kind: str = "topk"
    histories: str = "auto"
    published_cfae: bool = False
    sae_config: dict[str, Any] = field(default_factory=dict)
    min_tag: int = 1
    filters: dict[str, Any] = field(default_factory=lambda: {"min_user": 5})
    sae_training: dict[str, Any] = field(default_factory=dict)
    cfae_training: dict[str, Any] = field(default_factory=dict)

    def cells(self) -> Iterator[Cell]:
        """Cells that share a CFAE stand together."""
        for data, seed, model, d in itertools.product(self.data, self.seed, self.model, self.d):
            for compat, wide, loss, k, l1 in itertools.product(
                self.compat, self.wide, self.loss, self.k, self.l1
            ):
                yield Cell(data, model, d, wide * d, k, loss, compat, seed, l1, self.kind)

    def sae(self, cell: Cell) -> SAEConfig:
        return SAEConfig(
            kind=cell.kind,
            k=cell.k,
            n_latents=cell.n_latents,
            loss=cell.loss,
            compat=cell.compat,
            l1=cell.l1,
            histories=self.histories,
            **self.sae_config,
        )

    def cfae(self, cell: Cell, n_items: int) -> CFAEConfig:
        if not self.published_cfae:
            return CFAEConfig(model=cell.model, d=cell.d)
        if cell.model == "elsa":
            return CFAEConfig(model="elsa", d=cell.d, item_lengths="unit", dropout=0.0)
        # NLL / I + beta KL / d with beta 1e-6 a step, times I: the same minimum
        return CFAEConfig(
            model=cell.model, d=cell.d, normalize_input=False,
            beta_max=n_items / cell.d, anneal_steps=1_000_000,
        )  # fmt: skip

    def training(self, cell: Cell) -> tuple[TrainConfig, TrainConfig]:
        """Of the CFAE, and of the SAE."""
        cfae = TrainConfig.for_cfae(cell.model, **{**self.cfae_training, "seed": cell.seed})
        return cfae, TrainConfig.for_sae(**{**self.sae_training, "seed": cell.seed})

    def key(self, cell: Cell) -> str:
        """A name for a cell's file, with a digest of everything that its numbers depend on."""
        source = "".join(c if c.isalnum() else "-" for c in cell.data)[:40]
        weight = "" if cell.l1 is None else f"-l1-{cell.l1:g}"
        return (
            f"{source}-{cell.model}-d{cell.d}-L{cell.n_latents}-k{cell.k}-{cell.loss}{weight}-"
            f"{cell.compat}-s{cell.seed}-{_digest(cell.data, self._shared(), self._decided(cell))}"
        )

    def base_key(self, cell: Cell) -> str:
        """The same for its CFAE, which does not depend on the SAE's settings."""
        data = self.filters, self.min_tag
        decided = to_dict(self.cfae(cell, 1)), to_dict(self.training(cell)[0])
        return f"{cell.model}-d{cell.d}-s{cell.seed}-{_digest(cell.base, data, decided)}"

    def _decided(self, cell: Cell) -> list[dict[str, Any]]:
        """All settings, defaults filled in: a changed default makes another cell."""
        configs = (self.cfae(cell, 1), self.sae(cell), *self.training(cell))
        return [*map(to_dict, configs), FEW_ROWS | {"wide_share": WIDE_SHARE}]

    def _shared(self) -> dict[str, Any]:
        return asdict(replace(self, **dict.fromkeys(self.LISTS, ())))


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()
