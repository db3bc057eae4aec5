"""What the code keeps of the ranking, whether names can be trusted, and what steering costs.

Runs the grid of `cfsae experiment` on the shared data sets and a planted catalogue; finished cells
in --out are not run again, so it may be stopped. One seed of one data set takes minutes on two
cores, all of them hours; --quick: a small planted catalogue. Rows of `mean` are over seeds, each of
which splits the users anew; _low and _high bound their mean at 95 %, by Student's t.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.record import arguments, finish, row
from cfsae_fast.evaluation import experiments
from cfsae_fast.evaluation.experiments.steering import OURS, PAPER

PLANTED = "planted"  # among --data


def grids(options: Any) -> list[experiments.Grid]:
    """The grids to run."""
    if options.quick:
        return [replace(experiments.NAMED["quick"], compat=("corrected",))]
    seeds = {"seed": tuple(options.seeds)}
    shared = replace(
        experiments.NAMED["shared"], compat=("corrected",), model=tuple(options.models),
        data=tuple(one for one in options.data if one != PLANTED), k=tuple(options.k),
        sae_training={"epochs": options.epochs} if options.epochs else {}, **seeds,
    )  # fmt: skip
    planted = [replace(experiments.NAMED[PLANTED], **seeds)] if PLANTED in options.data else []
    return ([shared] if shared.data else []) + planted


def numbers(job: dict[str, Any]) -> dict[str, float]:
    """The numbers of one job that are reported, by "mode metric"."""
    results, found = job["results"], {}
    if "reconstruction" in results:
        one = results["reconstruction"]
        for way in ("reconstruct", "refined_5", "pursued"):
            found[f"{way} ndcg_kept"] = one[way]["kept"]
        found["code dead_share"] = one["sae"]["dead_share_train"]
        found["code cosine"] = one["sae"]["cosine"]
    trust = results.get("interpretability", {})
    if "planted" in trust:
        found["planted best_latent"] = trust["planted"]["best_latent"]
        found["planted with_splits"] = trust["planted"]["with_splits"]
        found["planted posterior"] = trust["planted"]["limits"].get("posterior")
    if "detection" in trust:
        found["concepts reading_auc"] = trust["detection"]["reading_auc_median"]
        found["concepts reading_auc_shuffled"] = trust["shuffled"]["reading_auc_median"]
        found["concepts knob_auc"] = trust["detection"]["knob_auc_median"]
        found["concepts calibration_error"] = trust["detection"]["ece"]
        found["concepts intruder_accuracy"] = trust["intruder"]["accuracy"]
        found["concepts share_over_random"] = trust["intervention"]["share_over_random"]
    for protocol, one in results.get("steering", {}).items():
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
            f"{_source(cell['data'])} {cell['model']} TopK d={cell['d']} "
            f"L={cell['n_latents']} k={cell['k']}"
        )
        found = numbers(job)
        rows += _rows(f"{case} seed={cell['seed']}", found)
        for name, value in found.items():
            seeds[case, name].append(value)
    cases = dict.fromkeys(case for case, _ in seeds)
    for case in cases:
        each = {name: v for (at, name), v in seeds.items() if at == case}
        means = {name: float(np.mean(v)) for name, v in each.items()}
        rows += _rows(f"{case} mean", {**means, **_bounds(each)})
    return rows


def _bounds(each: dict[str, list[float]]) -> dict[str, float]:
    """95 % bounds of the mean over seeds, for what at least two seeds say."""
    found = {}
    for name, values in each.items():
        if len(values) > 1:
            reach = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
            found[f"{name}_low"] = float(np.mean(values) - reach)
            found[f"{name}_high"] = float(np.mean(values) + reach)
    return found


def _source(data: str) -> str:
    """A data set's name; of a planted catalogue what tells it from the other."""
    name, _, options = data.partition(":")
    return name + "".join(f" {one}" for one in options.split(",") if one.startswith("mean_history"))


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
    parser.add_argument("--data", nargs="*", default=["anime-5k", "hetrec2011-lastfm-2k", PLANTED])
    parser.add_argument("--models", nargs="*", default=["elsa", "multvae"])
    parser.add_argument("--k", nargs="*", type=int, default=[16, 32])
    parser.add_argument("--seeds", nargs="*", type=int, default=[42, 43, 44, 45, 46])
    parser.add_argument("--epochs", type=int, help="of the SAE (default: the library's)")
    parser.add_argument(
        "--experiments", nargs="*", choices=experiments.ALL, default=experiments.ALL
    )
    parser.add_argument("--out", type=Path, default=Path("runs/science"))
    options = parser.parse_args()
    folder = options.out / "quick" if options.quick else options.out
    chosen = tuple(options.experiments)
    jobs = [
        one for grid in grids(options) for one in experiments.run(grid, chosen, folder, say=print)
    ]
    finish("science", rows_of(jobs), options.json)


if __name__ == "__main__":
    main()
