"""What the code keeps of the ranking, whether names can be trusted, and what steering costs.

Runs the grid of `cfsae experiment` on the shared data sets and a planted catalogue; finished cells
in --out are not run again, so it may be stopped. One seed of one data set takes minutes on two
cores, all of them hours; --quick: a small planted catalogue. Rows of `mean` are over seeds.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import arguments, finish, row
from cfsae_fast.evaluation import experiments
from cfsae_fast.evaluation.experiments.steering import OURS, PAPER

ALL = tuple(sorted(experiments.EXPERIMENTS))


def grids(options: Any) -> list[experiments.Grid]:
    """The grids to run."""
    if options.quick:
        return [replace(experiments.NAMED["quick"], compat=("corrected",))]
    chosen = {"seed": tuple(options.seeds)}
    if options.epochs:
        chosen["sae_training"] = {"epochs": options.epochs}
    shared = replace(
        experiments.NAMED["shared"], compat=("corrected",), data=tuple(options.data),
        model=tuple(options.models), k=tuple(options.k), **chosen,
    )  # fmt: skip
    return [shared, replace(experiments.NAMED["planted"], seed=tuple(options.seeds))]


def numbers(job: dict[str, Any]) -> dict[str, float]:
    """The numbers of one job that are reported, by "mode metric"."""
    results, found = job["results"], {}
    one = results["reconstruction"]
    for way in ("reconstruct", "refined_5", "pursued"):
        found[f"{way} ndcg_kept"] = one[way]["kept"]
    found["code dead_share"] = one["sae"]["dead_share_train"]
    found["code cosine"] = one["sae"]["cosine"]
    trust = results["interpretability"]
    if "detection" in trust:
        found["concepts reading_auc"] = trust["detection"]["reading_auc_median"]
        found["concepts reading_auc_shuffled"] = trust["shuffled"]["reading_auc_median"]
        found["concepts knob_auc"] = trust["detection"]["knob_auc_median"]
        found["concepts calibration_error"] = trust["detection"]["ece"]
        found["concepts intruder_accuracy"] = trust["intruder"]["accuracy"]
        found["concepts share_over_random"] = trust["intervention"]["share_over_random"]
    for protocol, one in results["steering"].items():
        if isinstance(one, dict):
            for name, way in one["ways"].items():
                found[f"{protocol} {name} hypervolume"] = way["hypervolume"]["value"]
            found[f"{protocol} {OURS} cost_of_doubling"] = one["ways"][OURS]["cost_of_doubling"]
    return {name: value for name, value in found.items() if value is not None}


def rows_of(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows per cell, and their means over seeds; hypervolumes against the published method's."""
    rows, seeds = [], defaultdict(list)
    for job in jobs:
        cell = job["job_cfg"]["cell"]
        case = (
            f"{cell['data'].partition(':')[0]} {cell['model']} TopK d={cell['d']} "
            f"L={cell['n_latents']} k={cell['k']}"
        )
        found = numbers(job)
        rows += _rows(f"{case} seed={cell['seed']}", found)
        for name, value in found.items():
            seeds[case, name].append(value)
    cases = dict.fromkeys(case for case, _ in seeds)
    for case in cases:
        means = {name: float(np.mean(v)) for (at, name), v in seeds.items() if at == case}
        rows += _rows(f"{case} mean", means)
    return rows


def _rows(case: str, found: dict[str, float]) -> list[dict[str, Any]]:
    rows = []
    for name, value in found.items():
        mode, metric = name.rsplit(" ", 1)
        peer = found.get(f"{mode.split()[0]} {PAPER} hypervolume")
        against = metric == "hypervolume" and PAPER not in mode and peer
        extra = {"peer": "paper", "peer_value": peer} if against else {}
        rows.append(row(f"{case} {mode}", metric, value, **extra))
    return rows


def main() -> None:
    parser = arguments("science", __doc__)
    parser.add_argument("--data", nargs="*", default=["anime-5k", "hetrec2011-lastfm-2k"])
    parser.add_argument("--models", nargs="*", default=["elsa", "multvae"])
    parser.add_argument("--k", nargs="*", type=int, default=[16, 32])
    parser.add_argument("--seeds", nargs="*", type=int, default=[42, 43, 44, 45, 46])
    parser.add_argument("--epochs", type=int, help="of the SAE (default: the library's)")
    parser.add_argument("--out", type=Path, default=Path("runs/science"))
    options = parser.parse_args()
    folder = options.out / "quick" if options.quick else options.out
    jobs = [job for grid in grids(options) for job in experiments.run(grid, ALL, folder, say=print)]
    finish("science", rows_of(jobs), options.json)


if __name__ == "__main__":
    main()
