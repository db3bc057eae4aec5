"""`cfsae experiment` resumes, writes a superset of the published JSON, and one whole page."""

import json
import re

import numpy as np
import polars
import pytest
from click.testing import CliRunner

from cfsae_fast.cli.app import app
from cfsae_fast.evaluation import experiments
from cfsae_fast.evaluation.experiments import grid as rooms
from cfsae_fast.evaluation.experiments import interpretability, reconstruction, steering
from cfsae_fast.ops import Code, Rows

SMALL = {
    "data": "generated:users=400,items=400,concepts=6,seed=1", "d": 16, "k": 6,
    "compat": ["corrected", "paper"],
    "sae_training": {"epochs": 2, "steps_per_epoch": 60}, "cfae_training": {"epochs": 4},
}  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The whole of a small grid, through the command."""
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "grid.yaml").write_text(json.dumps(SMALL))
    command = ["experiment", "all", "--grid", str(folder / "grid.yaml"), "--out", str(folder)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return folder


def test_json_is_a_superset_and_parquet_holds_every_number(done):
    jobs = json.loads((done / "results.json").read_text())
    assert len(jobs) == 2 and all({"job_cfg", "results"} <= set(job) for job in jobs)
    corrected, paper = (job["results"]["reconstruction"] for job in jobs)
    assert corrected["base"] == paper["base"]  # one CFAE, one hold-out
    assert "paper" in paper and "paper" not in corrected
    assert paper["sae"]["dead_reported_by_paper"] <= 16
    table = polars.read_parquet(done / "results.parquet")
    one = table.filter(
        (polars.col("compat") == "corrected") & (polars.col("metric") == "reconstruct.kept")
    )
    assert one["value"].to_list() == [corrected["reconstruct"]["kept"]]
    ways = jobs[0]["results"]["steering"]["history"]["ways"]
    assert len(ways) == 8
    assert all(len(one["personal_ndcg"]) == len(one["strengths"]) for one in ways.values())
    others = [ways[name] for name in ways if name not in ("TEASER", steering.PAPER)]
    bases = {round(one["personal_ndcg"][0], 9) for one in others}
    assert len(bases) == 1  # without steering they all are the base model


def test_a_run_goes_on_where_it_stopped(done, monkeypatch):
    grid = experiments.grid_from(SMALL)
    before = (done / "results.json").read_text()
    killed = sorted((done / "cells").iterdir())[0]
    kept = sorted((done / "cells").iterdir())[1].stat().st_mtime_ns
    killed.unlink()
    asked = []
    real = rooms.EXPERIMENTS["reconstruction"]
    monkeypatch.setitem(
        rooms.EXPERIMENTS, "reconstruction", lambda *args: asked.append(args[2]) or real(*args)
    )
    experiments.run(grid, ("reconstruction", "steering", "interpretability"), done)
    assert len(asked) == 1
    assert sorted((done / "cells").iterdir())[1].stat().st_mtime_ns == kept
    assert json.loads((done / "results.json").read_text()) == json.loads(before)


def test_the_page_asks_nothing_of_a_network(done):
    page = (done / "report.html").read_text()
    assert "<svg" in page and "cfsae experiment" in page and "class=card" in page
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert "<script" not in page and "@import" not in page
    assert len(list((done / "figures").glob("*.png"))) == 7 and (done / "results.csv").exists()


def test_degradation_and_kept_by_hand():
    found = reconstruction.compared(np.array([0.1, 0.3]), np.array([0.2, 0.3]), 1)
    assert found["kept"] == pytest.approx(0.8)
    assert found["degradation"] == pytest.approx(-0.05)
    assert found["degradation_se"] == pytest.approx(0.05)
    same = reconstruction.compared(np.full(50, 0.2), np.full(50, 0.2), 1)
    assert same["p"] == 1 and same["kept_low"] == same["kept_high"] == 1
    worse = reconstruction.compared(np.linspace(0, 0.5, 50), np.linspace(0.1, 0.6, 50), 1)
    assert worse["p"] < 0.01 and worse["kept_high"] < 1


def test_intruders_stand_out_only_where_latents_mean_something():
    """Two worlds of 20 items; users take from one. Latent 0 fires on the first world's items."""
    rng = np.random.default_rng(0)
    histories = [rng.choice(20, 8, replace=False) + 20 * (user % 2) for user in range(80)]
    offsets = np.arange(81, dtype=np.int64) * 8
    rows = Rows(offsets, np.sort(histories, axis=1).ravel().astype(np.int32))
    meant = np.full((40, 1), -1, np.int32)
    meant[:20] = 0
    random = np.full((40, 1), -1, np.int32)
    random[rng.choice(40, 20, replace=False)] = 0
    values = rng.random((40, 1)).astype(np.float32) + 0.1
    scores = [
        interpretability.intruder(Code(code, np.where(code < 0, 0, values)), rows, 40, 3)
        for code in (meant, random)
    ]
    assert scores[0]["accuracy"] == 1 and scores[0]["games"] == 20
    assert scores[1]["accuracy"] < 0.7


def test_unknown_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"grid must have keys among .* unknown \['ks'\]"):
        experiments.grid_from({"data": "x", "ks": 3})
    with pytest.raises(ValueError, match=r"experiments must be among"):
        experiments.run(experiments.NAMED["quick"], ("nothing",), tmp_path)


def test_published_grids_are_the_published_ones():
    ml = experiments.NAMED["ml-25m"]
    assert len(list(ml.cells())) == 2 * 3 * 3 * 4 * 2 and ml.filters["min_value"] == 4
    cell = next(ml.cells())
    assert cell.compat == "paper" and ml.sae(cell).l1 == 3e-4 and cell.n_latents == 1024
