"""What users may pass, what they get, and what they are told when it cannot be."""

import itertools

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from cfsae_fast.data import Interactions
from cfsae_fast.errors import DataError, ModelFormatError, UnknownConceptError, UnknownIdError
from cfsae_fast.ids import Ids
from cfsae_fast.recommender import SteerableRecommender
from cfsae_fast.recommender.inputs import of_histories


def test_single_and_several(elsa):
    users = elsa.fitted.user_ids.values[:3]
    assert elsa.recommend(users[0], n=4).ids.shape == (4,)
    assert elsa.recommend(int(users[0]), n=4).scores.shape == (4,)
    assert elsa.recommend(users, n=4).ids.shape == (3, 4)
    assert elsa.recommend(histories=[1, 2], n=4).ids.shape == (4,)
    assert elsa.recommend(histories=[[1], [2, 3]], n=4).ids.shape == (2, 4)
    assert elsa.recommend([], n=4).ids.shape == (0, 4)


def test_allow_and_deny(elsa):
    plain = elsa.recommend(histories=[1, 2], n=20).ids.tolist()
    allowed = elsa.recommend(histories=[1, 2], n=3, allow=plain[5:9])
    assert allowed.ids.tolist() == plain[5:8]
    denied = elsa.recommend(histories=[1, 2], n=18, deny=plain[:2])
    assert denied.ids.tolist() == plain[2:]
    both = elsa.recommend(histories=[1, 2], n=9, allow=plain[:4], deny=plain[:2])
    assert both.ids.tolist() == [*plain[2:4], *[-1] * 7]
    assert np.isneginf(both.scores[2:]).all()
    assert (elsa.recommend(histories=[1, 2], allow=[]).ids == -1).all()


def test_seen_items_come_back_when_asked_for(elsa):
    n = len(elsa.fitted.item_ids)
    found = elsa.recommend(histories=[1, 2], n=n, exclude_seen=False)
    assert {1, 2} <= set(found.ids.tolist()) and np.isfinite(found.scores).all()


def test_repeated_items_count_once(elsa):
    once = elsa.recommend(histories=[[5, 9]])
    twice = elsa.recommend(histories=[[9, 5, 5, 9]])
    np.testing.assert_array_equal(once.scores, twice.scores)


