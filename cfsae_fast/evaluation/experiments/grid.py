"""Floor 6: a grid of experiments: every cell is trained and judged once, and survives a kill.

Station: the whole story, many times. A finished cell is one JSON file; a run that was killed skips
those, and goes on with half-trained models from their checkpoints.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cfsae_fast import io
from cfsae_fast.config import CFAEConfig, SAEConfig, TrainConfig, to_dict
from cfsae_fast.data import Filters, MinItemInteractions, MinUserInteractions, MinValue, load
from cfsae_fast.errors import require_extra
from cfsae_fast.evaluation.experiments import interpretability, reconstruction, steering
from cfsae_fast.evaluation.protocol import Protocol, prepare
from cfsae_fast.recommender import Fitted
from cfsae_fast.recommender.labelling import label

EXPERIMENTS: dict[str, Callable[[Fitted, Protocol, Cell], dict[str, Any]]] = {
    "reconstruction": reconstruction.judge,
    "interpretability": interpretability.judge,
    "steering": steering.judge,
}


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

    @property
    def name(self) -> str:
        """As benchmarks spell a case."""
        source = self.data.partition(":")[0]
        return (
            f"{source} {self.model} TopK d={self.d} L={self.n_latents} k={self.k} "
            f"loss={self.loss} compat={self.compat} seed={self.seed}"
        )


@dataclass(frozen=True)
class Grid:
    """All combinations of data, model, d, wide (L / d), k, loss, compat and seed, and what they
    share: training settings, filters (min_value, min_item, min_user), histories and l1 of the SAE.
    """

    LISTS: ClassVar[tuple[str, ...]] = (
        "data", "model", "d", "wide", "k", "loss", "compat", "seed",
    )  # fmt: skip

    data: tuple[str, ...]
    model: tuple[str, ...] = ("elsa",)
    d: tuple[int, ...] = (256,)
    wide: tuple[int, ...] = (8,)
    k: tuple[int, ...] = (32,)
    loss: tuple[str, ...] = ("l2",)
    compat: tuple[str, ...] = ("corrected",)
    seed: tuple[int, ...] = (42,)
    l1: float | None = None
    histories: str = "auto"
    min_tag: int = 1
    filters: dict[str, Any] = field(default_factory=lambda: {"min_user": 5})
    sae_training: dict[str, Any] = field(default_factory=dict)
    cfae_training: dict[str, Any] = field(default_factory=dict)

    def cells(self) -> Iterator[Cell]:
        """Cells that share a CFAE stand together."""
        for data, seed, model, d in itertools.product(self.data, self.seed, self.model, self.d):
            for compat, wide, loss, k in itertools.product(
                self.compat, self.wide, self.loss, self.k
            ):
                yield Cell(data, model, d, wide * d, k, loss, compat, seed)

    def sae(self, cell: Cell) -> SAEConfig:
        return SAEConfig(
            k=cell.k,
            n_latents=cell.n_latents,
            loss=cell.loss,
            compat=cell.compat,
            l1=self.l1,
            histories=self.histories,
        )


def run(
    grid: Grid,
    experiments: tuple[str, ...],
    folder: Path,
    *,
    say: Callable[[str], None] = lambda text: None,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Train and judge every cell that `folder` does not hold yet; all cells' rows.

    Leaves cells/<cell>.json, results.json ({"job_cfg", "results"} per cell) and results.parquet.
    """
    unknown = sorted(set(experiments) - set(EXPERIMENTS))
    if unknown:
        raise ValueError(f"experiments must be among {sorted(EXPERIMENTS)}, got unknown {unknown}")
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    cells, bench = list(grid.cells()), _Bench(grid, folder, progress)
    jobs = []
    for at, cell in enumerate(cells):
        path = folder / "cells" / f"{_key(grid, cell)}.json"
        done = json.loads(path.read_text()) if path.exists() else None
        missing = [one for one in experiments if done is None or one not in done["results"]]
        if missing:
            say(f"{at + 1} / {len(cells)}: {cell.name}")
            fitted, cut = bench.fitted(cell)
            found = {one: EXPERIMENTS[one](fitted, cut, cell) for one in missing}
            done = _job(grid, cell, {**(done or {"results": {}})["results"], **found})
            io.write_json(path, done)
        jobs.append(done)
    io.write_json(folder / "results.json", jobs)
    rows = [row for job in jobs for row in flat(job)]
    _parquet(rows, folder / "results.parquet")
    return jobs


