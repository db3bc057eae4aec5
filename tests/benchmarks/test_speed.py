"""Every speed benchmark runs at tiny shapes, checks its answers first and names its peers."""

import json

import pytest

pytest.importorskip("onnxruntime")

import torch  # noqa: E402

from benchmarks import (  # noqa: E402
    encode,
    recommend_dense,
    requests,
    serve_batch,
    serve_one_user,
    timing,
    train_elsa,
    train_sae,
    turn_knob,
)
from benchmarks.answers import same_top  # noqa: E402
from benchmarks.peers import paper  # noqa: E402

SHAPE = ["--items", "90", "--d", "16", "--latents", "48", "--k", "4", "--threads", "1"]
FIELDS = {"case", "metric", "value", "peer", "peer_value", "ratio", "answer_checked"}


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Five calls of each way, and no measuring of the machine."""
    whole = timing.interleaved
    short = {"seconds": 0.0, "most": 6}
    monkeypatch.setattr(timing, "interleaved", lambda ways, **_: whole(ways, **short))
    monkeypatch.setattr(timing, "gigaflops", lambda threads: 100.0)
    monkeypatch.setattr(timing, "gigabytes_per_second", lambda threads: 10.0)


def rows_of(program, arguments, tmp_path):
    path = tmp_path / "rows.json"
    program.main(["--quick", "--json", str(path), *arguments])
    written = json.loads(path.read_text())
    assert {"bench", "machine", "versions", "command", "rows"} <= set(written)
    assert all(set(row) == FIELDS for row in written["rows"])
    return written["rows"]


@pytest.mark.parametrize("program", [serve_one_user, serve_batch])
def test_requests_have_peers_and_checked_answers(program, tmp_path):
    more = ["--batch", "5"] if program is serve_batch else []
    rows = rows_of(program, SHAPE + more, tmp_path)
    against = [row for row in rows if row["peer"]]
    assert {row["peer"] for row in against} == {"paper", "onnxruntime"}
    assert all(row["answer_checked"] and row["ratio"] > 0 for row in against)


def test_a_wrong_peer_is_not_called_checked(tmp_path, monkeypatch):
    forward = paper.DensePath._forward

    def wrong(self, rows):
        ids, scores = forward(self, rows)
        return ids.flip(1), scores

    monkeypatch.setattr(paper.DensePath, "_forward", wrong)
    rows = rows_of(serve_one_user, SHAPE, tmp_path)
    checked = {row["peer"]: row["answer_checked"] for row in rows if row["peer"]}
    assert checked == {"paper": False, "onnxruntime": True}


def test_a_folded_path_that_differs_stops_the_benchmark(monkeypatch):
    paths = requests.Paths(requests.Sizes(90, 16, 48, 4), compiled=False)
    monkeypatch.setattr(paths, "folded", paths.dense.from_fitted(paths.dense.fitted))
    monkeypatch.setattr(requests, "WISH", {"one concept": 0.9})
    ways = paths.ways([[[1, 2, 3]]], 1)
    ways["folded"] = lambda: paths.folded.recommend(histories=[[4, 5]], n=requests.N)
    with pytest.raises(AssertionError, match="folded and dense must agree"):
        paths.check(ways)


def test_turning_a_knob(tmp_path):
    rows = rows_of(turn_knob, SHAPE, tmp_path)
    assert len(rows) == 4 and all(row["answer_checked"] for row in rows)
    assert {row["peer"] for row in rows} == {"serve_one_user"}


def test_encode(tmp_path):
    shape = ["--batch", "60", "--d", "24", "--latents", "70", "--k", "5", "--threads", "1"]
    rows = [row for row in rows_of(encode, shape, tmp_path) if row["peer"]]
    assert len(rows) == 2 and all(row["answer_checked"] for row in rows)


def test_recommend_dense(tmp_path):
    shape = ["--items", "300", "--d", "16", "--batches", "1", "60", "--threads", "1"]
    rows = rows_of(recommend_dense, shape, tmp_path)
    assert {row["metric"] for row in rows} == {"p50_ms", "p99_ms", "floor_ms"}
    for row in rows:
        assert row["peer"] in (None, "faiss") and row["answer_checked"] == (row["peer"] == "faiss")


@pytest.mark.parametrize(
    "its, same",
    [
        (([4, 2, 1], [2.0, 1.0, 0.5]), True),
        (([4, 2, 9], [2.0, 1.0, 0.5]), True),  # ties with the last
        (([2, 4, 1], [2.0, 1.0, 0.5]), False),
        (([4, 2, 9], [2.0, 1.0, 0.7]), False),
        (([4, 9, 1], [2.0, 1.0, 0.5]), False),
    ],
)
def test_answers_are_compared_by_id(its, same):
    ids, scores = its
    assert same_top([[4, 2, 1]], [[2.0, 1.0, 0.5]], [ids], [scores], tie=1e-4) == same


def test_train_sae(tmp_path):
    shape = ["--batch", "40", "--d", "16", "--latents", "64", "--k", "4", "--threads", "1"]
    rows = {row["peer"]: row for row in rows_of(train_sae, shape, tmp_path)}
    assert rows["paper"]["answer_checked"]


def test_train_sae_compares_gradients():
    ours = train_sae.OurStep(16, 64, 4)
    dictionary = ours.model.dictionary.detach()
    x = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    other = paper.DenseSAE(ours.model.encoder.detach(), dictionary.roll(1, 0), 4)
    assert not train_sae.agree(ours, other, x)


def test_train_elsa(tmp_path):
    shape = ["--batch", "30", "--items", "80", "--d", "8", "--threads", "1"]
    rows = rows_of(train_elsa, shape, tmp_path)
    assert [row["peer"] for row in rows] == ["paper"] and rows[0]["answer_checked"]


def test_every_way_is_timed_in_turn():
    calls = []
    ways = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    timed = timing.interleaved(ways)
    assert timed["a"].count == timed["b"].count == 6
    assert timed["a"].p50 <= timed["a"].p99 and {"a", "b"} == set(calls)
