"""Means over seeds, their bounds, and which goal is met, from jobs made by hand."""

import json
import sys

import pytest

from benchmarks import science
from cfsae_fast.evaluation import experiments
from cfsae_fast.evaluation.experiments.steering import OURS, PAPER
from cfsae_fast.evaluation.steerers import PUBLISHED


def reconstruction(seed, kept, dead, *, k=16):
    cell = {"data": "anime-5k", "model": "elsa", "d": 8, "n_latents": 64, "k": k, "seed": seed}
    way = {"kept": kept}
    one = {"reconstruct": way, "refined_5": way, "pursued": way, "base": {"ndcg": {"mean": 0.4}},
           "sae": {"dead_share_train": dead, "cosine": 0.9}}  # fmt: skip
    return {"job_cfg": {"cell": cell}, "results": {"reconstruction": one}}


def rows_by_name(rows):
    return {(one["case"], one["metric"]): one for one in rows}


def test_means_bounds_and_goals_by_hand(capsys):
    jobs = [reconstruction(42, 0.88, 0.0), reconstruction(43, 0.94, 0.06)]
    rows = science.rows_of(jobs)
    found = rows_by_name(rows)
    case = "anime-5k elsa TopK d=8 L=64 k=16 mean"
    kept, dead = found[f"{case} reconstruct", "ndcg_kept"], found[f"{case} code", "dead_share"]
    assert (kept["value"], kept["goal"], kept["met"]) == (pytest.approx(0.91), ">= 0.9", True)
    assert (dead["value"], dead["goal"], dead["met"]) == (pytest.approx(0.03), "<= 0.02", False)
    assert kept["seeds"] == 2
    low = found[f"{case} reconstruct", "ndcg_kept_low"]["value"]
    assert low == pytest.approx(0.91 - 12.7062 * 0.03, abs=1e-4)  # t of one degree of freedom
    assert "goal" not in found[f"{case} pursued", "ndcg_kept"]
    science.say_goals(rows)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and said[0].startswith("met    anime-5k elsa TopK")
    assert said[1].startswith("missed") and said[1].endswith("0.030 (-0.351 to 0.411), "
                                                             "goal <= 0.02, seeds 2")  # fmt: skip


def test_the_knob_stands_beside_the_reading_that_is_judged(capsys):
    """The reading meets the goal and the knob would not: both are printed, the goal is of one."""
    jobs = [reconstruction(seed, 0.9, 0.0) for seed in (42, 43)]
    for job, knob in zip(jobs, (0.6, 0.7), strict=True):
        detection = {"reading_auc_median": 0.82, "knob_auc_median": knob, "ece": 0.04}
        job["results"] = {"interpretability": {
            "detection": detection, "shuffled": detection, "intruder": {"accuracy": 0.3},
            "intervention": {"share_over_random": 6.0},
        }}  # fmt: skip
    rows = science.rows_of(jobs)
    science.say_goals(rows)
    said = capsys.readouterr().out.splitlines()
    assert [one.split()[0] for one in said] == ["met", "met"]
    assert "concepts reading_auc 0.820 (0.820 to 0.820), goal >= 0.8, seeds 2" in said[0]
    assert said[0].endswith("; beside it knob_auc 0.650 (0.015 to 1.285)")
    assert "beside" not in said[1]  # calibration error
    case = "anime-5k elsa TopK d=8 L=64 k=16 mean concepts"
    assert "goal" not in rows_by_name(rows)[case, "knob_auc"]


@pytest.mark.parametrize("k, met", [(16, True), (32, False)])
def test_each_k_has_its_goal(k, met):
    found = rows_by_name(science.rows_of([reconstruction(42, 0.92, 0.0, k=k)]))
    case = f"anime-5k elsa TopK d=8 L=64 k={k} mean reconstruct"
    assert found[case, "ndcg_kept"]["met"] is met
    assert (case, "ndcg_kept_low") not in found  # one seed bounds nothing


@pytest.mark.parametrize("best", ["probe", *list(PUBLISHED)[1:]])
def test_ours_stands_against_the_published_way_and_the_best_that_sees_no_truth(best):
    volumes = {OURS: 0.3, "boost (lift map)": 0.2, PAPER: 0.1, best: 0.25, "told": 0.6}
    ways = {
        name: {"hypervolume": {"value": value}, "cost_of_doubling": None,
               "sees_truth": name == "told"}
        for name, value in volumes.items()
    }  # fmt: skip
    job = reconstruction(42, 0.9, 0.0)
    job["results"] = {"steering": {"unseen": {"ways": ways}}}
    found = rows_by_name(science.rows_of([job]))
    case = f"anime-5k elsa TopK d=8 L=64 k=16 mean unseen {OURS}"
    paper, best = (found[case, f"hypervolume_over_{x}"] for x in ("paper", "best"))
    assert paper["value"] == pytest.approx(3) and paper["met"]
    assert best["value"] == pytest.approx(1.2) and best["met"]
    assert (case, "cost_of_doubling") not in found  # never doubled
    boost = found[case.replace(OURS, "boost (lift map)"), "hypervolume_over_best"]
    assert boost["value"] == pytest.approx(0.8) and "goal" not in boost


def test_every_asked_number_of_a_run_has_its_goal(monkeypatch, tmp_path):
    """The grids of the command: data sets, both base models, both k, five seeds, and planted."""
    asked = []
    monkeypatch.setattr(
        experiments, "run", lambda grid, *args, **options: asked.append((grid, options)) or []
    )
    monkeypatch.setattr(sys, "argv", ["science", "--workers", "2", "--d", "64",
                                      "--json", str(tmp_path / "x.json")])  # fmt: skip
    science.main()
    (shared, options), (planted, _) = asked
    assert shared.data == ("anime-5k", "hetrec2011-lastfm-2k") and shared.d == (64,)
    assert shared.model == ("elsa", "multvae") and shared.k == (16, 32)
    assert shared.seed == planted.seed == (42, 43, 44, 45, 46) and options["workers"] == 2
    assert json.loads((tmp_path / "x.json").read_text())["rows"] == []
