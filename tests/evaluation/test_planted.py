"""Planted tastes: what generates histories, what is found again, and what anybody could know."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from cfsae_fast.data import generate, generated
from cfsae_fast.data.loading import generated_options
from cfsae_fast.errors import DataError
from cfsae_fast.evaluation import prepare
from cfsae_fast.evaluation.experiments import planted
from cfsae_fast.inference import CFAENetwork, SAENetwork

SOURCE = "generated:users=300,items=120,concepts=6,seed=4,mean_history=60"


def test_preferences_are_what_histories_follow():
    users, items, concepts = 3000, 300, 5
    truth = generated.preferences(users, concepts, seed=2)
    np.testing.assert_allclose(truth.sum(axis=1), 1)
    assert np.isin(np.round(truth[truth > 0], 2), [0.18, 0.24, 0.42, 0.58, 0.76, 0.82, 1]).all()
    rows = generate(users, items, concepts, seed=2, mean_history=6).interactions.rows()
    odds = generated.catalogue(items, concepts, seed=2).odds()
    np.testing.assert_allclose(odds.sum(axis=1), 1)
    p = 0.8 * truth @ odds[:-1] + 0.2 * odds[-1]
    taken = np.zeros((users, items))
    taken[np.repeat(np.arange(users), np.diff(rows.offsets)), rows.items] = 1
    want = (1 - (1 - p) ** 5).mean(axis=0)  # at least 5 draws each, 6 on average
    assert np.corrcoef(taken.mean(axis=0), want)[0, 1] > 0.99
    assert (taken * p).sum() / taken.sum() > 1.5 * p.mean()


def test_first_preferences_do_not_depend_on_how_many(monkeypatch):
    monkeypatch.setattr(generated, "BLOCK_USERS", 64)
    many, few = (generated.preferences(n, 7, seed=3) for n in (200, 70))
    np.testing.assert_array_equal(many[:64], few[:64])


def test_correlations_equal_numpy(rng):
    a, b = rng.normal(size=(30, 3)), rng.normal(size=(30, 4))
    a[:, 1] = 5
    found = planted.correlations(a, b)
    np.testing.assert_allclose(found[0], [np.corrcoef(a[:, 0], one)[0, 1] for one in b.T])
    np.testing.assert_array_equal(found[1], 0)


def test_the_posterior_by_hand(rng):
    """Two concepts, three items: the sums over all tastes and lengths written out."""
    odds = np.array([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5], [0.5, 0.3, 0.2]])
    slots, history = np.array([0.6, 0.4]), np.array([[True, False, True]])
    want, total = np.zeros(2), 0.0
    for n in np.geomspace(5, 6 * 9, planted.DRAWS):
        for first, second in product(range(2), repeat=2):
            taste = np.zeros(2)
            taste[first] += 0.6
            taste[second] += 0.4
            absent = (1 - (0.8 * taste @ odds[:2] + 0.2 * odds[2])) ** n
            weight = np.prod(np.where(history[0], 1 - absent, absent)) * n * np.exp(-n / 5)
            want, total = want + weight * taste, total + weight
    found = planted.posterior(history.astype(np.float32), odds, popular=0.2, slots=slots, mean=9.0)
    np.testing.assert_allclose(found[0], want / total, rtol=1e-4)


@pytest.fixture(scope="module")
def cut():
    options = generated_options(SOURCE)
    return prepare(generate(**options), seed=1)


def judged(cut, item_weight, dictionary):
    d = dictionary.shape[1]
    zeros = np.zeros(len(dictionary), np.float32)
    fitted = SimpleNamespace(
        cfae=CFAENetwork(kind="elsa", item_weight=item_weight, items=item_weight),
        sae=SAENetwork("topk", dictionary, zeros, dictionary, np.zeros(d, np.float32), 6, 6,
                       standardize=False),
    )  # fmt: skip
    return planted.judge(fitted, cut, SOURCE)


def test_latents_that_count_concepts_are_found_and_random_ones_are_not(cut, rng):
    carried = cut.dataset.tags.matrix(cut.train.n_items).toarray()
    eye = np.eye(6, dtype=np.float32)
    counts = np.ascontiguousarray((carried / carried.sum(axis=0)).T, dtype=np.float32)
    found = judged(cut, counts, np.concatenate([eye, eye[:2]]))
    noise = judged(cut, rng.normal(size=counts.shape).astype(np.float32), eye)
    assert found["best_latent"] > 0.5 > noise["best_latent"]
    assert found["distinct_latents"] == found["concepts"] == 6
    limits = found["limits"]
    assert limits["posterior"] > max(limits["shares"], limits["embedding"], found["best_latent"])
    assert limits["posterior"] > 0.9


def test_only_generated_sources_have_a_truth():
    assert generated_options(SOURCE)["mean_history"] == 60
    assert generated_options("generated:users=9")["concepts"] == 20
    with pytest.raises(DataError, match="must begin with 'generated:'"):
        generated_options("anime-5k")
