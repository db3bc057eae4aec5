"""The yardsticks measure right: EASE against its definition, popularity against counting."""

import numpy as np
import scipy.sparse

from benchmarks.baselines import ease, popularity
from benchmarks.record import row


def test_ease_minimises_its_objective():
    generator = np.random.default_rng(0)
    x = (generator.random((6, 8)) < 0.4).astype(np.float64)
    model = ease.fit(scipy.sparse.csr_matrix(x), 2.0)
    weights = ease.scores(model, scipy.sparse.eye(8, format="csr"))
    np.fill_diagonal(weights, 0)

    def objective(b):
        return ((x - x @ b) ** 2).sum() + 2.0 * (b**2).sum()

    best = objective(weights)
    for _ in range(50):
        step = generator.normal(scale=0.01, size=weights.shape)
        np.fill_diagonal(step, 0)
        assert objective(weights + step) > best


def test_recommenders_leave_the_history_out():
    histories = scipy.sparse.csr_matrix(np.array([[1.0, 0, 0, 0], [0, 0, 1, 1]]))
    top = popularity.recommend(np.array([9, 5, 7, 7]), histories, 2)
    assert top.tolist() == [[2, 3], [0, 1]]
    taken = scipy.sparse.csr_matrix(np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]))
    top = ease.recommend(ease.fit(taken, 0.5), histories, 2)
    assert top[0, 0] == 1 and set(top[1].tolist()) == {0, 1}


def test_ratio_is_above_one_when_better():
    assert row("a", "p50_ms", 2.0, peer="x", peer_value=8.0, higher_is_better=False)["ratio"] == 4
    assert row("a", "ndcg@20", 0.5, peer="x", peer_value=0.4)["ratio"] == 1.25
    assert row("a", "ndcg@20", 0.5)["ratio"] is None
