"""Probed maps point where a tag's items are, and `toward` goes equally far for all of them."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from cfsae_fast.inference import SAENetwork
from cfsae_fast.recommender import probing
from cfsae_fast.steering import apply, resolve


def test_directions_by_hand():
    """Two items on opposite sides: the direction lies along their difference."""
    items = np.array([[1.0, 2.0], [-1.0, 2.0]])
    found = probing.directions(items, csr_array([[1.0, 0.0], [0.0, 1.0]]))
    # moments 2 on the first axis, ridge 10 times their mean eigenvalue 1: slope 1 / 12 each way
    np.testing.assert_allclose(found, [[1 / 12, 0], [-1 / 12, 0]], atol=1e-12)


def test_maps_point_along_their_directions(planted):
    model, dataset = planted
    fitted = model.fitted
    tags = csr_array(dataset.tags.matrix(dataset.interactions.n_items))
    wanted = probing.directions(fitted.cfae.encode_items(), tags)
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
    turned = apply(code, resolve(probing.toward(model.fitted, found, name, 0.4)))
    pushed = (turned - 0.6 * code) @ sae.dictionary
    assert np.linalg.norm(pushed) == pytest.approx(0.4 * probing.REACH * code.sum(), rel=1e-4)
    still = apply(code, resolve(probing.toward(model.fitted, found, name, 0.0)))
    np.testing.assert_array_equal(still, code)


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
