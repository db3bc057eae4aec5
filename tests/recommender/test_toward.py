"""toward(concept, strength): each user's own distance, along a map of its own beside boost's."""

from dataclasses import replace

import numpy as np
import pytest

from cfsae_fast import SteerableRecommender, boost, only, suppress, toward
from cfsae_fast.errors import UnknownConceptError
from cfsae_fast.io import read_directory, write_directory
from cfsae_fast.recommender import labelling, pipeline, probing
from cfsae_fast.steering import TOWARD_REACH, Turns, resolve

N = 10


def names_of(model):
    return [one.name for one in model.concepts()]


def users_of(dataset, count=40):
    return dataset.interactions.user_ids.values[:count].tolist()


def assert_same(got, want):
    np.testing.assert_array_equal(got.ids, want.ids)
    np.testing.assert_array_equal(got.scores, want.scores)


def by_hand(model, concept, strength, **asked):
    """The way of the experiments: explicit adds, by each user's pull."""
    fitted = model.fitted
    return [
        probing.toward(fitted, fitted.toward_map, concept, strength, pull=pull)
        for pull in probing.pulls(fitted, model.embed(**asked)).tolist()
    ]


@pytest.mark.parametrize("mode", ["residual", "reconstruct"])
def test_the_word_is_what_the_experiments_judge(model, dataset, mode):
    """For every kind of model; brought factors have pulls of their own."""
    users, name = users_of(dataset), names_of(model)[0]
    for strength in (0.13, 0.5, 1.0):
        got = model.recommend(users, n=N, mode=mode, steer=toward(name, strength))
        want = by_hand(model, name, strength, users=users)
        want = model.recommend(users, n=N, mode=mode, steer=want)
        np.testing.assert_allclose(got.scores, want.scores, rtol=1e-5, atol=1e-6)
        assert (got.ids == want.ids).mean() > 0.99  # near ties may swap


def test_nothing_is_the_base_model_to_the_bit(model, dataset):
    users, name = users_of(dataset), names_of(model)[0]
    plain = model.recommend(users, n=N)
    assert_same(model.recommend(users, n=N, steer=toward(name, 0)), plain)
    assert_same(model.recommend(users, n=N, steer=f"toward:{name}=0"), plain)
    decoded = {"users": users, "n": N, "mode": "reconstruct"}
    assert_same(model.recommend(**decoded, steer=toward(name, 0)), model.recommend(**decoded))
    mixed = [[toward(name, 0.4 * (row % 2))] for row in range(len(users))]
    among = model.recommend(users, n=N, steer=mixed)
    assert_same(
        type(plain)(*(one[::2] for one in among)), type(plain)(*(one[::2] for one in plain))
    )
    assert (among.ids[1::2] != plain.ids[1::2]).any(axis=1).mean() > 0.5


@pytest.mark.parametrize("mode", ["residual", "reconstruct"])
def test_a_batch_equals_one_by_one(model, dataset, mode):
    users, (one, two, *_) = users_of(dataset, 12), names_of(model)
    wishes = [
        toward(one, 0.3),
        f"toward:{two}=0.2, {one}=0.1",
        None,
        {one: {"toward": 0.3}, two: -1},
    ]
    wishes = [wishes[at % len(wishes)] for at in range(len(users))]
    together = model.recommend(users, n=7, steer=wishes, mode=mode)
    for row, user in enumerate(users):
        alone = model.recommend(user, n=7, steer=wishes[row], mode=mode)
        np.testing.assert_allclose(alone.scores, together.scores[row], rtol=1e-5, atol=1e-5)


def test_who_says_more_is_moved_less(planted):
    """The embedding moves by pull * TOWARD_REACH * t / (1 - t) times the code's sum and std."""
    model, dataset = planted
    fitted, users = model.fitted, users_of(dataset, 60)
    embedding, encoded = model.embed(users), model.encode(users)
    turns = [Turns([toward(names_of(model)[0], 0.2)])] * len(users)
    moved = pipeline.steer(fitted, embedding, turns, mode="residual") - embedding
    sums = encoded.code.values.sum(axis=1) * encoded.stats.std
    pulls = (fitted.usual_length / np.linalg.norm(embedding, axis=1)) ** probing.SURE
    assert pulls.max() > 1.5 * pulls.min()
    want = pulls * TOWARD_REACH * 0.25 * sums
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), want, rtol=1e-4)


