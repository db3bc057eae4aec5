"""An existing factor model gets knobs: implicit's ALS, its recommendations untouched."""

import numpy as np
import pytest
import scipy.sparse

from cfsae_fast.config import SAEConfig, TrainConfig
from cfsae_fast.recommender import SteerableRecommender
from tests.recommender.conftest import small_dataset

als = pytest.importorskip("implicit.als")


@pytest.fixture(scope="module")
def base():
    matrix = scipy.sparse.csr_matrix(small_dataset().interactions.to_scipy())
    model = als.AlternatingLeastSquares(
        factors=16, iterations=8, regularization=0.1, random_state=0, num_threads=1
    )
    model.fit(matrix, show_progress=False)
    return model, matrix


@pytest.fixture(scope="module")
def wrapped(base):
    model, _ = base
    dataset = small_dataset()
    return SteerableRecommender.wrap(
        model.user_factors,
        model.item_factors,
        dataset.interactions,
        dataset.tags,
        sae=SAEConfig(k=8, n_latents=96),
        sae_training=TrainConfig(epochs=3, steps_per_epoch=80, batch_size=64, monitor="loss"),
    )


def test_no_knob_is_implicit_itself(base, wrapped):
    model, matrix = base
    users = np.arange(50)
    want_ids, want = model.recommend(users, matrix[users], N=10, filter_already_liked_items=True)
    names = wrapped.fitted.user_ids[users].tolist()
    got = wrapped.recommend(names, n=10)
    np.testing.assert_allclose(got.scores, want, rtol=1e-4, atol=1e-5)
    assert (got.ids == wrapped.fitted.item_ids[want_ids]).mean() > 0.99  # near ties may swap


def test_a_knob_moves_an_als_model(wrapped):
    dataset = small_dataset()
    users = wrapped.fitted.user_ids.values[:200].tolist()
    rises = []
    for concept in [one.name for one in wrapped.concepts()]:
        mask = dataset.tags.item_mask(concept, len(wrapped.fitted.item_ids))

        def share(steer, mask=mask):
            ids = wrapped.recommend(users, n=10, steer=steer).ids
            return mask[wrapped.fitted.item_ids.index(ids.ravel())].mean()

        rises.append(share({concept: 0.5}) - share(None))
    assert np.mean(rises) > 0.05


def test_new_history_is_folded_in_by_ridge_regression(base, wrapped):
    items = wrapped.fitted.cfae.items.astype(np.float64)
    history = [3, 8, 20]
    chosen = np.zeros(len(items))
    chosen[history] = 1
    want = np.linalg.solve(items.T @ items + np.eye(items.shape[1]), items.T @ chosen)
    got = wrapped.embed(histories=[wrapped.fitted.item_ids[np.array(history)].tolist()])[0]
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)
