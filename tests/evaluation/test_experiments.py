"""`cfsae experiment` resumes, writes a superset of the published JSON, and one whole page."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars
import pytest
from click.testing import CliRunner
from scipy.sparse import csr_array

from cfsae_fast.cli.app import app
from cfsae_fast.data import NOBODY, Interactions, Tags, UserSplit
from cfsae_fast.evaluation import experiments, steerers
from cfsae_fast.evaluation.experiments import grid as rooms
from cfsae_fast.evaluation.experiments import interpretability, reconstruction, steering
from cfsae_fast.evaluation.experiments.bench import Bench
from cfsae_fast.inference import CFAENetwork, SAENetwork, pursuit
from cfsae_fast.ops import Code, Rows
from cfsae_fast.recommender import labelling

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
    told = jobs[1]["results"]["test"]
    assert told == paper["paper"]["test"] and {"val", "test"} & set(jobs[0]["results"]) == set()
    names = ("cosine", "l0", "recall", "ndcg", "recall degradation", "ndcg degradation")
    assert all({"mean", "se"} <= set(told[name]) for name in names) and told["l0"]["mean"] <= 6
    assert told["dead neurons"] == paper["sae"]["dead_reported_by_paper"]
    options = {"model_class": "TopKSAE", "k": 6, "reconstruction_loss": "L2", "beta2": 0.99}
    assert options.items() <= jobs[1]["job_cfg"].items()
    assert paper["sae"]["dead_reported_by_paper"] <= 16
    table = polars.read_parquet(done / "results.parquet")
    one = table.filter(
        (polars.col("compat") == "corrected") & (polars.col("metric") == "reconstruct.kept")
    )
    assert one["value"].to_list() == [corrected["reconstruct"]["kept"]]
    trust = jobs[0]["results"]["interpretability"]
    null = trust["shuffled"]  # of each score
    assert trust["detection"].keys() <= null.keys()
    for name in ("strangers", "intruder", "intervention"):
        assert trust[name].keys() == null[name].keys()
    assert null["intruder"]["accuracy"] == pytest.approx(0.2, abs=0.08)
    ways = jobs[0]["results"]["steering"]["history"]["ways"]
    metric = f"history.ways.{steering.OURS}.segment_ndcg@0.13"
    point = table.filter((polars.col("compat") == "corrected") & (polars.col("metric") == metric))
    at = ways[steering.OURS]["strengths"].index(0.13)
    assert point["value"].to_list() == [ways[steering.OURS]["segment_ndcg"][at]]
    assert len(ways) == 11
    assert all(len(one["personal_ndcg"]) == len(one["strengths"]) for one in ways.values())
    apart = ("TEASER", *steerers.PUBLISHED)
    others = [ways[name] for name in ways if name not in apart]
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
    assert set(re.findall(r"https?://([\w.]+)", page)) == {"www.w3.org"}  # names of namespaces
    assert len(list((done / "figures").glob("*.png"))) == 7 and (done / "results.csv").exists()
    assert "Planted concepts" in page
    job = json.loads((done / "results.json").read_text())[0]
    curves = polars.read_csv(done / "figures" / "steer-0-history.csv")
    ours = curves.filter(polars.col("way") == steering.OURS)
    told = job["results"]["steering"]["history"]["ways"][steering.OURS]
    assert ours["segment_ndcg"].to_list() == pytest.approx(told["segment_ndcg"])
    assert len(curves.columns) > 10 and curves["way"].n_unique() == 11


def test_degradation_and_kept_by_hand():
    found = reconstruction.compared(np.array([0.1, 0.3]), np.array([0.2, 0.3]), 1)
    assert found["kept"] == pytest.approx(0.8)
    assert found["degradation"] == pytest.approx(-0.05)
    assert found["degradation_se"] == pytest.approx(0.05)
    same = reconstruction.compared(np.full(50, 0.2), np.full(50, 0.2), 1)
    assert same["p"] == 1 and same["kept_low"] == same["kept_high"] == 1
    worse = reconstruction.compared(np.linspace(0, 0.5, 50), np.linspace(0.1, 0.6, 50), 1)
    assert worse["p"] < 0.01 and worse["kept_high"] < 1


def test_published_numbers_by_hand(monkeypatch):
    """One user of two inputs; of two targets one has a negative score, and stands behind seen items
    there, which have 0."""
    monkeypatch.setattr(reconstruction, "N", 3)
    items = np.array([[1, 0], [0.6, 0.8], [0, 1], [0.7, -0.1], [-0.8, 0.6]], np.float32)
    zeros, eye = np.zeros(2, np.float32), np.eye(2, dtype=np.float32)
    fitted = SimpleNamespace(
        cfae=CFAENetwork(kind="elsa", item_weight=items, items=items),
        sae=SAENetwork("topk", eye, zeros, eye, zeros, 1, 1),
    )
    parts = [np.array([row]) for row in ([1, 1, 0, 0, 0], [0, 0, 0, 1, 1])]
    inputs, targets = (Interactions.from_scipy(csr_array(part)) for part in parts)
    found = reconstruction.as_published(fitted, SimpleNamespace(inputs=inputs, targets=targets))
    # u = (1.6, 0.8) of mean 1.2 and std 0.5657, standardised (0.7071, -0.7071); latent 0 alone
    mean, std, root = 1.2, 0.32**0.5, 0.5**0.5
    decoded = np.array([mean + std * root, mean])
    cosine = root * (decoded[0] - decoded[1]) / np.linalg.norm(decoded)
    assert found["cosine"]["mean"] == pytest.approx(cosine, rel=1e-5)
    assert found["l0"]["mean"] == 1 and found["dead neurons"] == 1
    # items 3 (1.04) and 2 (0.8), then a seen one; through the code 2 (1.2) and 3 (1.0)
    second = 1 / np.log2(3)
    assert found["ndcg"]["mean"] == pytest.approx(second / (1 + second))
    assert found["ndcg degradation"]["mean"] == pytest.approx((second - 1) / (1 + second))
    assert found["kept"] == pytest.approx(second)
    assert found["recall"]["mean"] == 0.5 and found["recall degradation"]["mean"] == 0


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


def test_a_grid_by_name_may_be_changed(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(experiments, "run", lambda grid, *args, **options: asked.append(grid) or [])
    command = ["experiment", "steering", "--grid", "planted", "--out", str(tmp_path), "--no-report",
               "--set", "k=[3, 5]", "--set", "sae_config={aux_coefficient: 0.1}"]  # fmt: skip
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert asked == [
        replace(experiments.NAMED["planted"], k=(3, 5), sae_config={"aux_coefficient": 0.1})
    ]
    assert {asked[0].sae(cell).aux_coefficient for cell in asked[0].cells()} == {0.1}


def test_what_only_held_out_users_said_is_asked_of_the_reading():
    """Latent c fires on the items of concept c; training users named 3 of 5, a test user the rest;
    of the second concept the test user names items on which another latent fires."""
    n_items, eye = 30, np.eye(3, dtype=np.float32)
    weight = np.repeat(eye * np.array([[2], [1], [1]], np.float32), 10, axis=0)
    histories = Rows(np.arange(7) * n_items, np.tile(np.arange(n_items, dtype=np.int32), 6))
    zeros = np.zeros(3, np.float32)
    fitted = SimpleNamespace(
        cfae=CFAENetwork(kind="elsa", item_weight=weight, items=weight), histories=histories,
        sae=SAENetwork("topk", eye, zeros, eye, zeros, 1, 1, standardize=False),
    )  # fmt: skip
    tags = Tags(
        ("a", "b"),
        np.repeat([0, 0, 1, 1], 5).astype(np.int32),
        np.r_[0:5, 5:10, 10:15, 20:25].astype(np.int32),
        np.ones(20, np.float32),
        np.repeat([0, 3, 0, 3], 5).astype(np.int32),
    )
    split = UserSplit(np.array([0, 1]), np.array([2]), np.array([3]))
    dataset = SimpleNamespace(training_tags=lambda users: tags.for_users(users))
    cut = SimpleNamespace(dataset=dataset, split=split)
    table = csr_array(tags.for_users(split.train).matrix(n_items)).astype(float)
    found = interpretability.strangers(fitted, cut, table, tags.names)
    # "a": 1; "b": above 10 on the loud latent 0, below 5 on its own, level with 5 on latent 2
    second = (1 * 10 + 0 * 5 + 0.5 * 5) / 20
    assert found["concepts"] == 2
    assert found["auc_median"] == pytest.approx((1 + second) / 2)
    nothing = [
        interpretability.strangers(fitted, cut, table, tags.names, shuffle=seed)["auc_median"]
        for seed in range(40)
    ]
    assert np.nanmean(nothing) == pytest.approx(0.5, abs=0.08)
    genres = replace(tags, users=np.full(20, NOBODY, np.int32))
    cut.dataset = SimpleNamespace(training_tags=lambda users: genres.for_users(users))
    table = csr_array(genres.matrix(n_items)).astype(float)
    assert interpretability.strangers(fitted, cut, table, tags.names)["concepts"] == 0


@pytest.mark.parametrize(
    "values, message",
    [
        (["data"], "grid must be a mapping"),
        ({"d": 4}, "at least one value of data, got none"),
        ({"data": "x", "d": []}, "at least one value of d, got none"),
        (
            {"data": "x", "sae_training": {"epoch": 3}},
            r"sae_training must have keys .* \['epoch'\]",
        ),
        ({"data": "x", "sae_config": {"spare": 9}}, r"spare must be None or in \[0, 4\], got 9"),
        ({"data": "x", "cfae_training": 3}, "cfae_training must be a mapping"),
    ],
)
def test_grids_that_cannot_be_are_refused_before_anything_is_trained(values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        experiments.grid_from(values)
    path = tmp_path / "grid.yaml"
    path.write_text(json.dumps(values))
    command = ["experiment", "reconstruction", "--grid", str(path), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code != 0 and not (tmp_path / "out").exists()


def test_unknown_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"grid must have keys among .* unknown \['ks'\]"):
        experiments.grid_from({"data": "x", "ks": 3})
    with pytest.raises(ValueError, match=r"experiments must be among"):
        experiments.run(experiments.NAMED["quick"], ("nothing",), tmp_path)


@pytest.mark.parametrize("data", ["ml-25m", "msd"])
def test_published_grids_are_the_published_ones(data):
    sizes = {"elsa": (512, 1024, 2048), "multvae": (256, 512, 1024)}
    cells = 0
    for model, widths in sizes.items():
        grid, basic = (experiments.NAMED[f"{data}-{model}{more}"] for more in ("", "-basic"))
        cells += len(list(grid.cells())) + len(list(basic.cells()))
        cell = next(grid.cells())
        assert grid.d == widths and grid.sae(cell).l1 == 3e-4 and cell.n_latents == 2 * widths[0]
        assert {grid.sae(one).l1 for one in basic.cells()} == {0.01, 0.003, 0.001, 0.0003}
        assert {grid.sae(one).kind for one in basic.cells()} == {"basic"}
        cfae, (stage_1, stage_2) = grid.cfae(cell, 40_857), grid.training(cell)
        assert stage_1.lr == (3e-4 if model == "elsa" else 1e-3) and stage_1.batch_size == 1024
        assert stage_2.lr == 3e-4 and (stage_2.epochs, stage_2.patience) == (250, 50)
        assert cell.compat == "paper" and grid.histories == "full"
        if model == "elsa":
            assert cfae.item_lengths == "unit" and cfae.input_dropout == 0
        else:  # METHOD.md 2.2: after 25 epochs of 126 steps NLL + beta KL has a beta of 0.50
            assert cfae.beta_max * 25 * 126 / cfae.anneal_steps == pytest.approx(0.50, abs=0.01)
        labelled = experiments.NAMED[f"{data}-{model}-labelled"]
        assert [(one.n_latents, one.k) for one in labelled.cells()] == [(8192, 16)] * 2
    assert cells == 432 // 2


def test_a_published_grid_runs_on_any_data(tmp_path):
    """Losses are watched on whole rows of validation users, embeddings are mapped from one file."""
    grid = replace(
        experiments.NAMED["ml-25m-multvae"], data=(SMALL["data"],), d=(8,), wide=(2,), k=(4,),
        filters={"min_user": 5}, min_tag=1, loss=("l2", "cosine"),
    )  # fmt: skip
    grid = replace(grid, sae_training={**grid.sae_training, "epochs": 3, "patience": 2},
                   cfae_training={**grid.cfae_training, "epochs": 3})  # fmt: skip
    jobs = experiments.run(grid, ("reconstruction",), tmp_path)
    assert len(jobs) == 2 and all("paper" in job["results"]["reconstruction"] for job in jobs)
    (run,) = (tmp_path / "runs").iterdir()
    cut = Bench(grid, tmp_path, False).cut(next(grid.cells()))
    assert len(np.load(run / "train.npy")) == cut.train.n_users
    assert len(np.load(run / "held.npy")) == len(cut.split.val)
    last = [json.loads(line) for line in (run / "cfae" / "metrics.jsonl").read_text().splitlines()]
    assert len(last) == 3 and "validation_loss" not in last[0]  # the last epoch counts
    assert "validation_loss" in next(run.glob("sae-*/metrics.jsonl")).read_text()


def found_in(jobs, experiments=("reconstruction",)):
    """{(experiment, metric): value} per cell, as the table of results has it."""
    return [
        {
            (row["experiment"], row["metric"]): row["value"]
            for row in rooms.flat(job)
            if row["experiment"] in experiments
        }
        for job in jobs
    ]


def test_any_number_of_workers_and_any_batch_leave_the_same_numbers(done, tmp_path, monkeypatch):
    """Of all three experiments: two workers the very same, small blocks the same but rounding."""
    grid, chosen = experiments.grid_from(SMALL), experiments.ALL
    jobs = json.loads((done / "results.json").read_text())
    alone = found_in(jobs, chosen)
    assert {name for name, _ in alone[0]} == set(chosen) and len(alone[0]) > 200
    said = []
    again = experiments.run(grid, chosen, tmp_path, workers=2, say=said.append)
    assert again == jobs  # whole curves too
    assert said[0] == "trained base model 1 / 1" and [x[:8] for x in said[1:]] == [
        "done 1 /",
        "done 2 /",
    ]
    for module, name in ((reconstruction, "CHUNK"), (pursuit, "ROWS"), (labelling, "CHUNK")):
        monkeypatch.setattr(module, name, 7)
    shutil.rmtree(tmp_path / "cells")  # the models stay, and are judged anew
    small = found_in(experiments.run(grid, chosen, tmp_path), chosen)
    for one, other in zip(small, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_a_killed_run_goes_on_to_the_same_table(done, tmp_path):
    """kill -9 while an SAE is trained; then the same command, to its end."""
    command = [sys.executable, "-m", "cfsae_fast", "experiment", "reconstruction", "--grid",
               str(done / "grid.yaml"), "--out", str(tmp_path), "--no-report"]  # fmt: skip
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("runs/*/sae-*/checkpoint")) and time.monotonic() < deadline:
        time.sleep(0.01)
    started.kill()
    assert started.wait() == -signal.SIGKILL and not (tmp_path / "results.json").exists()
    subprocess.run(command, check=True, capture_output=True)
    found = found_in(json.loads((tmp_path / "results.json").read_text()))
    assert found == found_in(json.loads((done / "results.json").read_text()))
    table = polars.read_parquet(tmp_path / "results.parquet")
    assert len(table) == sum(map(len, found))


def test_workers_end_with_a_killed_run(done, tmp_path):
    """kill -9 of the command: nobody is left to write where the next run goes on."""
    command = [sys.executable, "-m", "cfsae_fast", "experiment", "reconstruction", "--grid",
               str(done / "grid.yaml"), "--out", str(tmp_path), "--no-report", "--workers", "2",
               "--set", "sae_training={epochs: 9000, steps_per_epoch: 20}"]  # fmt: skip
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("runs/*/sae-*/checkpoint")) and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [one for one in children_of(started.pid) if "spawn_main" in command_of(one)]
    assert len(workers) == 2
    started.kill()
    started.wait()
    deadline = time.monotonic() + 20
    while any(map(command_of, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [one for one in workers if command_of(one)]
    for one in left:
        os.kill(one, signal.SIGKILL)
    assert not left


def children_of(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(one) for one in found.stdout.split()]


def command_of(pid):
    """The command line of a process; nothing where it has ended."""
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().decode()
    except OSError:
        return ""
