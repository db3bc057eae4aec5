"""Probed maps point where a tag's items are, and `toward` goes equally far for all of them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from cfsae_fast.inference import SAENetwork
from cfsae_fast.recommender import probing
from cfsae_fast.steering import TOWARD_REACH, apply, resolve


def test_directions_by_hand():
    """Two items on opposite sides: the direction lies along their difference."""
    items = np.array([[1.0, 2.0], [-1.0, 2.0]])
    found = probing.directions(items, csr_array([[1.0, 0.0], [0.0, 1.0]]))
    # moments 2 on the first axis, ridge 10 times their mean eigenvalue 1: slope 1 / 12 each way
    np.testing.assert_allclose(found, [[1 / 12, 0], [-1 / 12, 0]], atol=1e-12)


def test_weights_count_as_copies_of_items():
    rng = np.random.default_rng(0)
    items, tags = rng.normal(size=(6, 3)), csr_array((rng.random((2, 6)) < 0.5) * 1.0)
    copies = np.array([1, 4, 2, 0, 1, 3])
    found = probing.directions(items, tags, ridge=0.5, weights=copies.astype(np.float64))
    many = np.repeat(np.arange(6), copies)
    # the same moments up to the mean of the weights, by which ridge and moments both scale
    expected = probing.directions(items[many], tags.tocsc()[:, many].tocsr(), ridge=0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_items_that_many_took_say_more_of_a_concept(planted):
    """Of two items of a concept, maps lean more to the popular one than ridge over all alike."""
    fitted, n_items = planted[0].fitted, planted[1].interactions.n_items
    taken = np.bincount(fitted.histories.items, minlength=n_items)
    two, items = [taken.argmax(), taken.argmin()], fitted.cfae.encode_items()
    table = np.zeros((1, n_items))
    table[0, two] = 1
    flat = probing.directions(items, csr_array(table), ridge=probing.ALIKE)[0]
    ours, alike = (items[two] @ one for one in (probing.wanted(fitted, csr_array(table))[0], flat))
    assert ours[0] - ours[1] > (alike[0] - alike[1]) / np.linalg.norm(flat)


def test_maps_point_along_their_directions(planted):
    model, dataset = planted
    fitted = model.fitted
    tags = csr_array(dataset.tags.matrix(dataset.interactions.n_items))
    wanted = probing.wanted(fitted, tags)
    np.testing.assert_allclose(np.linalg.norm(wanted, axis=1), 1, rtol=1e-6)
    cosines = []
    for top in (1, 4, 24):
        found = probing.build(fitted, tags, dataset.tags.names, top=top)
        assert found.method == "probe" and len(found) == len(dataset.tags.names)
        told = np.stack([w @ fitted.sae.dictionary[n] for n, w in map(found.target, found.names)])
        along = (told * wanted).sum(axis=1)
        lengths = np.linalg.norm(told, axis=1) * np.linalg.norm(wanted, axis=1)
        cosines.append((along / lengths).mean())
    assert cosines[0] < cosines[1] < cosines[2] and cosines[2] > 0.9


def test_a_tag_of_no_items_is_absent(planted):
    model, dataset = planted
    tags = csr_array((1, dataset.interactions.n_items))
    found = probing.build(model.fitted, tags, ("nothing",))
    assert "nothing" in found.absent and not len(found)


@pytest.mark.parametrize("top", [1, 24])
def test_toward_moves_as_far_however_many_latents_share_a_concept(planted, top):
    model, dataset = planted
    tags = csr_array(dataset.tags.matrix(dataset.interactions.n_items))
    found = probing.build(model.fitted, tags, dataset.tags.names, top=top)
    sae: SAENetwork = model.fitted.sae
    code, name = np.zeros(sae.n_latents), found.names[0]
    code[[1, 5]] = [2.0, 3.0]
    for strength, pull, share in ((0.4, 1.0, 2 / 3), (0.5, 1.0, 1), (0.5, 0.3, 0.3), (1, 1, 49)):
        turns = probing.toward(model.fitted, found, name, strength, pull=pull)
        pushed = (apply(code, resolve(turns)) - code) @ sae.dictionary
        expected = share * TOWARD_REACH * code.sum()
        assert np.linalg.norm(pushed) == pytest.approx(expected, rel=1e-4)
    assert not probing.toward(model.fitted, found, name, 0.0)
    with pytest.raises(ValueError, match="strength must be in"):
        probing.toward(model.fitted, found, name, 1.2)


def test_pulls_by_hand(planted):
    """Four times as long as usual: an eighth of the way; nothing known of a user: the usual."""
    fitted, direction = planted[0].fitted, np.zeros(planted[0].fitted.sae.d)
    direction[3] = fitted.usual_length
    lengths = np.array([1.0, 4.0, 0.25, 0.0])
    got = probing.pulls(fitted, lengths[:, None] * direction)
    np.testing.assert_allclose(got, [1, 0.125, 8, 1], rtol=1e-6)


def test_the_usual_length_is_the_stored_users_median(planted):
    fitted = planted[0].fitted
    lengths = np.linalg.norm(fitted.cfae.encode(fitted.histories), axis=1)
    assert fitted.usual_length == pytest.approx(np.median(lengths), rel=1e-6)
    half = len(fitted.user_ids) // 2
    factors = np.zeros((len(fitted.user_ids), fitted.sae.d), np.float32)
    factors[:, 0] = np.where(np.arange(len(factors)) < half, 2.0, 0.0)
    assert replace(fitted, user_factors=factors).usual_length == 2.0
    assert replace(fitted, user_factors=0 * factors).usual_length == 1.0


def test_toward_raises_the_share_of_its_concept(planted):
    model, dataset = planted
    tags = csr_array(dataset.tags.matrix(dataset.interactions.n_items))
    found = probing.build(model.fitted, tags, dataset.tags.names)
    users = dataset.interactions.user_ids.values[:80].tolist()
    for name in found.names[:3]:
        mask = dataset.tags.item_mask(name, dataset.interactions.n_items)
        shares = []
        for strength in (0.0, 0.2, 0.5):
            turns = probing.toward(model.fitted, found, name, strength)
            ids = model.recommend(users, n=10, steer=turns if strength else None).ids
            shares.append(mask[model.fitted.item_ids.index(ids.ravel().tolist())].mean())
        assert shares[0] < shares[1] < shares[2]
