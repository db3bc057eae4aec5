"""The best d is the validation users', and its numbers are the base models'."""

import json
import sys

import pytest

from benchmarks import best_d


def test_the_best_is_that_of_the_validation_users():
    found = {8: {"validation": 0.2, "test": 0.4}, 16: {"validation": 0.3, "test": 0.1}}
    rows = best_d.rows_of("x", "elsa", found)
    assert (rows[-1]["case"], rows[-1]["metric"], rows[-1]["value"]) == ("x elsa", "best d", 16)
    assert [(one["case"], one["metric"], one["value"]) for one in rows[:2]] == [
        ("x elsa d=8", "validation ndcg@20", 0.2),
        ("x elsa d=8", "test ndcg@20", 0.4),
    ]


def test_it_runs_and_its_numbers_are_the_experiments(tmp_path, monkeypatch):
    from cfsae_fast.evaluation import experiments
    from cfsae_fast.evaluation.experiments import Grid, reconstruction
    from cfsae_fast.evaluation.experiments.bench import Bench

    argv = ["best_d", "--quick", "--models", "elsa", "--seeds", "42",
            "--out", str(tmp_path), "--json", str(tmp_path / "out.json")]  # fmt: skip
    monkeypatch.setattr(sys, "argv", argv)
    best_d.main()
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    found = {(one["case"].split()[-1], one["metric"]): one["value"] for one in rows}
    assert {("d=8", "test ndcg@20"), ("d=16", "validation ndcg@20")} <= set(found)
    grid = Grid(data=(best_d.GENERATED,), model=("elsa",), d=(16,), k=(4,), seed=(42,),
                filters=experiments.NAMED["shared"].filters,
                sae_training={"epochs": 1, "steps_per_epoch": 2})  # fmt: skip
    fitted, cut = Bench(grid, tmp_path / "b", False).fitted(next(grid.cells()), labelled=False)
    judged = reconstruction.judge(fitted, cut, next(grid.cells()))
    base = judged["base"]["ndcg"]["mean"]
    assert found["d=16", "test ndcg@20"] == pytest.approx(base, rel=1e-6)
