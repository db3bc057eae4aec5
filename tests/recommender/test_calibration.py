"""boost(concept, share=): the least alpha that gets there, or a warning that none does."""

import numpy as np
import pytest

from cfsae_fast import SteerableRecommender, boost, suppress
from cfsae_fast.errors import UnknownConceptError
from cfsae_fast.recommender.calibration import GRID, HALVINGS, ShareNotReached
from cfsae_fast.steering import resolve

N = 10


def shares(model, dataset, ids, concept):
    mask = dataset.tags.item_mask(concept, dataset.interactions.n_items)
    return mask[model.fitted.item_ids.index(ids.ravel().tolist())].reshape(ids.shape).mean(axis=1)


@pytest.mark.parametrize("mode", ["residual", "reconstruct"])
def test_the_least_alpha_that_reaches_the_share(planted, mode):
    model, dataset = planted
    concept = max(model.concepts(), key=lambda one: one.confidence).name
    users = dataset.interactions.user_ids.values[:60].tolist()
    found = model.calibrate(users, concept, share=0.6, n=N, mode=mode)
    assert found.reached.mean() > 0.4 and len(np.unique(found.alphas)) > 5
    wishes = [boost(concept, a) if a else None for a in found.alphas]
    got = model.recommend(users, n=N, mode=mode, steer=wishes)
    have = shares(model, dataset, got.ids, concept)
    np.testing.assert_allclose(have[found.reached], found.shares[found.reached])
    assert (have[found.reached] >= 0.6).all()
    step = np.diff(GRID).max() / 2**HALVINGS
    less = np.maximum(found.alphas - step - 1e-6, 0)
    wishes = [boost(concept, a) if a else None for a in less]
    under = model.recommend(users, n=N, mode=mode, steer=wishes)
    moved = found.reached & (found.alphas > step)
    assert (shares(model, dataset, under.ids, concept)[moved] < 0.6).mean() > 0.9


def test_a_request_may_ask_for_a_share(planted):
    model, dataset = planted
    concept, other = [one.name for one in model.concepts()][:2]
    users = dataset.interactions.user_ids.values[:20].tolist()
    found = model.calibrate(users, concept, share=0.5, n=N)
    asked = model.recommend(users, n=N, steer=boost(concept, share=0.5))
    wishes = [boost(concept, a) if a else None for a in found.alphas]
    given = model.recommend(users, n=N, steer=wishes)
    np.testing.assert_array_equal(asked.ids, given.ids)
    both = model.recommend(users[0], n=N, steer=boost(concept, share=0.5) + suppress(other))
    assert shares(model, dataset, both.ids[None], concept)[0] >= 0.5


def test_one_by_one_equals_the_batch(planted):
    model, dataset = planted
    concept = model.concepts()[0].name
    users = dataset.interactions.user_ids.values[:8].tolist()
    whole = model.calibrate(users, concept, share=0.4, n=N)
    each = [model.calibrate([user], concept, share=0.4, n=N).alphas[0] for user in users]
    np.testing.assert_allclose(whole.alphas, each, atol=0.01)


def test_what_cannot_be_had_is_said(planted):
    model, dataset = planted
    concept = model.concepts()[0].name
    mask = dataset.tags.item_mask(concept, dataset.interactions.n_items)
    carriers = model.fitted.item_ids[np.flatnonzero(mask)].tolist()
    user = dataset.interactions.user_ids.values[0]
    with pytest.warns(ShareNotReached, match="cannot be had for 1 of 1 users"):
        got = model.recommend(user, n=N, steer=boost(concept, share=0.5), deny=carriers)
    assert shares(model, dataset, got.ids[None], concept)[0] == 0


def test_errors(planted):
    model, _ = planted
    name = model.concepts()[0].name
    with pytest.raises(ValueError, match="boost must have alpha or share, and not both"):
        boost(name)
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got 1.5"):
        boost(name, share=1.5)
    with pytest.raises(ValueError, match="must be asked of recommend"):
        resolve(boost(name, share=0.3), model.concept_map)
    with pytest.raises(UnknownConceptError, match="is unknown"):
        model.calibrate(histories=[[]], concept="no such thing", share=0.3)
    with pytest.raises(ValueError, match="one share at a time"):
        model.recommend(histories=[[]], steer=boost(name, share=0.3) + boost(name, share=0.4))


def test_a_saved_model_still_knows_its_items(planted, tmp_path):
    model, _ = planted
    again = SteerableRecommender.load(model.save(tmp_path / "model"))
    assert again.concept_map == model.concept_map
    name = model.concepts()[0].name
    wanted = model.calibrate(histories=[[]], concept=name, share=0.3).alphas
    np.testing.assert_array_equal(
        again.calibrate(histories=[[]], concept=name, share=0.3).alphas, wanted
    )
