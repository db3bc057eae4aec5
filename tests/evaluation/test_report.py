"""The page tells its settings apart, and its pictures have their numbers beside them."""

import csv
import re
from dataclasses import asdict, replace

import pytest

from cfsae_fast.evaluation import report
from cfsae_fast.evaluation.experiments import NAMED, Cell
from cfsae_fast.evaluation.experiments.steering import OURS
from cfsae_fast.evaluation.steerers import PUBLISHED

CELL = Cell("x", "elsa", 8, 64, 4, "l2", "corrected", 42)


def job(cell, kept=0.9):
    way = {"kept": kept, "kept_low": 0.8, "kept_high": 1.0}
    sae = {"cosine": 0.9, "l0": 4.0, "dead_share_train": 0.0}
    found = {"base": {"ndcg": {"mean": 0.4}}, "sae": sae,
             **dict.fromkeys(("reconstruct", "refined_5", "pursued"), way)}  # fmt: skip
    return {"job_cfg": {"cell": asdict(cell)}, "results": {"reconstruction": found}}


@pytest.fixture
def drawn(monkeypatch):
    """Labels and points of every line of the pictures."""
    axes = pytest.importorskip("matplotlib.axes").Axes
    found, real = {}, axes.plot

    def plot(self, x, y, *args, label, **options):
        found[label] = dict(zip(x, y, strict=True))
        return real(self, x, y, *args, label=label, **options)

    monkeypatch.setattr(axes, "plot", plot)
    return found


@pytest.mark.parametrize("name", ["planted", "ml-25m-elsa", "msd-multvae-basic", "shared"])
def test_every_cell_of_a_grid_has_its_own_name(name, tmp_path, drawn):
    cells = list(NAMED[name].cells())
    page = report.write([job(one) for one in cells], tmp_path, command="x").read_text()
    table = page[page.index("Reconstruction") :]
    names = re.findall(r"<tr><td>(.*?)</td>", table[: table.index("</table>")])
    assert len(names) == len(set(names)) == len(cells)
    with open(tmp_path / "figures" / "kept.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(cells) and {row["kept"] for row in rows} == {"0.9"}
    seeds = len({one.seed for one in cells})
    plain = {label: points for label, points in drawn.items() if "reconstruct" in label}
    assert sum(map(len, plain.values())) == len(cells) / seeds  # no two settings in one point


def test_lines_are_means_over_seeds_alone(tmp_path, drawn):
    jobs = [
        job(replace(CELL, seed=seed, loss=loss), kept)
        for seed, loss, kept in ((1, "l2", 0.8), (2, "l2", 0.9), (1, "cosine", 0.5))
    ]
    page = report.write(jobs, tmp_path, command="x").read_text()
    assert drawn["l2 reconstruct"] == {4: pytest.approx(0.85)}
    assert drawn["cosine pursued"] == {4: pytest.approx(0.5)}
    assert "<td>reconstruct.kept</td><td>0.850</td><td>0.800 to 0.900</td><td>2</td>" in page


def test_ways_to_steer_are_told_apart(monkeypatch):
    """Every way of the experiment has a look of its own, and the legend stays on the picture."""
    axes_kind = pytest.importorskip("matplotlib.axes").Axes
    figures, bars = pytest.importorskip("matplotlib.figure"), []
    real = axes_kind.errorbar

    def errorbar(self, *args, **options):
        bars.append(real(self, *args, **options))
        return bars[-1]

    monkeypatch.setattr(axes_kind, "errorbar", errorbar)
    names = [*PUBLISHED, OURS, "boost (lift map)", "random latent", "mean item embedding",
             "linear probe direction", "tag re-ranking", "TEASER"]  # fmt: skip
    numbers = ("segment_ndcg", "personal_ndcg", "segment_se", "personal_se")
    ways = {name: {one: [0.1, 0.2] for one in numbers} for name in names}
    figure = figures.Figure(figsize=report.SIZE, layout="constrained")
    axes = figure.subplots()
    report._curves(axes, {"ways": ways})
    lines = [one.lines[0] for one in bars]
    looks = {(one.get_color(), one.get_linestyle(), one.get_marker()) for one in lines}
    assert [one.get_label() for one in bars] == names and len(looks) == len(names)
    figure.draw_without_rendering()
    room, legend = figure.bbox, axes.get_legend().get_window_extent()
    assert room.x0 <= legend.x0 and legend.x1 <= room.x1
    assert room.y0 <= legend.y0 and legend.y1 <= room.y1
    assert axes.get_window_extent().width > room.width / 2


def test_what_is_undefined_is_left_empty(tmp_path, drawn):
    page = report.write([job(CELL, None)], tmp_path, command="x").read_text()
    assert "None" not in page and "nan" not in page.partition("<svg")[0]


def test_one_card_room_for_each_data_set_and_model():
    found = [(job(replace(CELL, **one)), at) for at, one in enumerate((
        {}, {"k": 8}, {"model": "multvae"}, {"data": "y"}, {"data": "y", "seed": 43}))]  # fmt: skip
    assert [at for _, at in report._first_of_each(found)] == [0, 2, 3]
