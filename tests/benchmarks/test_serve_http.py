"""The load test of the server: answers are checked, and a full queue is told apart."""

import pytest

pytest.importorskip("uvicorn")

from benchmarks import answers, serve_http  # noqa: E402
from cfsae_fast.recommender import SteerableRecommender  # noqa: E402

SIZES = serve_http.Sizes(300, 16, 96, 4)


@pytest.mark.slow
def test_load_is_measured_and_refusals_are_counted():
    tight = ("--workers", "1", "--queue", "0")
    rows = serve_http.measure(SIZES, [(1, 1), (8, 3)], 0.5, *tight)
    values = {(row["case"].split()[-1], row["metric"]): row["value"] for row in rows}
    assert values["clients=1", "refused_share"] == 0 < values["clients=8", "refused_share"]
    assert values["clients=1", "p50_ms"] <= values["clients=1", "p99_ms"]
    assert values["clients=1", "requests_per_s"] > 1


@pytest.mark.slow
def test_another_model_is_noticed(tmp_path):
    model = SteerableRecommender.from_fitted(serve_http.make_fitted(SIZES))
    other = SteerableRecommender.from_fitted(serve_http.make_fitted(SIZES._replace(k=3)))
    with (
        serve_http.server(other, tmp_path) as port,
        pytest.raises(answers.WrongAnswer, match="the server"),
    ):
        serve_http.check(port, model, SIZES)
