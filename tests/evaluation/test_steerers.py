"""The published ways to steer, against their formulas with dense matrices."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import science
from cfsae_fast import evaluation
from cfsae_fast.evaluation import report, steerers
from cfsae_fast.evaluation.experiments import steering
from cfsae_fast.evaluation.wishes import fair_wishes
from cfsae_fast.recommender import pipeline
from cfsae_fast.recommender.labelling import item_codes
from tests.recommender.conftest import small_dataset, small_model


@pytest.fixture(scope="module")
def fitted():
    return small_model("elsa", "topk").fitted


@pytest.fixture(scope="module")
def wishes():
    return fair_wishes(evaluation.prepare(small_dataset(), seed=7), seed=2)


def dense(code, n_latents):
    found = np.zeros((len(code.indices), n_latents))
    rows, slots = np.nonzero(code.indices >= 0)
    found[rows, code.indices[rows, slots]] = code.values[rows, slots]
    return found


def chosen_by_hand(fitted, wishes):
    """{way: (T, L) which latents are chosen}, METHOD.md 5.5: argmax G idf, and argmax of shares."""
    codes = dense(item_codes(fitted), fitted.sae.n_latents)
    activity = wishes.known.toarray() / wishes.known.sum() @ codes
    idf = np.log((len(activity) + 1) / ((activity > 0).sum(axis=0) + 1)) + 1
    shares = activity / np.maximum(activity.sum(axis=0), 1e-300)
    found = {}
    for name, (scores, top) in zip(
        ("top-1", "top-5", "top-10", "most unique"),
        ((activity * idf, 1), (activity * idf, 5), (activity * idf, 10), (shares, 1)),
        strict=True,
    ):
        mask = np.zeros(scores.shape, dtype=bool)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        np.put_along_axis(mask, best, True, axis=1)
        found[f"paper ({name}, reconstruct)"] = mask
    return found


def test_published_ways_are_the_published_formula(fitted, wishes):
    """z' = s ((1 - alpha) z / s + alpha / N on each of N latents); m + std z' D: lists alike."""
    embedding = fitted.cfae.encode(wishes.inputs)
    encoded = fitted.sae.encode(embedding)
    code = dense(encoded.code, fitted.sae.n_latents)
    mean, std = embedding.mean(axis=1), embedding.std(axis=1, ddof=1)
    by_hand = chosen_by_hand(fitted, wishes)
    ways = {one.name: one for one in steerers.published(fitted, wishes)}
    assert ways.keys() == by_hand.keys()
    alpha, lists = 0.3, {}
    for name, way in ways.items():
        assert way.strengths == steerers.STRENGTHS and not way.sees_truth
        mask = by_hand[name][wishes.tag]
        total = code.sum(axis=1, keepdims=True)
        turned = (1 - alpha) * code + alpha * total * mask / mask.sum(axis=1, keepdims=True)
        decoded = turned @ fitted.sae.dictionary + fitted.sae.bias
        moved = (mean[:, None] + std[:, None] * decoded).astype(np.float32)
        want = pipeline.top(fitted, moved, 20, seen=wishes.inputs).ids
        lists[name] = way.recommend(alpha, wishes.inputs)
        assert (lists[name] == want).mean() > 0.98  # but for scores that are nearly the same
    for one in lists:
        for other in lists:
            assert one == other or (lists[one] == lists[other]).mean() < 0.9


def test_a_protocol_without_tags_is_skipped_and_the_others_are_not(fitted, tmp_path, monkeypatch):
    """The small catalogue's tags have fewer assignments than the published ones."""
    pytest.importorskip("matplotlib")
    cut = evaluation.prepare(small_dataset(), seed=7)
    monkeypatch.setattr(steering, "ways", lambda fitted, wishes, seed: [
        *steerers.published(fitted, wishes)[:1], steerers.mean_item(fitted, wishes)._replace(
            name=steering.OURS)])  # fmt: skip
    monkeypatch.setattr(science, "OWN", (steering.OURS,))
    found = steering.judge(fitted, cut, SimpleNamespace(seed=3))
    assert "at least 100 assignments" in found["paper"]["skipped"]
    assert "ways" in found["history"] and "ways" in found["unseen"]
    cell = {"data": "x", "model": "elsa", "d": 24, "n_latents": 96, "k": 8, "loss": "l2",
            "compat": "corrected", "seed": 3}  # fmt: skip
    job = {"job_cfg": {"cell": cell}, "results": {"steering": found}}
    page = report.write([job], tmp_path, command="x").read_text()
    assert "Protocol paper is left out: tags must have at least 100" in page
    assert page.count("<svg") == 2
    told = {name.split()[0] for name in science.numbers(job)}
    assert told == {"history", "unseen"}


def test_all_ways_of_the_experiment_have_names_of_their_own(fitted, wishes):
    ways = steering.ways(fitted, wishes, 1)
    names = [one.name for one in ways]
    assert len(names) == len(set(names)) and set(steerers.PUBLISHED) <= set(names)
    assert steering.PAPER in steerers.PUBLISHED
    assert [one.name for one in ways if one.sees_truth] == ["tag re-ranking", "TEASER"]
    blind = {one.strengths for one in ways if not one.sees_truth}
    assert blind == {steerers.STRENGTHS}


def test_published_maps_read_what_is_known_alone(fitted, wishes):
    """Who carries what in truth may be anything: the lists stay. What is known may not."""
    shown = ("inputs", "tag", "names", "known")
    told = SimpleNamespace(**{name: getattr(wishes, name) for name in shown})
    other = wishes._replace(known=wishes.known[::-1])
    ways = zip(*(steerers.published(fitted, one) for one in (wishes, told, other)), strict=True)
    differ = []
    for trio in ways:
        real, blind, swapped = (one.recommend(0.3, wishes.inputs) for one in trio)
        np.testing.assert_array_equal(real, blind)
        differ.append(not np.array_equal(real, swapped))
    assert any(differ)  # top-1 may have one latent for all concepts (METHOD.md 5.5)
