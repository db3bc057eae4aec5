"""Products in whole numbers of 16 bits, against float64 within what rounding the operands does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_cases import seeds

from cfsae_fast import ops
from cfsae_fast.ops.tiles import int16_product_

DEPTH = 256  # terms of a sum that share a step


def steps(rows):
    """What 1 stands for, in each block of each row: (M, blocks)."""
    blocks = [rows[:, at : at + DEPTH] for at in range(0, rows.shape[1], DEPTH)]
    found = [
        np.maximum(np.linalg.norm(one, axis=1) / 46300, np.abs(one).max(axis=1) / 32767)
        for one in blocks
    ]
    return np.repeat(np.array(found).T, DEPTH, axis=1)[:, : rows.shape[1]]


def bound(left, right):
    """Of the error of left @ right: half a step for each operand of each term, and fp32 sums."""
    rows, columns = np.abs(left), np.abs(right.T)
    a, b = steps(rows) * 0.501, steps(columns) * 0.501
    return a @ columns.T + rows @ b.T + a @ b.T + 1e-6 * (rows @ columns.T)


def check(left, right, add, threads=1):
    there = np.linspace(-1, 1, len(left) * right.shape[1], dtype=np.float32)
    out = there.reshape(len(left), -1).copy()
    exact = left.astype(np.float64) @ right.astype(np.float64) + (out.astype(float) if add else 0)
    within = bound(left.astype(np.float64), right.astype(np.float64)) + 1e-6 * add
    int16_product_(left, right, out, add=add, threads=threads)
    np.testing.assert_array_less(np.abs(out - exact), within + 1e-30)
    return out


shapes = st.tuples(st.integers(1, 70), st.integers(1, 600), st.integers(1, 70))


@pytest.mark.parametrize("isa", ops.build_info()["isa"])
@given(seeds, shapes, st.booleans(), st.booleans(), st.booleans(), st.integers(1, 3))
def test_product_is_the_exact_one_within_its_rounding(isa, seed, shape, turn_left, turn_right, add,
                                                      threads):  # fmt: skip
    rng = np.random.default_rng(seed)
    m, k, n = shape
    left, right = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    left *= 10.0 ** rng.integers(-6, 6, (m, 1))
    left[rng.random((m, k)) < 0.3] = 0
    left, right = left.astype(np.float32), right.astype(np.float32)
    left = np.asfortranarray(left) if turn_left else left
    right = np.asfortranarray(right) if turn_right else right
    with ops.force_isa(isa):
        check(left, right, add, threads)


@pytest.mark.parametrize("isa", ops.build_info()["isa"])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_longest_rows_do_not_overflow(isa, sign):
    """Equal rows meet the bound of their product; one large term meets that of a number."""
    for terms in (1, 2, 255, 256, 300):
        left = np.full((9, terms), 3.0, np.float32)
        with ops.force_isa(isa):
            check(left, np.full((terms, 33), sign * 0.7, np.float32), add=False)
            left[:, 1:] = 1e-3
            check(left, sign * left.T.copy(), add=False)


def test_every_instruction_set_and_thread_count_gives_the_same_rows(rng):
    left = rng.standard_normal((300, 700)).astype(np.float32)
    right = rng.standard_normal((700, 90)).astype(np.float32)
    found = []
    for isa in ops.build_info()["isa"]:
        for threads in (1, 3):
            out = np.empty((300, 90), np.float32)
            with ops.force_isa(isa):
                int16_product_(left, right, out, threads=threads)
            found.append(out)
    for one, other in zip(found[::2], found[1::2], strict=True):
        np.testing.assert_array_equal(one, other)
    for one in found:
        np.testing.assert_allclose(one, found[0], rtol=1e-5, atol=2e-3)


@pytest.mark.parametrize("add", [True, False])
def test_a_large_right_is_taken_in_pieces(rng, add):
    """More terms and columns than are held at a time: 8192 and 2^22 / 8192 = 512."""
    left = rng.standard_normal((9, 9000)).astype(np.float32)
    right = np.asfortranarray(rng.standard_normal((9000, 600)).astype(np.float32))
    check(left, right, add, threads=2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(value):
    left, right = np.ones((10, 40), np.float32), np.ones((40, 50), np.float32)
    left[3, 7] = value
    out = np.empty((10, 50), np.float32)
    int16_product_(left, right, out)
    assert not np.isfinite(out[3]).any() and np.isfinite(np.delete(out, 3, axis=0)).all()


def test_no_terms_and_no_rows():
    out = np.ones((2, 3), np.float32)
    int16_product_(np.empty((2, 0), np.float32), np.empty((0, 3), np.float32), out, add=True)
    assert (out == 1).all()
    int16_product_(np.empty((2, 0), np.float32), np.empty((0, 3), np.float32), out)
    assert (out == 0).all()
    int16_product_(np.empty((0, 4), np.float32), np.ones((4, 3), np.float32), out[:0])


def test_shapes_that_do_not_fit_are_refused():
    one = np.ones((4, 4), np.float32)
    with pytest.raises(ValueError, match=r"right must have shape \(4, any\), got \(3, 4\)"):
        int16_product_(one, one[:3], one.copy())
    with pytest.raises(ValueError, match=r"out must have shape"):
        int16_product_(one, one, np.ones((3, 4), np.float32))
    with pytest.raises(ValueError, match="left.* must be contiguous"):
        int16_product_(one[::2, ::2], one[:2], np.ones((2, 4), np.float32))
    with pytest.raises(TypeError, match="left must be float32"):
        int16_product_(one.astype(float), one, one.copy())
