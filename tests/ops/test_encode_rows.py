"""encode_rows against the reference: values, gradients, opcheck, mutation, errors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_cases import (
    ISAS,
    assert_same,
    copies,
    integers,
    leaves,
    make_rows,
    reals,
    seeds,
    tensors,
)

from cfsae_fast import ops, reference
from cfsae_fast.ops import Rows, autograd


@given(seeds, st.integers(0, 40), st.integers(1, 20), st.integers(1, 70), st.sampled_from(ISAS),
       st.booleans(), st.booleans())  # fmt: skip
def test_equals_reference_exactly(seed, batch, n_items, dim, isa, with_values, with_bias):
    rng = np.random.default_rng(seed)
    rows = make_rows(rng, batch, n_items, values=with_values)
    weight, bias = integers(rng, n_items, dim), integers(rng, dim) if with_bias else None
    with ops.force_isa(isa):
        got = ops.encode_rows(rows, weight, bias)
    assert_same(got, reference.encode_rows(*tensors((rows, weight, bias), double=True)))


def tensors_of_shape(shape, rng):
    batch, n_items, dim = shape
    return make_rows(rng, batch, n_items), reals(rng, n_items, dim), reals(rng, dim)


@pytest.mark.parametrize("shape", [(1, 1, 1), (257, 300, 512), (3, 7, 33)])
def test_is_close_on_reals(shape, rng, isa):
    arguments = tensors_of_shape(shape, rng)
    want = reference.encode_rows(*tensors(arguments, double=True))
    np.testing.assert_allclose(ops.encode_rows(*arguments), want, atol=1e-4)


def gradients(module, rows, weight, bias, upstream, **options):
    out = module.encode_rows(rows, weight, bias, **options)
    return torch.autograd.grad((out * upstream).sum(), [weight, bias, rows.values])


@given(seeds, st.integers(0, 12), st.integers(1, 9), st.integers(1, 40), st.sampled_from(ISAS))
def test_gradients_equal_reference_exactly(seed, batch, n_items, dim, isa):
    rng = np.random.default_rng(seed)
    rows, weight, bias = (
        make_rows(rng, batch, n_items),
        integers(rng, n_items, dim),
        reals(rng, dim),
    )
    upstream = torch.from_numpy(integers(rng, batch, dim))

    def of(module, double):
        values, w, b = leaves(rows.values, weight, bias, double=double)
        return gradients(module, Rows(*tensors(rows[:2]), values), w, b, upstream)

    with ops.force_isa(isa):
        got = of(ops, False)
    assert_same(got, of(reference, True))


def test_threads_do_not_change_results(rng):
    rows, weight, bias = tensors_of_shape((300, 500, 256), rng)
    upstream = torch.from_numpy(reals(rng, 300, 256))

    def all_of(threads):
        values, w, b = leaves(rows.values, weight, bias)
        taken = Rows(*tensors(rows[:2]), values)
        out = ops.encode_rows(taken, w, b, threads=threads)
        return out.detach(), *gradients(ops, taken, w, b, upstream, threads=threads)

    alone = all_of(1)
    for threads in (2, 3):
        assert_same(all_of(threads), alone)


@pytest.mark.parametrize("with_values", [True, False])
def test_opcheck(rng, with_values):
    rows, weight, bias = tensors(tensors_of_shape((5, 7, 9), rng))
    values = rows.values.requires_grad_() if with_values else None
    leaf_weight, leaf_bias = weight.requires_grad_(), bias.requires_grad_()
    torch.library.opcheck(
        autograd._encode_rows.overload,
        (rows.offsets, rows.items, values, leaf_weight, leaf_bias, 2),
    )


def test_inputs_are_not_mutated_and_strides_do_not_matter(rng):
    rows, weight, bias = tensors_of_shape((5, 7, 9), rng)
    before = copies([rows, weight, bias])
    got = ops.encode_rows(rows, weight, bias)
    assert_same([rows, weight, bias], before)
    spread = np.zeros((14, 18), np.float32)
    spread[::2, ::2] = weight
    assert_same(ops.encode_rows(rows, spread[::2, ::2], bias), got)
    assert_same(ops.encode_rows(tensors(rows), torch.from_numpy(spread)[::2, ::2], bias), got)


def test_nan_stays_in_its_row():
    rows = Rows(np.array([0, 1, 2]), np.array([0, 1], np.int32))
    weight = np.array([[np.nan, 1], [2, 3]], np.float32)
    assert_same(ops.encode_rows(rows, weight), [[np.nan, 1], [2, 3]])


I32, I64, F32 = np.int32, np.int64, np.float32


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"items": [0, 3]}, ValueError, r"rows.items must lie in \[0, 3\), got 3 at position 1"),
        ({"items": [0, -1]}, ValueError, r"rows.items must lie in \[0, 3\), got -1"),
        ({"items": np.array([0, 1])}, TypeError, "rows.items must be int32, got int64"),
        ({"offsets": [0, 3]}, ValueError, "rows.offsets must rise .* 2, got 3 at position 1"),
        ({"offsets": [2, 1]}, ValueError, "rows.offsets must rise"),
        ({"offsets": [-1, 1]}, ValueError, "rows.offsets must rise .* got -1"),
        ({"offsets": []}, ValueError, "rows.offsets must have at least 1 entry, got 0"),
        ({"values": [1]}, ValueError, r"rows.values must have shape \(2,\), got \(1,\)"),
        ({"weight": np.ones((3, 2))}, TypeError, "weight must be float32, got float64"),
        ({"weight": np.ones((3, 2), np.float16)}, TypeError, "weight must be float32, got float16"),
        (
            {"weight": np.ones(3, F32)},
            ValueError,
            r"weight must have shape \(any, any\), got \(3,\)",
        ),
        ({"weight": np.ones((3, 0), F32)}, ValueError, "weight must have at least one column"),
        (
            {"weight": [[1.0]]},
            TypeError,
            "weight must be a numpy array or a torch tensor, got list",
        ),
        ({"bias": np.ones(3, F32)}, ValueError, r"bias must have shape \(2,\), got \(3,\)"),
        ({"threads": -1}, ValueError, "threads must be 0 .* or more, got -1"),
        ({"threads": 5000}, ValueError, r"threads must lie in \[1, 1024\], got 5000"),
    ],
)
def test_errors_name_argument_want_and_got(change, error, message):
    given_ = {
        "offsets": [0, 2], "items": [0, 1], "values": [1, 1],
        "weight": np.ones((3, 2), F32), "bias": None, "threads": 1,
    } | change  # fmt: skip
    kinds = {"offsets": I64, "items": I32, "values": F32}
    rows = Rows(*(
        np.array(given_[key], kind) if isinstance(given_[key], list) else given_[key]
        for key, kind in kinds.items()
    ))  # fmt: skip
    with pytest.raises(error, match=message):
        ops.encode_rows(rows, given_["weight"], given_["bias"], threads=given_["threads"])


def test_tensors_of_another_device_or_dtype_are_refused():
    rows = Rows(torch.tensor([0, 1]), torch.tensor([0], dtype=torch.int32))
    with pytest.raises(TypeError, match="bfloat16"):
        ops.encode_rows(rows, torch.ones(2, 2, dtype=torch.bfloat16))
    with pytest.raises(TypeError, match="weight must be float32, got float64"):
        ops.encode_rows(rows, torch.ones(2, 2, dtype=torch.float64))


@pytest.mark.parametrize("bias", [False, True])
def test_one_long_history_is_shared_by_columns(bias, rng):
    """Alone, a row's columns are split among threads; the sums stay those of a row in a batch."""
    weight, start = reals(rng, 300, 700), reals(rng, 700) if bias else None
    items = rng.integers(0, 300, 250).astype(np.int32)
    rows = Rows(np.array([0, 250, 250]), items, reals(rng, 250))
    alone = Rows(rows.offsets[:2], items, rows.values)
    want = ops.encode_rows(rows, weight, start, threads=1)[:1]
    for threads in (1, 2, 3):
        for _ in range(8):  # a stream, which wakes the pool
            assert_same([ops.encode_rows(alone, weight, start, threads=threads)], [want])
