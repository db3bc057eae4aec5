"""No item, tag or target of a test user reaches training, mapping, confidence or calibration."""

from dataclasses import replace

import numpy as np
import pytest

from cfsae_fast.data import generate
from cfsae_fast.evaluation import experiments, prepare
from cfsae_fast.evaluation.experiments import bench
from cfsae_fast.evaluation.wishes import fair_wishes, known_tags
from cfsae_fast.ops import Rows
from cfsae_fast.recommender import calibration, probing
from cfsae_fast.recommender.inputs import Request
from cfsae_fast.recommender.labelling import label

SEED = 3
GRID = experiments.grid_from({
    "data": "tagged", "d": 12, "k": 4, "seed": SEED,
    "sae_training": {"epochs": 2, "steps_per_epoch": 40}, "cfae_training": {"epochs": 3},
})  # fmt: skip


def tagged():
    """A generated catalogue whose every tag assignment was made by some user."""
    made = generate(users=240, items=150, concepts=5, seed=6, mean_history=25)
    tags, n_users = made.tags, made.interactions.n_users
    users = (np.arange(tags.n_assignments) * 7 % n_users).astype(np.int32)
    return replace(made, tags=replace(tags, users=users))


def poisoned(dataset, victims):
    """The same, but for the histories and tags of `victims`: other items, moved tags."""
    rng, inter, tags = np.random.default_rng(0), dataset.interactions, dataset.tags
    rows = []
    for user in range(inter.n_users):
        row = inter.row(user)
        strange = np.sort(rng.choice(inter.n_items, len(row), replace=False))
        rows.append(strange.astype(row.dtype) if user in victims else row)
    theirs = np.isin(tags.users, list(victims))
    moved = np.where(theirs, (tags.items + 11) % inter.n_items, tags.items).astype(np.int32)
    return replace(
        dataset,
        interactions=replace(inter, items=np.concatenate(rows)),
        tags=replace(tags, items=moved),
    )


def renamed(dataset, victims):
    """The same, but `victims` call everything that they tagged by the data set's first tag."""
    theirs = np.isin(dataset.tags.users, list(victims))
    tags = np.where(theirs, 0, dataset.tags.tags).astype(np.int32)
    return replace(dataset, tags=replace(dataset.tags, tags=tags))


def ids_of_test_users(dataset):
    cut = prepare(dataset, seed=SEED)
    return set(cut.dataset.interactions.user_ids.values[cut.split.test].tolist())


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(model, data) of one cell, before and after the test users were replaced by strangers."""
    before = tagged()
    after = poisoned(before, ids_of_test_users(before))
    found = []
    for at, dataset in enumerate((before, after)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bench, "load", lambda name, tags, dataset=dataset: dataset)
            made = bench.Bench(GRID, tmp_path_factory.mktemp(f"run-{at}"), False)
            fitted, cut = made.fitted(next(GRID.cells()))
            found.append((label(fitted, cut.tags), cut))  # as users have it, with toward's map
    return found


def test_the_test_users_are_others(pair):
    (_, before), (_, after) = pair
    np.testing.assert_array_equal(before.split.test, after.split.test)
    assert before.train == after.train and before.validation.inputs == after.validation.inputs
    for part in ("inputs", "targets"):
        assert getattr(before.test, part) != getattr(after.test, part)
    assert before.dataset.tags != after.dataset.tags


def test_models_and_maps_are_the_same_to_the_bit(pair):
    (one, _), (other, _) = pair
    assert one.cfae.to_tensors().keys() == other.cfae.to_tensors().keys()
    for name, weight in one.cfae.to_tensors().items():
        np.testing.assert_array_equal(weight, other.cfae.to_tensors()[name])
    for name in ("encoder", "encoder_bias", "dictionary", "bias"):
        np.testing.assert_array_equal(getattr(one.sae, name), getattr(other.sae, name))
    np.testing.assert_array_equal(one.cold, other.cold)
    assert one.latent_names == other.latent_names
    for part in ("concepts", "probed"):
        mine, theirs = getattr(one, part).to_arrays(), getattr(other, part).to_arrays()
        assert mine[1] == theirs[1] and mine[0].keys() == theirs[0].keys()
        assert np.isfinite(mine[0]["confidence"]).any()  # what users are told, from the same tags
        for name, array in mine[0].items():
            np.testing.assert_array_equal(array, theirs[0][name])


@pytest.fixture(scope="module")
def said():
    """A data set before and after its test users say one tag alone, and how often training users
    give each."""
    before = tagged()
    after = renamed(before, ids_of_test_users(before))
    cut = prepare(before, seed=SEED)
    return before, after, cut.dataset.training_tags(cut.split.train).counts()


def test_the_vocabulary_is_chosen_by_training_users(said):
    """Where rare tags are left out, test users' words make none common, and none rare."""
    before, after, counts = said
    everybody, changed = [one.tags.counts() for one in (before, after)], 0
    for least in range(2, counts.max() + 2):
        names = tuple(np.array(before.tags.names)[counts >= least].tolist())
        one, other = (prepare(data, seed=SEED, min_tag=least) for data in (before, after))
        assert one.tags == other.tags and one.tags.names == names
        assert one.dataset.tags.names == other.dataset.tags.names == names  # to be wished for
        changed += ((everybody[0] >= least) != (everybody[1] >= least)).any()
    assert changed  # had all been counted


def test_a_cell_counts_the_tags_of_its_compat(said, monkeypatch, tmp_path):
    """Between what training users said of the first tag and what all say, once test users do."""
    before, after, counts = said
    least = int(after.tags.counts()[0])
    assert least > before.tags.counts().max() and least > counts.max()
    for dataset, paper in ((before, ()), (after, after.tags.names[:1])):
        monkeypatch.setattr(bench, "load", lambda name, tags, dataset=dataset: dataset)
        room = bench.Bench(replace(GRID, min_tag=least), tmp_path, False)
        found = {one: room.cut(replace(next(GRID.cells()), compat=one)).dataset.tags.names
                 for one in ("corrected", "paper")}  # fmt: skip
        assert found == {"corrected": (), "paper": paper}


def test_calibration_is_the_same(pair):
    rows = Rows(np.array([0, 3, 7]), np.array([3, 9, 14, 20, 21, 80, 100], np.int32))
    request = Request(rows, None, False)
    name = next(iter(pair[0][0].concepts)).name
    one, other = (calibration.calibrate(fitted, request, name, share=0.5, n=10, mode="residual")
                  for fitted, _ in pair)  # fmt: skip
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert (one.alphas > 0).any()


def test_ways_to_steer_know_the_same_tags(pair):
    """All maps and directions of the steering experiment are made of what wishes say is known."""
    wishes = [fair_wishes(cut, fewest_items=5, seed=1) for _, cut in pair]
    known = [known_tags(one) for one in wishes]
    assert known[0] == known[1] and known[0].n_assignments
    maps = [
        probing.build(fitted, one.known, one.names).to_arrays()[0]
        for (fitted, _), one in zip(pair, wishes, strict=True)
    ]
    for name, array in maps[0].items():
        np.testing.assert_array_equal(array, maps[1][name])
    assert pair[0][0].usual_length == pair[1][0].usual_length
    assert not np.array_equal(wishes[0].inputs.items, wishes[1].inputs.items)
