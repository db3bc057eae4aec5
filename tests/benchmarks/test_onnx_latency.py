"""The latency benchmark runs, checks its answers first, and names its peers."""

import time

import pytest

pytest.importorskip("onnxruntime")

from benchmarks import answers, onnx_latency  # noqa: E402


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    sizes = onnx_latency.Sizes(300, 8, 96, 4)
    return onnx_latency.Exported(sizes, "reconstruct", tmp_path_factory.mktemp("latency"))


def test_rows_have_peers_and_checked_answers(exported):
    rows = exported.latency(3, onnx_latency.Times(6), 0.01)
    timed = [row for row in rows if row["metric"] == "p50_ms"]
    assert all(row["answer_checked"] and row["value"] > 0 for row in timed)
    assert {row["peer"] for row in timed} == {None, onnx_latency.PLAIN, onnx_latency.PYTHON}
    assert sum(row["metric"] == "p99_ms" for row in rows) == 5


def test_some_ways_may_be_called_more_than_others(exported, monkeypatch):
    """All are called once, so that every ratio stands."""
    monkeypatch.setattr(onnx_latency, "BURST", 1e-9)  # a burst is one call
    monkeypatch.setattr(onnx_latency, "SETTLE", 0)
    times = onnx_latency.Times(100)
    exported.latency(1, times, 60, only=["custom folded", "python"])
    counts = {name: one.count for name, one in times.of("reconstruct B=1").items()}
    assert counts.pop("graph=custom folded") == counts.pop(onnx_latency.PYTHON) == 100
    assert set(counts.values()) == {1}


def test_times_go_on_from_those_kept(tmp_path, monkeypatch):
    """A run that ends early leaves what it has; the next adds what is missing, and no more."""
    monkeypatch.setattr(onnx_latency, "BURST", 0.01)
    monkeypatch.setattr(onnx_latency, "SETTLE", 0.001)
    ways, kept = {"long": lambda: time.sleep(0.004), "short": lambda: None}, tmp_path / "times.json"
    first = onnx_latency.Times(9, kept)
    first.gather("case", ways, 0)
    before = first.of("case")
    assert 1 <= before["long"].count < 9 and before["short"].count == 9
    second = onnx_latency.Times(9, kept)
    assert second.of("case") == before
    second.gather("case", ways, 60)
    after = second.of("case")
    assert after["long"].count == after["short"].count == 9
    assert after["short"] == before["short"] and 3.9 < after["long"].p50 <= after["long"].p99


def test_loading_is_measured_in_processes(exported):
    rows = exported.loading()
    values = {(row["case"].split()[-1], row["metric"]): row["value"] for row in rows}
    assert values["processes=2", "mapped_shared_share"] > 0.9
    assert all(row["value"] > 0 for row in rows)


def test_a_wrong_answer_ends_it(exported, monkeypatch):
    """The folded file in the place of the dense one of another model."""
    other = onnx_latency.export.to_onnx(
        onnx_latency.make_fitted(onnx_latency.Sizes(300, 8, 96, 3)),
        exported.files["dense"].with_name("other.onnx"),
        mode="reconstruct",
    )
    monkeypatch.setitem(exported.files, "dense", other)
    with pytest.raises(answers.WrongAnswer, match="graph=plain dense"):
        exported.latency(1, onnx_latency.Times(2), 0.01)
