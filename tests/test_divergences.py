"""Divergences against numbers worked out by hand, and against scipy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from cfsae_fast.concepts.divergences import divergences


def test_by_hand():
    """Rows (1, 0) and (1/2, 1/2) of equal sum: m = (3/4, 1/4)."""
    found = divergences(csr_array([[2.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))
    ln2, ln3 = np.log(2), np.log(3)
    h_m = 2 * ln2 - 0.75 * ln3
    assert found.alive == 2 and found.reference == pytest.approx(h_m)
    np.testing.assert_array_equal(found.rows, [0, 1])
    np.testing.assert_allclose(found.entropy, [0.0, ln2])
    np.testing.assert_allclose(found.entropy_decrease, [1.0, (h_m - ln2) / h_m])
    np.testing.assert_allclose(
        found.kl, [(2 * ln2 - ln3) / ln2, (1.5 * ln2 - ln3 / 2 - 0.5 * ln2) / ln2]
    )
    np.testing.assert_allclose(found.js[0], (np.log2(8 / 7) + 0.75 * np.log2(6 / 7) + 0.25) / 2)
    # the published one: the quarter of m that row 0 leaves empty costs ln(1 / 1e-9) each
    want = 0.75 * np.log(0.75) + 0.25 * np.log(0.25 / 1e-9)
    np.testing.assert_allclose(found.paper_kl[0], want, rtol=1e-6)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 200))
def test_equals_scipy(n_rows, n_columns, seed):
    rng = np.random.default_rng(seed)
    table = rng.random((n_rows, n_columns)) * (rng.random((n_rows, n_columns)) < 0.6)
    found = divergences(csr_array(table))
    m = table.sum(axis=0)
    for at, row in enumerate(found.rows):
        p = table[row]
        np.testing.assert_allclose(found.entropy[at], entropy(p), atol=1e-12)
        np.testing.assert_allclose(found.js[at], jensenshannon(p, m, base=2) ** 2, atol=1e-9)
        np.testing.assert_allclose(found.paper_kl[at], entropy(m, p / p.sum() + 1e-9), atol=1e-9)
        scale = np.log(found.alive) if found.alive > 1 else 1.0
        np.testing.assert_allclose(found.kl[at], entropy(p, m) / scale, atol=1e-9)
        assert -1e-9 <= found.js[at] <= 1 + 1e-9


def test_an_empty_table_has_no_rows():
    assert len(divergences(csr_array((3, 4))).rows) == 0


def test_kl_does_not_grow_with_the_number_of_dead_columns():
    table = np.array([[3.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
    wide = np.hstack([table, np.zeros((2, 50))])
    mine, theirs = divergences(csr_array(table)), divergences(csr_array(wide))
    np.testing.assert_allclose(mine.kl, theirs.kl)
    np.testing.assert_allclose(mine.js, theirs.js)
    assert mine.js == pytest.approx([mine.js[0]] * 2)
