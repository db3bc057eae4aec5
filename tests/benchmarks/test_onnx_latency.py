"""The latency benchmark runs, checks its answers first, and names its peers."""

import pytest

pytest.importorskip("onnxruntime")

from benchmarks import onnx_latency  # noqa: E402


def test_rows_have_peers_and_checked_answers():
    rows = onnx_latency.measure(onnx_latency.Sizes(60, 8, 24, 4), [1, 3], seconds=0.01, most=6)
    timed = [row for row in rows if row["metric"] == "p50_ms"]
    assert len(timed) == 6 and all(row["answer_checked"] for row in timed)
    assert {row["peer"] for row in timed} == {None, "graph=plain", "graph=custom"}
    assert all(row["value"] > 0 for row in rows)
