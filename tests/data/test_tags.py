"""Tags: cleaning, counting before filtering, training users, and following filters."""

import numpy as np
import polars as pl
import pytest

from cfsae_fast.data import (
    NOBODY,
    OUTSIDE,
    STRANGER,
    Dataset,
    Filters,
    Interactions,
    MinItemInteractions,
    Tags,
    clean_tag,
)
from cfsae_fast.errors import DataError, UnknownConceptError
from cfsae_fast.ids import Ids

ITEMS, USERS = Ids(["a", "b", "c"]), Ids([1, 2], what="user")
FRAME = {
    "item": ["a", "a", "zzz", "b", "b"],
    "tag": [" Film  Noir", "film noir", "FILM NOIR", "Horror", "  "],
    "user": [1, 2, 1, 9, 1],
}


def make_tags():
    return Tags.from_frame(FRAME, item_ids=ITEMS, user_ids=USERS, user="user")


def test_names_are_cleaned_and_empty_ones_dropped():
    tags = make_tags()
    assert tags.names == ("film noir", "horror")
    assert tags.items.tolist() == [0, 0, OUTSIDE, 1]
    assert tags.users.tolist() == [0, 1, 0, STRANGER]
    assert clean_tag("\tA \n b ") == "a b"


def test_min_count_counts_before_item_filtering():
    tags = make_tags()
    assert tags.counts().tolist() == [3, 1]
    assert tags.min_count(3).names == ("film noir",)
    assert tags.in_catalogue().min_count(3).names == ()


def test_matrix_counts_pairs_of_the_catalogue():
    matrix = make_tags().matrix(3)
    assert matrix.shape == (2, 3) and matrix.dtype == np.float32
    assert matrix.toarray().tolist() == [[2, 0, 0], [0, 1, 0]]


def test_in_catalogue_leaves_no_ghost_tags():
    tags = Tags.from_frame({"item": ["zzz", "a"], "tag": ["ghost", "x"]}, item_ids=ITEMS)
    assert tags.in_catalogue().names == ("x",)
    assert tags.names == ("ghost", "x")


def test_for_users_keeps_genres_and_drops_strangers():
    genres = Tags.from_lists([["Crime"], ["Crime", "crime"], []])
    both = make_tags().merged(genres)
    assert both.names == ("crime", "film noir", "horror")
    left = both.for_users(np.array([1]))
    assert sorted(zip(left.tags.tolist(), left.items.tolist(), strict=True)) == [
        (0, 0), (0, 1), (1, 0),
    ]  # fmt: skip
    assert set(left.users.tolist()) == {1, NOBODY}
    assert genres.for_users(np.array([0])) is genres


def test_merging_joins_equal_names():
    merged = Tags.from_lists([["Noir"]]).merged(Tags.from_lists([["noir"]]))
    assert merged.names == ("noir",) and merged.matrix(1).toarray().tolist() == [[2]]


def test_weights_are_summed_and_checked():
    frame = {"item": ["a", "a"], "tag": ["x", "x"], "w": [30, 12.5]}
    assert Tags.from_frame(frame, item_ids=ITEMS, weight="w").matrix(3).sum() == 42.5
    with pytest.raises(DataError, match="tag weights must be finite float32, got nan at row 1"):
        Tags.from_frame(frame | {"w": [1, float("nan")]}, item_ids=ITEMS, weight="w")


def test_kinds_of_ids_must_agree():
    with pytest.raises(DataError, match="item ids of tags must be str .*, got int"):
        Tags.from_frame({"item": [1], "tag": ["x"]}, item_ids=ITEMS)


def test_nulls_and_numbers_as_names():
    frame = pl.DataFrame({"item": ["a", "b", "c"], "tag": ["2001", None, "null"]})
    assert Tags.from_frame(frame, item_ids=ITEMS).names == ("2001", "null")
    assert Tags.from_frame({"item": ["a"], "tag": [2001]}, item_ids=ITEMS).names == ("2001",)


def test_item_mask_and_unknown_names():
    tags = make_tags()
    assert tags.item_mask("Film NOIR ", 3).tolist() == [True, False, False]
    with pytest.raises(UnknownConceptError, match="tag 'film noire' is unknown; nearest: 'film"):
        tags.item_mask("film noire", 3)
    with pytest.raises(DataError, match="n_items must be above every tagged item"):
        tags.matrix(1)


@pytest.mark.parametrize(
    "change, message",
    [({"names": ("x", "x")}, "names must be distinct"), ({"names": ()}, "tags must be in"),
     ({"items": np.zeros(1, np.int32)}, "items must be int32 of shape"),
     ({"weights": np.zeros(2)}, "weights must be float32"),
     ({"users": np.zeros(3, np.int32)}, "users must be int32")],
)  # fmt: skip
def test_contradictions_are_refused(change, message):
    good = {
        "names": ("x", "y"), "tags": np.array([0, 1], np.int32),
        "items": np.zeros(2, np.int32), "weights": np.ones(2, np.float32),
    }  # fmt: skip
    assert Tags(**good).n_assignments == 2
    with pytest.raises(DataError, match=message):
        Tags(**(good | change))


def test_tags_and_titles_follow_a_filter():
    interactions = Interactions.from_frame({"user": [1, 2, 2, 3], "item": ["a", "a", "b", "c"]})
    tags = Tags.from_frame(
        {"item": ["a", "b", "c"], "tag": ["x", "y", "x"], "user": [1, 2, 3]},
        item_ids=interactions.item_ids, user_ids=interactions.user_ids, user="user",
    )  # fmt: skip
    dataset = Dataset(interactions, tags, ("Aa", "Bb", "Cc"))
    left = dataset.filtered(Filters(MinItemInteractions(2)))
    assert left.titles == ("Aa",) and left.interactions.item_ids.values.tolist() == ["a"]
    assert left.tags.items.tolist() == [0, OUTSIDE, OUTSIDE]
    assert left.tags.users.tolist() == [0, 1, STRANGER]
    assert left.tags.counts().tolist() == [2, 1]  # still counted


def test_dataset_checks_its_parts_and_titles_fall_back_to_ids():
    interactions = Interactions.from_frame({"user": [1], "item": ["a"]})
    assert Dataset(interactions).titles_of([0]) == ["a"]
    with pytest.raises(DataError, match=r"titles must be one per item \(1\), got 2"):
        Dataset(interactions, titles=("x", "y"))
    with pytest.raises(DataError, match="tags must name items"):
        Dataset(interactions, Tags.from_lists([[], ["x"]]))
