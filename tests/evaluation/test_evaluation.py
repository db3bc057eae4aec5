"""The protocol leaks nothing, the judgements equal slow ones, and obedience is measured right."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from cfsae_fast import evaluation, metrics
from cfsae_fast.data import Filters, MinUserInteractions, generate
from cfsae_fast.errors import DataError
from cfsae_fast.evaluation import spearman
from tests.recommender.conftest import small_dataset, small_model


@pytest.fixture(scope="module")
def cut():
    return evaluation.prepare(small_dataset(), seed=7)


def test_protocol_cuts_users_and_rows(cut):
    everybody = cut.dataset.interactions
    parts = [cut.train.user_ids, cut.validation.inputs.user_ids, cut.test.inputs.user_ids]
    ids = np.concatenate([part.values for part in parts])
    assert sorted(ids.tolist()) == sorted(everybody.user_ids.values.tolist())
    assert (everybody.counts_per_user() >= 5).all()
    for holdout in (cut.validation, cut.test):
        whole = holdout.inputs.counts_per_user() + holdout.targets.counts_per_user()
        want = np.ceil(0.2 * whole - 1e-9)
        np.testing.assert_array_equal(holdout.targets.counts_per_user(), want)


def test_protocol_is_a_function_of_the_seed(cut):
    again = evaluation.prepare(small_dataset(), seed=7)
    other = evaluation.prepare(small_dataset(), seed=8)
    assert again.train == cut.train and again.test.targets == cut.test.targets
    assert other.train != cut.train


def test_protocol_refuses_too_few_users():
    with pytest.raises(DataError, match="at least 10 users"):
        evaluation.prepare(generate(users=9, items=40, concepts=3), filters=Filters())
    with pytest.raises(DataError, match="filters must leave an interaction"):
        evaluation.prepare(small_dataset(), filters=Filters(MinUserInteractions(10_000)))


def test_ranking_equals_a_dense_judgement(cut):
    fitted = small_model("elsa", "topk").fitted
    keep = np.flatnonzero(cut.test.targets.counts_per_user())
    inputs, targets = cut.test.inputs.rows(keep), cut.test.targets.rows(keep)
    scores = fitted.cfae.decode(fitted.cfae.encode(inputs))
    scores[np.repeat(np.arange(len(keep)), np.diff(inputs.offsets)), inputs.items] = -np.inf
    top = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    want = metrics.estimate(metrics.ndcg_at(top, targets, 20))
    got = evaluation.judge_ranking(fitted, cut.test)
    assert got.ndcg == pytest.approx(want, rel=1e-6)


def test_reconstruct_differs_from_residual(cut):
    fitted = small_model("elsa", "topk").fitted
    found = evaluation.evaluate(fitted, cut.test)
    base, left = found["base"]["ndcg"]["mean"], found["reconstruct"]["ndcg"]["mean"]
    assert 0 < left != base and found["ndcg_kept"] == pytest.approx(left / base)
    assert 0 <= found["sae"]["dead_share_train"] <= found["sae"]["dead_share_test"] <= 1


def test_holdout_of_another_catalogue_is_refused():
    other = evaluation.prepare(generate(users=60, items=40, concepts=3, seed=1))
    with pytest.raises(ValueError, match="items of the model"):
        evaluation.judge_ranking(small_model("elsa", "topk").fitted, other.test)


def test_everybody_can_be_asked_for(cut):
    fitted = evaluation.with_everybody(small_model("elsa", "topk").fitted, cut)
    assert len(fitted.user_ids) == cut.dataset.interactions.n_users


def test_obedience_of_planted_concepts(cut):
    fitted = small_model("elsa", "topk").fitted
    rows = cut.test.inputs.rows()
    mean_rise = []
    for name in [concept.name for concept in fitted.concepts]:
        items = cut.dataset.tags.item_mask(name, len(fitted.item_ids))
        found = evaluation.obedience(fitted, rows, name, items, alphas=(0.0, 0.25, 0.5), n=10)
        assert found.n_items == items.sum() and len(found.shares) == 3
        assert found.suppressed < found.shares[0]
        mean_rise.append(found.shares[-1] - found.shares[0])
    assert np.mean(mean_rise) > 0


def test_spearman_equals_scipy():
    generator = np.random.default_rng(0)
    for _ in range(50):
        x, y = generator.integers(0, 5, size=(2, 7)).astype(float)
        if np.ptp(x) and np.ptp(y):
            assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert np.isnan(spearman(np.ones(4), np.arange(4.0)))