def test_it_joins_with_every_other_word(planted):
    model, dataset = planted
    users, (one, two, *_) = users_of(dataset), names_of(model)
    both, deny = {"users": users, "n": N}, model.fitted.item_ids.values[:3].tolist()
    for other in (boost(two, 0.2), suppress(two), only(two), toward(two, 0.1)):
        if other == toward(two, 0.1):
            others = by_hand(model, two, 0.1, users=users)
        else:
            others = [Turns([other])] * len(users)
        wishes = [a + b for a, b in zip(by_hand(model, one, 0.3, users=users), others, strict=True)]
        got = model.recommend(**both, steer=toward(one, 0.3) + other, deny=deny)
        want = model.recommend(**both, steer=wishes, deny=deny)
        np.testing.assert_allclose(got.scores, want.scores, rtol=1e-5, atol=1e-6)
    share = model.recommend(**both, steer=toward(one, 0.1) + boost(two, share=0.2))
    items = model.fitted.item_ids.index(share.ids.ravel().tolist())
    have = dataset.tags.item_mask(two, dataset.interactions.n_items)[items].reshape(share.ids.shape)
    assert (have.mean(axis=1) >= 0.2).mean() > 0.9


def test_one_latent_needs_no_map(planted):
    model, dataset = planted
    bare = SteerableRecommender.from_fitted(model.fitted.with_concepts(None, {}))
    history = [[3, 9, 14]]
    got = bare.recommend(histories=history, steer="toward:#7=0.4")
    assert_same(got, model.recommend(histories=history, steer=toward(7, 0.4)))
    assert (got.ids != bare.recommend(histories=history).ids).any()
    with pytest.raises(ValueError, match=r"toward must name a latent in \[0, 96\), got 96"):
        bare.recommend(histories=history, steer=toward(96, 0.4))


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("mode", ["residual", "reconstruct"])
def test_live_profiles_and_folded_models_answer_alike(planted, folded, mode):
    plain = planted[0]
    model = SteerableRecommender.from_fitted(plain.fitted)
    model = model.fold() if folded else model
    (one, two, *_), history = names_of(model), [3, 9, 14, 20]
    wish = toward(one, 0.3) + suppress(two, 0.5)
    profile = model.live(history=history, steer=wish, mode=mode)
    for item in (None, 31, 77):  # each edit changes how far this user is moved
        if item is not None:
            profile.add(item)
            history.append(item)
            assert_same(profile.top(), plain.recommend(histories=history, steer=wish, mode=mode))
        for asked in (wish, toward(one, 0.1), toward(two, 0), wish):
            profile.turn(asked)
            want = plain.recommend(histories=history, steer=asked, mode=mode)
            assert_same(profile.top(), want)
            assert_same(model.recommend(histories=history, steer=asked, mode=mode), want)
    with pytest.raises(UnknownConceptError, match="'nowhere' is unknown"):
        profile.turn("toward:nowhere=0.3")


def test_explanations_hold_it(planted):
    model, dataset = planted
    user, name = users_of(dataset, 1)[0], names_of(model)[0]
    found = model.recommend(user, n=1, steer=toward(name, 0.3))
    why = model.explain(user, found.ids[0], steer=toward(name, 0.3))
    parts = sum(one.share for one in why.latents) + why.base + why.residual
    assert why.score == pytest.approx(found.scores[0], rel=1e-4) == pytest.approx(parts, rel=1e-4)