def flat(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per number of a job: the cell's settings, experiment, metric, value."""
    settings = job["job_cfg"]["cell"]

    def walk(at: str, value: Any) -> Iterator[tuple[str, float]]:
        if isinstance(value, dict):
            for name, one in value.items():
                yield from walk(f"{at}.{name}" if at else name, one)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield at, float(value)

    for experiment, found in job["results"].items():
        for metric, value in walk("", found):
            yield {**settings, "experiment": experiment, "metric": metric, "value": value}


class _Bench:
    """Keeps the last data set, CFAE and embeddings: neighbouring cells share them."""

    def __init__(self, grid: Grid, folder: Path, progress: bool) -> None:
        self.grid, self.folder, self.progress = grid, folder, progress
        self._cut: tuple[Any, Protocol] | None = None
        self._cfae: tuple[Any, Any] | None = None

    def cut(self, cell: Cell) -> Protocol:
        at = (cell.data, cell.seed)
        if self._cut is None or self._cut[0] != at:
            steps = _filters(self.grid.filters)
            dataset = load(cell.data, tags="both")
            self._cut = (
                at,
                prepare(dataset, filters=steps, seed=cell.seed, min_tag=self.grid.min_tag),
            )
        return self._cut[1]

    def fitted(self, cell: Cell) -> tuple[Fitted, Protocol]:
        require_extra("torch", extra="train", purpose="running experiments")
        from cfsae_fast import training

        cut, held = self.cut(cell), None
        keep = np.flatnonzero(cut.validation.targets.counts_per_user() > 0)
        held = training.HeldOut(cut.validation.inputs.rows(keep), cut.validation.targets.rows(keep))
        shared = {"validation": held, "resume": True, "progress": self.progress}
        at = (cell.data, cell.seed, cell.model, cell.d)
        runs = self.folder / "runs" / _digest(at, asdict(self.grid))
        if self._cfae is None or self._cfae[0] != at:
            config = TrainConfig.for_cfae(
                cell.model, **{**self.grid.cfae_training, "seed": cell.seed}
            )
            found = training.fit_cfae(
                cut.train.rows(), cut.train.n_items, CFAEConfig(model=cell.model, d=cell.d),
                config, run_dir=runs / "cfae", **shared,
            )  # fmt: skip
            self._cfae = at, found
        module = self._cfae[1]
        config = TrainConfig.for_sae(**{**self.grid.sae_training, "seed": cell.seed})
        sae = training.fit_sae(
            module, cut.train.rows(), self.grid.sae(cell), config,
            run_dir=runs / f"sae-{_key(self.grid, cell)}", **shared,
        )  # fmt: skip
        return _assembled(cut, module.network(), sae.network()), cut


def _assembled(cut: Protocol, cfae: Any, sae: Any) -> Fitted:
    embedding = cfae.encode(cut.train.rows())
    fitted = Fitted(
        cfae=cfae,
        sae=sae,
        user_ids=cut.train.user_ids,
        item_ids=cut.train.item_ids,
        histories=cut.train.rows(),
        cold=embedding.mean(axis=0, dtype=np.float64).astype(np.float32),
        titles=None if cut.dataset.titles is None else np.array(cut.dataset.titles),
    )
    return fitted if cut.tags is None else label(fitted, cut.tags)


def _job(grid: Grid, cell: Cell, results: dict[str, Any]) -> dict[str, Any]:
    """A superset of the published result files: job_cfg and results."""
    job = {"cell": asdict(cell), "grid": asdict(grid), "sae": to_dict(grid.sae(cell))}
    return _without_nan({"job_cfg": job, "results": results})


def _without_nan(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON cannot say."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def _filters(settings: dict[str, Any]) -> Filters:
    kinds = {
        "min_value": MinValue,
        "min_item": MinItemInteractions,
        "min_user": MinUserInteractions,
    }
    unknown = sorted(set(settings) - set(kinds))
    if unknown:
        raise ValueError(f"filters must be among {list(kinds)}, got unknown {unknown}")
    return Filters(*(kind(settings[name]) for name, kind in kinds.items() if name in settings))


def _key(grid: Grid, cell: Cell) -> str:
    """A name for a cell's file, with a digest of everything that its numbers depend on."""
    whole = {**asdict(replace(grid, **dict.fromkeys(Grid.LISTS, ())))}
    source = "".join(c if c.isalnum() else "-" for c in cell.data)[:40]
    return (
        f"{source}-{cell.model}-d{cell.d}-L{cell.n_latents}-k{cell.k}-{cell.loss}-{cell.compat}"
        f"-s{cell.seed}-{_digest(whole)}"
    )


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def _parquet(rows: list[dict[str, Any]], path: Path) -> None:
    polars = require_extra("polars", extra="train", purpose="writing results.parquet")
    names = [one.name for one in fields(Cell)] + ["experiment", "metric", "value"]
    polars.DataFrame({name: [row[name] for row in rows] for name in names}).write_parquet(path)
