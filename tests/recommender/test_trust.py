"""Knobs of a planted catalogue are believed, shuffled ones are not; attributes find latents."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from cfsae_fast import concepts
from cfsae_fast.concepts import detection
from cfsae_fast.recommender import labelling, trust
from tests.recommender.conftest import small_dataset, small_model


def test_planted_concepts_are_believed_and_shuffled_ones_are_not(planted):
    model, dataset = planted
    told = [concept.confidence for concept in model.concepts()]
    assert np.median(told) > 0.6  # 40 items each, of which many carry two concepts
    verdicts = {c.verdict for c in model.concepts() if 0.6 <= c.confidence < 0.75}
    assert verdicts == {"weak"}
    matrix = dataset.tags.matrix(dataset.interactions.n_items)
    nothing = detection.shuffled(csr_array(matrix), seed=3)
    codes = labelling.item_codes(model.fitted)
    found = trust.confidence(model.fitted, codes, nothing, dataset.tags.names, seed=1)
    assert abs(np.nanmean(found) - 0.5) < 0.1 and np.nanmean(found) < np.mean(told) - 0.05


def test_what_is_stated_is_what_is_found_on_items_nobody_showed(planted):
    """Over eight ways to halve: one of six concepts' errors is a matter of luck (0.03 to 0.12)."""
    model, dataset = planted
    carried = csr_array(dataset.tags.matrix(dataset.interactions.n_items))
    codes, names = labelling.item_codes(model.fitted), dataset.tags.names
    errors = []
    for seed in range(8, 16):
        known, unseen = detection.halves(carried, seed=seed)
        stated = trust.confidence(model.fitted, codes, known, names, seed=1)
        half_map = concepts.build(codes, known, names, model.fitted.sae.n_latents)
        actual = trust.knob_auc(model.fitted, half_map, unseen, carried)
        errors.append(detection.calibration_error(stated, actual))
    assert np.mean(errors) < 0.1


def test_too_few_items_are_not_tested(planted):
    model, dataset = planted
    few = csr_array((np.ones(4), ([0] * 4, range(4))), shape=(1, dataset.interactions.n_items))
    codes = labelling.item_codes(model.fitted)
    assert np.isnan(trust.confidence(model.fitted, codes, few, ("few",), seed=1)).all()


def test_latents_are_found_by_a_binary_and_a_real_attribute(planted):
    model, dataset = planted
    name = max(model.concepts(), key=lambda one: one.confidence).name
    carries = dataset.tags.item_mask(name, dataset.interactions.n_items)
    best = model.find_latents(carries)
    assert len(best) == 5 and best[0].score > 0.6
    assert [one.score for one in best] == sorted((one.score for one in best), reverse=True)
    assert best[0].latent in model.concept_map.reach(name)[0] or best[0].inverse
    codes = labelling.item_codes(model.fitted)
    latent = np.bincount(codes.indices[codes.indices >= 0]).argmax()
    activation = np.where(codes.indices == latent, codes.values, 0).sum(axis=1)
    real = model.find_latents(-activation.astype(float), top=1)[0]
    assert real.latent == latent and real.inverse and real.score == pytest.approx(1)
    shuffled = np.random.default_rng(0).permutation(carries)
    assert model.find_latents(shuffled)[0].score < best[0].score


def test_attributes_that_say_nothing_are_refused(planted):
    model, dataset = planted
    n_items = dataset.interactions.n_items
    with pytest.raises(ValueError, match="attribute must differ between items"):
        model.find_latents(np.ones(n_items, bool))
    with pytest.raises(ValueError, match=rf"one per item \({n_items},\)"):
        model.find_latents(np.ones(3, bool))


def test_concepts_are_pushed_in_blocks_as_one_by_one(monkeypatch):
    """A decoder with layers, which is asked CHUNK concepts at a time."""
    model, dataset = small_model("multvae", "topk"), small_dataset()
    carried = csr_array(dataset.tags.matrix(dataset.interactions.n_items))
    codes, names = labelling.item_codes(model.fitted), dataset.tags.names
    found = []
    for chunk in (64, 4, 1):
        monkeypatch.setattr(trust, "CHUNK", chunk)
        found.append(trust.confidence(model.fitted, codes, carried, names, seed=1))
    assert np.isfinite(found[0]).sum() == len(names)
    np.testing.assert_allclose(found[1], found[0], atol=1e-3)  # rounding may swap near ties
    np.testing.assert_allclose(found[2], found[0], atol=1e-3)
