"""Floor 6: a grid of experiments: every cell is trained and judged once, and survives a kill.

Station: the whole story, many times. A finished cell is one JSON file; a run that was killed skips
those, and goes on with half-trained models from their checkpoints. Cells do not know of each other,
so that several workers leave the same numbers as one.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from cfsae_fast import io
from cfsae_fast.config import to_dict
from cfsae_fast.errors import require_extra
from cfsae_fast.evaluation.experiments import (
    interpretability,
    reconstruction,
    seeds,
    steering,
    users,
)
from cfsae_fast.evaluation.experiments.bench import Bench
from cfsae_fast.evaluation.experiments.cells import Cell, Grid
from cfsae_fast.evaluation.protocol import Protocol
from cfsae_fast.recommender import Fitted

EXPERIMENTS: dict[str, Callable[[Fitted, Protocol, Cell], dict[str, Any]]] = {
    "reconstruction": reconstruction.judge,
    "interpretability": interpretability.judge,
    "steering": steering.judge,
    "users": users.judge,
}
UNLABELLED = ("reconstruction",)  # needs no concepts
ALL = ("interpretability", "reconstruction", "steering")  # users needs an extra of its own


def run(
    grid: Grid,
    experiments: tuple[str, ...],
    folder: Path,
    *,
    workers: int = 1,
    say: Callable[[str], None] = lambda text: None,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Train and judge every cell that `folder` does not hold yet; all cells' rows.

    Leaves cells/<cell>.json, results.json ({"job_cfg", "results"} per cell), results.parquet,
    and seeds.json (means over seeds with their bounds, paired differences of settings).
    workers: processes that share the cells, and the machine's threads; first they train the base
    models, each of which several cells build on.

    Raises:
        ValueError: an unknown experiment, or workers is not positive.
    """
    unknown = sorted(set(experiments) - set(EXPERIMENTS))
    if unknown:
        raise ValueError(f"experiments must be among {sorted(EXPERIMENTS)}, got unknown {unknown}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    cells = list(grid.cells())
    names = {cell: f"{at + 1} / {len(cells)}: {cell.name}" for at, cell in enumerate(cells)}
    todo = [cell for cell in cells if _missing(grid, cell, experiments, folder)]
    if workers == 1 or len(todo) < 2:
        bench = Bench(grid, folder, progress)
        for cell in todo:
            say(names[cell])
            _judge(bench, cell, experiments)
    else:
        _together(grid, todo, experiments, folder, min(workers, len(todo)), names, say)
    jobs = [json.loads(_path(grid, cell, folder).read_text()) for cell in cells]
    io.write_json(folder / "results.json", jobs)
    rows = [row for job in jobs for row in flat(job)]
    _parquet(rows, folder / "results.parquet")
    single = [row for row in rows if "@" not in row["metric"]]  # no points of curves
    compared = {"means": seeds.over_seeds(single), "differences": seeds.differences(single)}
    io.write_json(folder / "seeds.json", compared)
    return jobs


def flat(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per number of a job: the cell's settings, experiment, metric, value; of a curve one
    per strength, "metric@strength"."""
    settings = job["job_cfg"]["cell"]
    for experiment, found in job["results"].items():
        for metric, value in _numbers("", found) if experiment in EXPERIMENTS else ():
            yield {**settings, "experiment": experiment, "metric": metric, "value": value}


def _numbers(at: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        strengths = value.get("strengths", [])
        for name, one in value.items():
            where = f"{at}.{name}" if at else name
            if isinstance(one, list) and name != "strengths" and len(one) == len(strengths):
                for strength, each in zip(strengths, one, strict=True):
                    yield from _numbers(f"{where}@{strength:g}", each)
            else:
                yield from _numbers(where, one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield at, float(value)


def _missing(grid: Grid, cell: Cell, experiments: Iterable[str], folder: Path) -> list[str]:
    path = _path(grid, cell, folder)
    done = json.loads(path.read_text())["results"] if path.exists() else {}
    return [one for one in experiments if one not in done]


def _judge(bench: Bench, cell: Cell, experiments: tuple[str, ...]) -> None:
    """Train a cell, run what is missing of its experiments, and write its file."""
    grid, folder = bench.grid, bench.folder
    path, missing = _path(grid, cell, folder), _missing(grid, cell, experiments, folder)
    labelled = any(one not in UNLABELLED for one in missing)
    fitted, cut = bench.fitted(cell, labelled=labelled)
    done = json.loads(path.read_text())["results"] if path.exists() else {}
    found = {one: EXPERIMENTS[one](fitted, cut, cell) for one in missing}
    io.write_json(path, _job(grid, cell, {**done, **found}))


_bench: Bench  # of a worker process


def _start_worker(grid: Grid, folder: Path, threads: int) -> None:
    global _bench
    torch = require_extra("torch", extra="train", purpose="running experiments")
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _bench = Bench(grid, folder, False)


def _end_with_parent() -> None:
    """A worker that outlived a killed run would write into the folder of the next one, and then
    wait for ever: the pool's queue has no end that closes."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _train_base(cell: Cell) -> None:
    _bench.base(cell)


def _judge_here(cell: Cell, experiments: tuple[str, ...]) -> Cell:
    _judge(_bench, cell, experiments)
    return cell


def _together(
    grid: Grid, todo: list[Cell], experiments: tuple[str, ...], folder: Path, workers: int,
    names: dict[Cell, str], say: Callable[[str], None],
) -> None:  # fmt: skip
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    spawn = multiprocessing.get_context("spawn")  # a forked torch may hang
    with ProcessPoolExecutor(
        workers, mp_context=spawn, initializer=_start_worker, initargs=(grid, folder, threads)
    ) as pool:
        bases = list({cell.base: cell for cell in todo}.values())
        for at, _ in enumerate(pool.map(_train_base, bases), start=1):
            say(f"trained base model {at} / {len(bases)}")
        for cell in pool.map(_judge_here, todo, itertools.repeat(experiments)):
            say(f"done {names[cell]}")


def _path(grid: Grid, cell: Cell, folder: Path) -> Path:
    return folder / "cells" / f"{grid.key(cell)}.json"


def _job(grid: Grid, cell: Cell, results: dict[str, Any]) -> dict[str, Any]:
    """A superset of the published result files: job_cfg with their options, and results with their
    val and test where the cell is of the published kind (compat "paper")."""
    sae, training = grid.sae(cell), grid.training(cell)[1]
    options = {
        "dataset": cell.data,
        "model_class": {"topk": "TopKSAE", "basic": "BasicSAE"}.get(cell.kind, cell.kind),
        "embedding_dim": cell.n_latents,
        "k": cell.k,
        "l1_coef": sae.l1_weight,
        "reconstruction_loss": {"l2": "L2", "cosine": "Cosine"}[cell.loss],
        "epochs": training.epochs,
        "early_stopping": training.patience,
        "batch_size": training.batch_size,
        "lr": training.lr,
        "beta1": training.betas[0],
        "beta2": training.betas[1],
        "seed": cell.seed,
    }
    job = {**options, "cell": asdict(cell), "grid": asdict(grid), "sae": to_dict(sae)}
    published = results.get("reconstruction", {}).get("paper", {})
    parts = {name: published[name] for name in ("val", "test") if name in published}
    return _without_nan({"job_cfg": job, "results": {**results, **parts}})


def _without_nan(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON cannot say."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def _parquet(rows: list[dict[str, Any]], path: Path) -> None:
    polars = require_extra("polars", extra="train", purpose="writing results.parquet")
    names = [one.name for one in fields(Cell)] + ["experiment", "metric", "value"]
    polars.DataFrame({name: [row[name] for row in rows] for name in names}).write_parquet(path)
