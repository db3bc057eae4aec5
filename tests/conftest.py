"""Fixtures shared by all tests: a seeded generator, and every instruction set of this machine."""

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from cfsae_fast import ops

# a busy machine draws slowly; that says nothing about the code
settings.register_profile(
    "cfsae", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("cfsae")


@pytest.fixture
def rng():
    return np.random.default_rng(20260801)


@pytest.fixture(params=ops.build_info()["isa"])
def isa(request):
    """Runs the test once per instruction set, with the engine forced onto it."""
    with ops.force_isa(request.param):
        yield request.param