def test_labelling_keeps_a_map_for_each_word(planted):
    model, dataset = planted
    fitted = model.fitted
    assert (fitted.concepts.method, fitted.probed.method) == ("lift", "probe")
    assert fitted.toward_map is fitted.probed
    tags = dataset.tags.matrix(dataset.interactions.n_items)
    built = probing.build(fitted, tags, dataset.tags.names)
    np.testing.assert_array_equal(fitted.probed.latents, built.latents)
    np.testing.assert_array_equal(fitted.probed.weights, built.weights)
    probed = SteerableRecommender.from_fitted(fitted)
    probed.label(dataset.tags, method="probe")  # one map for all words
    assert probed.fitted.probed is None and probed.fitted.toward_map is probed.concept_map
    name = names_of(model)[0]
    assert fitted.toward_concept(name).confidence == probed.concept_map.get(name).confidence
    assert fitted.toward_concept(name).confidence != model.concept_map.get(name).confidence
    users = users_of(dataset)
    assert_same(*(one.recommend(users, steer=toward(name, 0.3)) for one in (model, probed)))
    with pytest.raises(ValueError, match=r"method must be one of .*'probe'\), got 'prob'"):
        probed.label(dataset.tags, method="prob")


def test_another_map_leaves_none_behind(planted):
    fitted = planted[0].fitted
    told = fitted.with_concepts(fitted.concepts, {})
    assert told.probed is None and told.toward_map is None
    assert fitted.with_concepts(fitted.probed, {}).toward_map is fitted.probed


def test_saved_and_loaded_goes_the_same_way(model, dataset, tmp_path):
    again = SteerableRecommender.load(model.save(tmp_path / "model"))
    assert again.fitted.probed == model.fitted.probed != model.concept_map
    asked = {"users": users_of(dataset), "n": N, "steer": toward(names_of(model)[0], 0.3)}
    assert_same(again.recommend(**asked), model.recommend(**asked))


def test_a_model_of_before_loads_and_says_what_to_do(planted, tmp_path):
    model, dataset = planted
    files = read_directory(model.save(tmp_path / "new"), kind="recommender")
    del files["recommender.json"]["probed"]
    extra = files["extra.safetensors"]
    old = {name: one for name, one in extra.items() if not name.startswith("probed.")}
    assert len(old) < len(extra)
    write_directory(tmp_path / "old", {**files, "extra.safetensors": old}, kind="recommender")
    loaded = SteerableRecommender.load(tmp_path / "old")
    users, name = users_of(dataset), names_of(model)[0]
    assert_same(*(one.recommend(users, steer={name: 0.3}) for one in (loaded, model)))
    for ask in (
        lambda: loaded.recommend(users, steer=toward(name, 0.3)),
        lambda: loaded.live(users[0], steer=toward(name, 0.3)),
        lambda: loaded.explain(users[0], 3, steer=toward(name, 0.3)),
    ):
        with pytest.raises(
            ValueError, match=r"label it again: model.label\(tags\), or cfsae label"
        ):
            ask()
    loaded.label(dataset.tags)
    assert_same(*(one.recommend(users, steer=toward(name, 0.3)) for one in (loaded, model)))
    probed = replace(model.fitted, concepts=model.fitted.probed, probed=None)  # labelled by probing
    once = SteerableRecommender.from_fitted(probed)
    once = SteerableRecommender.load(once.save(tmp_path / "probed"))
    assert_same(*(one.recommend(users, steer=toward(name, 0.3)) for one in (once, model)))


def test_errors(planted):
    model, _ = planted
    name = names_of(model)[0]
    with pytest.raises(UnknownConceptError, match=f"nearest: '{name}'"):
        model.recommend(histories=[[1]], steer=toward(name + "x", 0.3))
    with pytest.raises(ValueError, match="must be asked of a recommender"):
        resolve(toward(name, 0.3), model.concept_map)
    bare = SteerableRecommender.from_fitted(model.fitted.with_concepts(None, {}))
    with pytest.raises(ValueError, match=r"label it again: model.label\(tags\)"):
        bare.recommend(histories=[[1]], steer=toward(name, 0.3))


def test_who_asks_boost_alone_need_not_wait_for_the_map_of_toward(model, dataset):
    with_it = labelling.label(model.fitted, dataset.tags)
    without = labelling.label(model.fitted, dataset.tags, with_toward=False)
    assert with_it.probed is not None and without.probed is None
    one, other = (found.concepts.to_arrays()[0] for found in (with_it, without))
    assert all(np.array_equal(one[name], other[name], equal_nan=True) for name in one)
