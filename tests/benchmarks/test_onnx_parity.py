"""The parity benchmark compares every graph of a model, and would notice another model."""

import pytest

pytest.importorskip("onnxruntime")

from benchmarks import onnx_parity  # noqa: E402
from cfsae_fast.recommender import SteerableRecommender  # noqa: E402
from tests.export.networks import make_fitted  # noqa: E402


@pytest.mark.parametrize("cfae, graphs", [("elsa", 8), ("multdae", 4)])
def test_every_graph_is_compared(tmp_path, cfae, graphs):
    model = SteerableRecommender.from_fitted(make_fitted(cfae))
    rows = onnx_parity.compare(model, "made-up", tmp_path, requests=4)
    different = [row for row in rows if row["metric"] == "different"]
    assert len(different) == graphs and not any(row["value"] for row in different)
    assert all(row["value"] < 1e-4 for row in rows if row["metric"] == "error")


def test_losses_have_a_row_for_each_precision(tmp_path):
    model = SteerableRecommender.from_fitted(make_fitted())
    rows = onnx_parity.losses(model, "made-up", tmp_path)
    assert [row["case"].split()[-1] for row in rows] == ["fp16", "bf16", "int8"]
