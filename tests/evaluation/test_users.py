"""A picture of steered users: a place for each, boosts draw them together, the page shows it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from cfsae_fast import evaluation
from cfsae_fast.errors import MissingExtraError
from cfsae_fast.evaluation import report
from cfsae_fast.evaluation.experiments import users
from tests.recommender.conftest import small_dataset, small_model

CELL = {"data": "made:up", "model": "elsa", "d": 16, "n_latents": 128, "k": 6, "loss": "l2",
        "compat": "corrected", "seed": 3}  # fmt: skip


@pytest.fixture(scope="module")
def cut():
    return evaluation.prepare(small_dataset(), seed=7)


def test_every_user_has_a_place_and_boosts_draw_them_together(cut, tmp_path):
    pytest.importorskip("umap", reason="umap-learn (extra umap) is not installed")
    pytest.importorskip("matplotlib")
    fitted = small_model("elsa", "topk").fitted
    found = users.judge(fitted, cut, SimpleNamespace(seed=3))
    shown = min(users.SHOWN, cut.test.inputs.n_users)
    assert np.shape(found["before"]) == (shown, 2)
    assert len(found["ground"]) == min(users.GROUND, cut.train.n_users)
    names = set(found["after"])
    assert len(names) == min(users.CONCEPTS, len(fitted.concepts)) and names == set(found["spread"])
    for places in found["after"].values():
        assert np.shape(places) == (shown, 2) and np.isfinite(places).all()
    assert all(0 < spread < 1 for spread in found["spread"].values())
    job = {"job_cfg": {"cell": CELL}, "results": {"users": json.loads(json.dumps(found))}}
    page = report.write([job], tmp_path, command="cfsae experiment users").read_text()
    assert "Users before and after a boost" in page and all(name in page for name in names)
    assert (tmp_path / "figures" / "users-0.png").exists()


def test_without_umap_the_extra_is_named(cut, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(MissingExtraError, match="umap"):
        users.judge(small_model("elsa", "topk").fitted, cut, SimpleNamespace(seed=3))


def test_spread_by_hand():
    same, cross = np.array([[2.0, 0], [5, 0]]), np.array([[1.0, 0], [0, 1]])
    assert users._spread(same) == 0
    assert users._spread(cross) == pytest.approx(np.sqrt(0.5))
