"""A layer: the product in float64, and the same bits whatever the batch and the threads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_cases import ISAS, integers, reals, seeds

from cfsae_fast import ops
from cfsae_fast.ops.layers import linear

sizes = st.tuples(st.integers(0, 70), st.integers(1, 90), st.integers(1, 80))


@given(seeds, st.sampled_from(ISAS), sizes, st.integers(1, 3))
def test_is_the_product_and_the_bias(seed, isa, shape, threads):
    rng, (batch, n, m) = np.random.default_rng(seed), shape
    x, weight, bias = integers(rng, batch, m), integers(rng, n, m), integers(rng, n)
    with ops.force_isa(isa):
        got = linear(x, weight, bias, threads=threads)
    np.testing.assert_array_equal(got, x.astype(np.float64) @ weight.T + bias)


@pytest.mark.parametrize("isa", ISAS)
def test_a_row_is_the_same_in_every_batch(isa):
    rng = np.random.default_rng(1)
    x, weight, bias = reals(rng, 67, 3000), reals(rng, 45, 3000), reals(rng, 45)  # several blocks
    with ops.force_isa(isa):
        together = linear(x, weight, bias, threads=3)
        alone = [linear(x[at : at + 1], weight, bias, threads=1) for at in range(len(x))]
    np.testing.assert_array_equal(together, np.concatenate(alone))
    np.testing.assert_allclose(together, x.astype(np.float64) @ weight.T + bias, atol=2e-3)


def test_arrays_that_do_not_fit_are_refused():
    x, weight, bias = np.zeros((2, 3), np.float32), np.zeros((4, 3), np.float32), np.zeros(4)
    with pytest.raises(TypeError, match="bias must be"):
        linear(x, weight, bias)
    with pytest.raises(ValueError, match="weight must"):
        linear(x, weight[:, :2], bias.astype(np.float32))
    with pytest.raises(ValueError, match="bias must"):
        linear(x, weight, np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="threads must"):
        linear(x, weight, bias.astype(np.float32), threads=-1)
