"""Which width d of the base model ranks best for validation users?

nDCG@20 of validation and of test users, seed by seed and in the mean, of the same splits and base
models as `benchmarks.science`; base models in --out are not trained again. The best d is that of
the validation users.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import arguments, finish, row
from cfsae_fast.evaluation import experiments
from cfsae_fast.evaluation.experiments import Grid
from cfsae_fast.evaluation.experiments.bench import Bench
from cfsae_fast.training import HeldOut, ndcg_of

GENERATED = "generated:users=600,items=500,concepts=8,seed=1"


def judged(grid: Grid, folder: Path) -> dict[int, dict[str, float]]:
    """Per d the mean nDCG@20 over the grid's seeds, of validation and of test users."""
    bench, found = Bench(grid, folder, False), {}
    for cell in sorted(grid.cells(), key=lambda one: (one.seed, one.d)):
        cut, base = bench.cut(cell), bench.base(cell)
        for name, held in (("validation", cut.validation), ("test", cut.test)):
            value = ndcg_of(base, HeldOut(held.inputs.rows(), held.targets.rows()))
            found.setdefault(cell.d, {}).setdefault(name, []).append(value)
        print(f"{cell.data} {cell.model} d={cell.d} seed={cell.seed}", flush=True)
    return {d: {name: float(np.mean(each)) for name, each in one.items()}
            for d, one in found.items()}  # fmt: skip


def rows_of(data: str, model: str, found: dict[int, dict[str, float]]) -> list[dict[str, Any]]:
    """A row per d and part of the users, and the best d by validation users."""
    rows = [
        row(f"{data} {model} d={d}", f"{name} ndcg@20", value)
        for d, one in found.items() for name, value in one.items()
    ]  # fmt: skip
    best = max(found, key=lambda d: found[d]["validation"])
    return [*rows, row(f"{data} {model}", "best d", best)]


def main() -> None:
    parser = arguments("best_d", __doc__)
    parser.add_argument("--data", nargs="*", default=["anime-5k", "hetrec2011-lastfm-2k"])
    parser.add_argument("--models", nargs="*", default=["elsa", "multvae"])
    parser.add_argument("--d", nargs="*", type=int, default=[64, 128, 256, 512, 1024])
    parser.add_argument("--seeds", nargs="*", type=int, default=[42, 43])
    parser.add_argument("--out", type=Path, default=Path("runs/science"))
    options = parser.parse_args()
    if options.quick:
        options.data, options.d = [GENERATED], [8, 16]
    common = replace(experiments.NAMED["shared"], compat=("corrected",), k=(16,))
    rows = []
    for data in options.data:
        for model in options.models:
            one = {"data": (data,), "model": (model,), "d": tuple(options.d)}
            grid = replace(common, **one, seed=tuple(options.seeds))
            rows += rows_of(data, model, judged(grid, options.out))
    finish("best_d", rows, options.json)


if __name__ == "__main__":
    main()