@given(
    st.lists(st.lists(st.integers(0, 60), max_size=9), min_size=1, max_size=6),
    st.integers(1, 50),
    st.sampled_from([np.asarray, list]),
)
def test_histories_become_sorted_rows_of_known_items(histories, known, kind):
    ids = Ids(np.arange(known) * 2 - 7)  # some below zero, every other one unknown
    given = [kind(one) for one in histories]
    rows = of_histories(given, ids, unknown="ignore").rows
    want = [sorted({(id + 7) // 2 for id in one if id in ids.values}) for one in histories]
    ends = rows.offsets.tolist()
    assert [rows.items[a:b].tolist() for a, b in itertools.pairwise(ends)] == want
    dense = np.zeros((len(histories), known))
    for row, items in enumerate(want):
        dense[row, items] = 1
    sparse = of_histories(scipy.sparse.csr_matrix(dense), ids, unknown="error").rows
    assert sparse.items.tolist() == rows.items.tolist() and sparse.offsets.tolist() == ends


def test_empty_history_is_served_from_the_mean_user(elsa):
    empty = elsa.recommend(histories=[[]], n=10)
    cold = elsa.fitted.cfae.recommend(elsa.fitted.cold[None], 10)
    np.testing.assert_array_equal(empty.ids[0], elsa.fitted.item_ids[cold.ids[0]])
    concept = elsa.concepts()[0].name
    assert (elsa.recommend(histories=[[]], steer={concept: 0.9}).ids != empty.ids).any()
    why = elsa.explain(history=[], item=empty.ids[0, 0])
    assert why.history is None and why.score == pytest.approx(empty.scores[0, 0], rel=1e-4)


def test_unknown_items_in_a_history(elsa):
    with pytest.raises(UnknownIdError, match=r"item 99999 \(and 1 more\) is not among"):
        elsa.recommend(histories=[1, 99999, 88888])
    known = elsa.recommend(histories=[[1, 99999]], unknown="ignore")
    np.testing.assert_array_equal(known.ids, elsa.recommend(histories=[[1]]).ids)
    nothing = elsa.recommend(histories=[[99999]], unknown="ignore")
    np.testing.assert_array_equal(nothing.ids, elsa.recommend(histories=[[]]).ids)


def test_everything_seen_leaves_padding(elsa):
    everything = elsa.fitted.item_ids.values.tolist()
    found = elsa.recommend(histories=[everything, [1]], n=5)
    assert (found.ids[0] == -1).all() and np.isneginf(found.scores[0]).all()
    assert np.isfinite(found.scores[1]).all()


def test_frame(elsa, dataset):
    pytest.importorskip("polars")
    users = elsa.fitted.user_ids.values[:2].tolist()
    frame = elsa.recommend(users, n=3, frame=True)
    assert frame.columns == ["user", "rank", "item", "title", "score"]
    assert frame["user"].to_list() == [users[0]] * 3 + [users[1]] * 3
    plain = elsa.recommend(users, n=3)
    assert frame["item"].to_list() == plain.ids.ravel().tolist()
    at = elsa.fitted.item_ids.index([frame["item"][0]])[0]
    assert frame["title"][0] == dataset.titles[at]


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({}, ValueError, "users or histories must be given"),
        ({"users": 0, "histories": [1]}, ValueError, "and not both"),
        ({"users": [[1, 2]]}, DataError, "pass histories="),
        ({"users": 10**9}, UnknownIdError, "for a new user pass histories"),
        ({"users": "x"}, UnknownIdError, "user ids here are int, got str"),
        ({"histories": "1,2"}, DataError, "histories must be a list of item ids"),
        ({"histories": [1, [2]]}, DataError, "got a mixture"),
        ({"histories": [1], "n": 0}, ValueError, "n must be a whole number"),
        ({"histories": [1], "n": 2.5}, ValueError, "n must be a whole number"),
        ({"histories": [1], "mode": "x"}, ValueError, "mode must be one of"),
        ({"users": [], "mode": "x"}, ValueError, "mode must be one of"),
        ({"histories": [1], "allow": 3}, DataError, "allow must be a list"),
        ({"histories": [1], "deny": [10**9]}, UnknownIdError, "1000000000 is not among"),
        ({"histories": [1], "unknown": "x"}, ValueError, "unknown must be"),
        ({"histories": [1], "steer": {"nothing like it": 0.2}}, UnknownConceptError, "unknown"),
        ({"histories": [1], "steer": {"concept-01": 1.5}}, ValueError, r"\[0, 1\]|\[-1, 1\]"),
        ({"histories": [1], "steer": {"concept-01": float("nan")}}, ValueError, "concept-01|nan"),
        ({"histories": [[1], [2]], "steer": [None]}, ValueError, "steer"),
    ],
)
def test_bad_requests_are_explained(elsa, arguments, error, message):
    with pytest.raises(error, match=message):
        elsa.recommend(**arguments)


def test_misspelt_concept_gets_a_suggestion(elsa):
    name = elsa.concepts()[0].name
    with pytest.raises(UnknownConceptError, match=f"nearest: .*{name}"):
        elsa.recommend(histories=[1], steer={name + "x": 0.2})


def test_unfitted_says_so():
    with pytest.raises(RuntimeError, match="fitted first"):
        SteerableRecommender().recommend(1)


def test_no_knob_no_concepts_needed(elsa):
    from dataclasses import replace

    bare = SteerableRecommender.from_fitted(replace(elsa.fitted, concepts=None))
    assert bare.recommend(histories=[1]).ids.shape == (10,)
    assert bare.recommend(histories=[1], steer="#3=0.2").ids.shape == (10,)
    with pytest.raises(ValueError, match="no concepts"):
        bare.concepts()
    with pytest.raises(UnknownConceptError, match="no concepts"):
        bare.recommend(histories=[1], steer={"concept-01": 0.2})


def test_string_ids_all_the_way(elsa, dataset, tmp_path):
    from dataclasses import replace

    fitted = elsa.fitted
    names = Ids([f"item {at}" for at in range(len(fitted.item_ids))])
    people = Ids([f"user {at}" for at in range(len(fitted.user_ids))], what="user")
    model = SteerableRecommender.from_fitted(replace(fitted, item_ids=names, user_ids=people))
    model = SteerableRecommender.load(model.save(tmp_path / "model"))
    found = model.recommend("user 3", n=len(names) + 1)
    assert found.ids[0].startswith("item ") and found.ids[-1] == ""
    with pytest.raises(UnknownIdError, match="nearest: 'item 1"):
        model.recommend(histories=["item 1x"])


def test_damaged_model_is_refused(elsa, tmp_path):
    path = elsa.save(tmp_path / "model")
    blob = (path / "cfae.safetensors").read_bytes()
    (path / "cfae.safetensors").write_bytes(blob[:-9])
    with pytest.raises(ModelFormatError, match="cfae.safetensors is damaged"):
        SteerableRecommender.load(path)
    with pytest.raises(ModelFormatError, match="nothing there"):
        SteerableRecommender.load(tmp_path / "absent")
    other = elsa.fitted.sae.save(tmp_path / "sae")
    with pytest.raises(ModelFormatError, match="must hold a recommender, got a sae"):
        SteerableRecommender.load(other)


def test_fit_refuses_nothing():
    empty = Interactions.from_frame({"user": [1], "item": [1]})
    with pytest.raises(DataError, match="at least 2 users"):
        SteerableRecommender().fit(empty)


def test_wrap_refuses_factors_that_do_not_fit(dataset):
    users, items = np.ones((400, 4), np.float32), np.ones((150, 4), np.float32)
    bad = users.copy()
    bad[3, 1] = np.nan
    for arguments, message in [
        ((users, items[:, :3]), "width 4 of user_factors, got 3"),
        ((bad, items), "user_factors must be finite"),
        ((users[:7], items, dataset.interactions), "must have 7 users and 150 items"),
        ((users[0], items), "must be a matrix"),
    ]:
        with pytest.raises(DataError, match=message):
            SteerableRecommender.wrap(*arguments)
