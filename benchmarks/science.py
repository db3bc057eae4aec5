"""What the code keeps of the ranking, whether names can be trusted, and what steering costs.

Runs the grid of `cfsae experiment` on the shared data sets and a planted catalogue; finished cells
in --out are not run again, so it may be stopped. One seed of one data set takes minutes on two
cores, all of them hours; --quick: a small planted catalogue. Rows of `mean` are over seeds, each of
which splits the users anew; _low and _high bound their mean at 95 %, by Student's t. Where a number
has a goal, its mean's row says so in "goal" and "met", and a table of these is printed last, with
the knob's AUC beside the reading's, which the goal is of.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from benchmarks.record import arguments, finish, row
from cfsae_fast.evaluation import experiments
from cfsae_fast.evaluation.experiments.steering import OURS, PAPER

PLANTED = "planted"  # among --data
PROTOCOLS = ("paper", "history", "unseen")  # of steering
OWN = (OURS, "boost (lift map)")  # all other ways are baselines


class Goal(NamedTuple):
    """What a mean over seeds is to reach, where its case and "mode metric" match.

    least: else it is the most. beside: a metric of the same mode that is shown with it, without a
    goal of its own, as the one is easily taken for the other.
    """

    case: str
    number: str
    value: float
    least: bool = True
    beside: str | None = None


GOALS = (
    Goal(r"^(?!generated).* k=16$", r"^reconstruct ndcg_kept$", 0.90),
    Goal(r"^(?!generated).* k=32$", r"^reconstruct ndcg_kept$", 0.95),
    Goal(r"^(?!generated)", r"^code dead_share$", 0.02, least=False),
    # of a ridge regression on all activations; the knob is the few latents that a boost turns
    Goal(r"^(?!generated)", r"^concepts reading_auc$", 0.80, beside="knob_auc"),
    Goal(r"", r"^concepts calibration_error$", 0.10, least=False),
    Goal(r"^generated", r"^planted with_splits$", 0.95),
    Goal(r"^generated", r"^concepts share_over_random$", 5.0),
    Goal(r"^(?!generated)", rf"{re.escape(OURS)} hypervolume_over_paper$", 1.2),
    Goal(r"^(?!generated)", rf"{re.escape(OURS)} hypervolume_over_best$", 1.0),
    Goal(r"^(?!generated)", rf"{re.escape(OURS)} cost_of_doubling$", 0.03, least=False),
)


def grids(options: Any) -> list[experiments.Grid]:
    """The grids to run."""
    if options.quick:
        return [replace(experiments.NAMED["quick"], compat=("corrected",))]
    seeds = {"seed": tuple(options.seeds)}
    shared = replace(
        experiments.NAMED["shared"], compat=("corrected",), model=tuple(options.models),
        data=tuple(one for one in options.data if one != PLANTED), k=tuple(options.k),
        d=tuple(options.d),
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
        found["base ndcg@20"] = one["base"]["ndcg"]["mean"]
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
    steering = results.get("steering", {})
    for protocol in PROTOCOLS:
        if "ways" in steering.get(protocol, {}):
            found |= _volumes(protocol, steering[protocol]["ways"])
    return {name: value for name, value in found.items() if value is not None}


def _volumes(protocol: str, ways: dict[str, Any]) -> dict[str, float | None]:
    """Hypervolumes of all ways; of ours also over the published method's, and over the best of the
    baselines that do not see which items carry the tag."""
    volume = {name: way["hypervolume"]["value"] for name, way in ways.items()}
    found: dict[str, float | None] = {
        f"{protocol} {name} hypervolume": value for name, value in volume.items()
    }
    blind = [volume[name] for name in ways if name not in OWN and not ways[name]["sees_truth"]]
    for name in OWN:
        found[f"{protocol} {name} hypervolume_over_paper"] = _over(volume[name], volume[PAPER])
        found[f"{protocol} {name} hypervolume_over_best"] = _over(volume[name], max(blind))
        found[f"{protocol} {name} cost_of_doubling"] = ways[name]["cost_of_doubling"]
    return found


def _over(value: float, other: float) -> float | None:
    return value / other if other else None


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
        here = _rows(f"{case} mean", {**means, **_bounds(each)})
        for one, name in zip(here, means, strict=False):  # means stand before their bounds
            one |= {"seeds": len(each[name]), **_against_goal(case, name, means[name])}
        rows += here
    return rows


def _against_goal(case: str, number: str, value: float) -> dict[str, Any]:
    """goal and met, and beside, where the number has a goal."""
    for goal in GOALS:
        if re.search(goal.case, case) and re.search(goal.number, number):
            met = value >= goal.value if goal.least else value <= goal.value
            told = {"goal": f"{'>=' if goal.least else '<='} {goal.value:g}", "met": bool(met)}
            return told if goal.beside is None else {**told, "beside": goal.beside}
    return {}


def say_goals(rows: list[dict[str, Any]]) -> None:
    """Print every mean that has a goal, its bounds, the goal, whether it is met, and what is to be
    seen beside it."""
    value = {(one["case"], one["metric"]): one["value"] for one in rows}
    for one in rows:
        if "goal" in one:
            beside = (one["case"], one.get("beside"))
            other = f"; beside it {_said(value, *beside)}" if beside in value else ""
            print(
                f"{'met   ' if one['met'] else 'missed'} {one['case']} "
                f"{_said(value, one['case'], one['metric'])}, "
                f"goal {one['goal']}, seeds {one['seeds']}{other}"
            )


def _said(value: dict[tuple[str, str], float], case: str, metric: str) -> str:
    """A mean with its bounds, where it has any."""
    low, high = (value.get((case, f"{metric}_{end}")) for end in ("low", "high"))
    bounds = "" if low is None else f" ({low:.3f} to {high:.3f})"
    return f"{metric} {value[case, metric]:.3f}{bounds}"


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
    parser.add_argument("--d", nargs="*", type=int, default=[256])
    parser.add_argument("--seeds", nargs="*", type=int, default=[42, 43, 44, 45, 46])
    parser.add_argument("--epochs", type=int, help="of the SAE (default: the library's)")
    parser.add_argument(
        "--experiments", nargs="*", choices=experiments.ALL, default=experiments.ALL
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that share the cells")
    parser.add_argument("--out", type=Path, default=Path("runs/science"))
    options = parser.parse_args()
    folder = options.out / "quick" if options.quick else options.out
    chosen = tuple(options.experiments)
    how = {"workers": options.workers, "say": print}
    jobs = [one for grid in grids(options) for one in experiments.run(grid, chosen, folder, **how)]
    rows = rows_of(jobs)
    finish("science", rows, options.json)
    say_goals(rows)


if __name__ == "__main__":
    main()
