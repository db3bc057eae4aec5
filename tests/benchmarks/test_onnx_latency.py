"""The latency benchmark runs, checks its answers first, and names its peers."""

import pytest

pytest.importorskip("onnxruntime")

from benchmarks import answers, onnx_latency  # noqa: E402


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    sizes = onnx_latency.Sizes(300, 8, 96, 4)
    return onnx_latency.Exported(sizes, "reconstruct", tmp_path_factory.mktemp("latency"))


def test_rows_have_peers_and_checked_answers(exported):
    rows = exported.latency(3, seconds=0.01, most=6)
    timed = [row for row in rows if row["metric"] == "p50_ms"]
    assert all(row["answer_checked"] and row["value"] > 0 for row in timed)
    assert {row["peer"] for row in timed} == {None, onnx_latency.PLAIN, onnx_latency.PYTHON}
    assert sum(row["metric"] == "p99_ms" for row in rows) == 5


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
        exported.latency(1, seconds=0.01, most=2)
