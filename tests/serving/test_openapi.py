"""The server keeps what its OpenAPI document promises, whatever a client sends."""

import pytest
from hypothesis import settings

schemathesis = pytest.importorskip("schemathesis")
pytest.importorskip("fastapi")

from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

from cfsae_fast.recommender import SteerableRecommender  # noqa: E402
from cfsae_fast.serving import Limits, make_app  # noqa: E402
from tests.export.networks import make_fitted  # noqa: E402

# limits so low that what breaks them still fits a body
LIMITS = Limits(batch=3, history=5, listed=5, n=200)
app = make_app(SteerableRecommender.from_fitted(make_fitted()), LIMITS)
schema = schemathesis.openapi.from_asgi("/openapi.json", app)


@schema.parametrize()
@settings(max_examples=40, deadline=None)
def test_promises_are_kept(case):
    # ids that no catalogue holds fit the schema, and are refused
    case.call_and_validate(excluded_checks=[positive_data_acceptance])
