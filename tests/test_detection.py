"""AUC, thresholds, halves and the log-lift detector, by hand and on planted tags."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.metrics import roc_auc_score

from cfsae_fast.concepts import detection
from cfsae_fast.recommender import probing


def test_auc_by_hand():
    scores = np.array([3.0, 1.0, 2.0, 2.0])
    positive = np.array([True, False, True, False])
    # 3 beats 1 and 2; 2 beats 1 and ties with 2
    assert detection.auc(scores, positive, ~positive) == pytest.approx(3.5 / 4)
    assert np.isnan(detection.auc(scores, positive & False, positive))


@given(st.integers(2, 60), st.integers(0, 500))
def test_auc_equals_scikit_learn(n, seed):
    rng = np.random.default_rng(seed)
    scores, positive = rng.integers(0, 5, n).astype(float), rng.random(n) < 0.5
    positive[:2] = [True, False]
    want = roc_auc_score(positive, scores)
    assert detection.auc(scores, positive, ~positive) == pytest.approx(want)


def test_error_of_auc_matches_simulation(rng):
    drawn = [
        detection.auc(
            np.concatenate([rng.normal(1, 1, 30), rng.normal(0, 1, 50)]),
            slice(0, 30),
            slice(30, 80),
        )
        for _ in range(2000)
    ]
    got = detection.auc_error(np.mean(drawn), 30, 50)
    assert got == pytest.approx(np.std(drawn), rel=0.1)


def test_threshold_and_balanced_accuracy_by_hand():
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    positive, negative = np.array([2, 3]), np.array([0, 1])
    cut = detection.best_threshold(scores, positive, negative)
    assert cut == pytest.approx(0.1)  # all positives above, one of two negatives below
    assert detection.balanced_accuracy(scores, positive, negative, cut) == pytest.approx(0.75)


@given(st.integers(0, 5), st.integers(1, 30), st.integers(0, 99))
def test_halves_share_nothing_and_lose_nothing(n_tags, n_items, seed):
    rng = np.random.default_rng(seed)
    tags = csr_array((rng.random((n_tags, n_items)) < 0.4) * rng.random((n_tags, n_items)))
    first, second = detection.halves(tags, seed=seed)
    np.testing.assert_array_equal((first + second).toarray(), tags.toarray())
    assert not first.multiply(second).nnz
    assert (np.isin(np.diff(first.indptr) - np.diff(second.indptr), [0, 1])).all()
    again = detection.halves(tags, seed=seed)[0]
    np.testing.assert_array_equal(first.toarray(), again.toarray())


def test_a_planted_tag_is_found_and_a_shuffled_one_is_not(rng):
    activations = rng.exponential(size=(400, 40)) * (rng.random((400, 40)) < 0.2)
    carried = rng.random((3, 400)) < 0.3
    for tag in range(3):
        activations[:, tag] += carried[tag] * (2 + rng.exponential(size=400))
    tags = csr_array(carried.astype(float))
    results = {}
    for name, table in (("planted", tags), ("shuffled", detection.shuffled(tags, seed=1))):
        known, unseen = detection.halves(table, seed=3)
        scores = probing.directions(activations, known) @ activations.T
        results[name] = [
            detection.auc(scores[t], unseen[[t]].indices, table[[t]].toarray()[0] == 0)
            for t in range(3)
        ]
    assert min(results["planted"]) > 0.75
    assert abs(np.mean(results["shuffled"]) - 0.5) < 0.08


def test_calibration_error_by_hand():
    stated, actual = np.array([0.91, 0.93, 0.15, np.nan]), np.array([1.0, 0.5, 0.15, 1.0])
    # bin 9: mean stated 0.92, mean actual 0.75, two of three; bin 1: no gap
    assert detection.calibration_error(stated, actual) == pytest.approx(0.17 * 2 / 3)
    assert np.isnan(detection.calibration_error(stated[3:], actual[3:]))
