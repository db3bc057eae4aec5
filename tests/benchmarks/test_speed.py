"""Every speed benchmark runs at tiny shapes, checks its answers first and names its peers."""

import json

import numpy as np
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
from benchmarks.answers import WrongAnswer, same_top  # noqa: E402
from benchmarks.peers import paper  # noqa: E402
from cfsae_fast.recommender import LiveProfile  # noqa: E402

SHAPE = ["--items", "90", "--d", "16", "--latents", "48", "--k", "4", "--threads", "1"]
FIELDS = {"case", "metric", "value", "peer", "peer_value", "ratio", "answer_checked"}


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Five calls of each way, no measuring of the machine, and no compiler to wait for."""
    whole = timing.interleaved
    short = {"seconds": 0.0, "most": 6}

    def refuse(self, histories):
        raise ImportError("no compiler here")

    monkeypatch.setattr(timing, "interleaved", lambda ways, **_: whole(ways, **short))
    monkeypatch.setattr(timing, "gigaflops", lambda threads: 100.0)
    monkeypatch.setattr(timing, "gigabytes_per_second", lambda threads: 10.0)
    monkeypatch.setattr(paper.DensePath, "compiled", refuse)


def rows_of(program, arguments, tmp_path):
    path = tmp_path / "rows.json"
    program.main(["--quick", "--json", str(path), *arguments])
    written = json.loads(path.read_text())
    assert {"bench", "machine", "versions", "command", "rows"} <= set(written)
    assert all(set(row) == FIELDS for row in written["rows"])
    return written["rows"]


@pytest.mark.parametrize("program", [serve_one_user, serve_batch])
def test_requests_have_peers_and_a_missing_one_is_named(program, tmp_path, capsys):
    more = ["--batch", "5"] if program is serve_batch else []
    against = [row for row in rows_of(program, SHAPE + more, tmp_path) if row["peer"]]
    als = {"implicit"} if program is serve_one_user else set()
    assert {row["peer"] for row in against} == {"paper", "onnxruntime"} | als
    assert all(row["ratio"] > 0 for row in against)
    assert {row["peer"] for row in against if not row["answer_checked"]} == als
    assert "torch.compile is left out: no compiler here" in capsys.readouterr().out


def test_without_onnxruntime_the_others_are_timed(tmp_path, monkeypatch, capsys):
    def missing(*_, **__):
        raise requests.export.sessions.require_extra("no_such_module", extra="onnx", purpose="it")

    monkeypatch.setattr(requests.export, "open_session", missing)
    rows = rows_of(serve_one_user, SHAPE, tmp_path)
    assert {row["peer"] for row in rows} == {None, "paper", "implicit"}
    assert "onnxruntime is left out" in capsys.readouterr().out


def test_a_compiler_that_fails_is_a_missing_peer(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(torch, "compile", lambda forward: fail)

    def fail(rows):
        raise RuntimeError("no C++ compiler\nand so on")

    path = paper.DensePath(requests.make_fitted(requests.Sizes(90, 16, 48, 4)), 5)
    with pytest.raises(ImportError, match="torch.compile failed: no C.. compiler$"):
        path.compiled([[1, 2]])


@pytest.mark.parametrize("wrong_from", [0, 63])
def test_a_wrong_peer_ends_the_benchmark(wrong_from, tmp_path, monkeypatch):
    forward, calls = paper.DensePath._forward, []

    def wrong(self, rows):
        ids, scores = forward(self, rows)
        calls.append(1)
        return (ids.flip(1) if len(calls) > wrong_from else ids), scores

    monkeypatch.setattr(paper.DensePath, "_forward", wrong)
    with pytest.raises(WrongAnswer, match="paper must answer as we do before it is timed"):
        rows_of(serve_one_user, SHAPE, tmp_path)
    assert len(calls) == wrong_from + 1 and not (tmp_path / "rows.json").exists()


def test_a_folded_path_that_differs_ends_the_benchmark():
    paths = requests.Paths(requests.Sizes(90, 16, 48, 4), batch=1)
    ways = paths.ways(1)
    ways["folded"] = lambda one: paths.folded.recommend(histories=[one[0][:-1]], n=requests.N)
    with pytest.raises(WrongAnswer, match="folded"):
        paths.check(ways)


def test_the_floor_counts_a_shared_row_once():
    paths = requests.Paths(requests.Sizes(90, 16, 48, 4), batch=5)
    paths.requests = [paths.requests[0][:1] * 5]
    # one history of 45 items: its rows of 48 bytes and 16 floats, and 4 rows of 90 bytes; 10 GB/s
    assert paths.floors(1)[0]["value"] == pytest.approx((45 * (48 + 64) + 4 * 90) / 10 / 1e6)


def test_turning_a_knob(tmp_path):
    rows = rows_of(turn_knob, SHAPE, tmp_path)
    assert {row["peer"] for row in rows} == {None, "serve_one_user", "same user"}
    assert len(rows) == 6 and all(row["answer_checked"] for row in rows if row["peer"])


def test_a_profile_that_answers_otherwise_ends_the_benchmark(tmp_path, monkeypatch):
    top = LiveProfile.top
    monkeypatch.setattr(LiveProfile, "top", lambda self, n: top(self, n + 1))
    with pytest.raises(WrongAnswer, match="a turned profile"):
        rows_of(turn_knob, SHAPE, tmp_path)


def test_encode(tmp_path):
    shape = ["--batch", "60", "--d", "24", "--latents", "70", "--k", "5", "--threads", "1"]
    rows = [row for row in rows_of(encode, shape, tmp_path) if row["peer"]]
    assert len(rows) == 3 and all(row["answer_checked"] for row in rows)
    assert sum(row["case"].endswith("screen made anew") for row in rows) == 1


def test_recommend_dense(tmp_path):
    shape = ["--items", "300", "--d", "16", "--batches", "1", "60", "--threads", "1"]
    rows = rows_of(recommend_dense, shape, tmp_path)
    assert {row["metric"] for row in rows} == {"p50_ms", "p99_ms", "floor_ms"}
    for row in rows:
        assert row["peer"] in (None, "faiss") and row["answer_checked"] == (row["peer"] == "faiss")


@pytest.mark.parametrize("program", [encode, recommend_dense])
def test_a_wrong_answer_ends_the_other_benchmarks(program, tmp_path, monkeypatch):
    shape = ["--d", "16", "--threads", "1"]
    if program is encode:
        shape += ["--batch", "9", "--latents", "70", "--k", "5"]
        right = encode.in_torch
        monkeypatch.setattr(encode, "in_torch", lambda *a: (right(*a)[0], right(*a)[1].flip(1)))
    else:
        shape += ["--items", "300", "--batches", "2"]
        twisted = {"faiss": lambda x: (np.zeros((2, 20), int), np.zeros((2, 20), "f4"))}
        monkeypatch.setattr(recommend_dense, "available", lambda makers: twisted)
    with pytest.raises(WrongAnswer):
        rows_of(program, shape, tmp_path)


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
