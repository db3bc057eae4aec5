"""External ids survive every round trip and explain themselves when they are unknown."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfsae_fast.errors import DataError, UnknownIdError
from cfsae_fast.ids import Ids

integers = st.lists(st.integers(-(2**63), 2**63 - 1), unique=True)
texts = st.lists(
    st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])), unique=True
)


@given(integers | texts)
def test_round_trip(values):
    ids = Ids(values)
    again = Ids.from_arrays(ids.to_arrays("item"), "item", what="item")
    assert [ids[at] for at in range(len(ids))] == values
    assert again.values.tolist() == values
    np.testing.assert_array_equal(ids.index(values), np.arange(len(values)))


def test_ids_beyond_int32_and_numpy_scalars():
    ids = Ids([3, 2**40, -7])
    assert ids.index([np.int64(2**40), 3, np.int8(-7)]).tolist() == [1, 0, 2]
    assert 2**40 in ids and 2**40 + 1 not in ids and True not in ids


def test_what_only_equals_an_id_is_none():
    assert Ids([0, 1]).lookup([True, 1, "1", np.True_, None]).tolist() == [-1, 1, -1, -1, -1]
    assert Ids(["1"]).lookup(["1", 1, np.str_("1")]).tolist() == [0, -1, 0]


def test_lookup_marks_unknown():
    assert Ids(["a", "b"]).lookup(["b", "x", "a"]).tolist() == [1, -1, 0]


def test_unknown_names_value_neighbours_and_kind():
    with pytest.raises(UnknownIdError, match="item 'alien' .*nearest: 'aliens'"):
        Ids(["aliens", "heat"]).index(["heat", "alien"])
    with pytest.raises(UnknownIdError, match="item ids here are int, got str"):
        Ids([1, 2]).index(["1"])
    with pytest.raises(UnknownIdError, match=r"user 9 \(and 1 more\)"):
        Ids([1, 2], what="user").index([9, 1, 8])


@pytest.mark.parametrize(
    "values, message",
    [
        ([1, 1], "distinct"),
        ([1, "a"], "all int or all str, got int, str"),
        (np.array([1.5]), "int or str, got dtype float64"),
        (np.array([2**64 - 1], dtype=np.uint64), "fit int64"),
        ([[1]], "one-dimensional"),
        ([None], "all int or all str, got NoneType"),
    ],
)
def test_bad_ids(values, message):
    with pytest.raises(DataError, match=message):
        Ids(values)


@pytest.mark.parametrize("damage", ["offsets", "utf8", "missing"])
def test_damaged_arrays(damage):
    arrays = Ids(["ab", "ü"]).to_arrays("item")
    if damage == "offsets":
        arrays["item.offsets"] = arrays["item.offsets"][::-1].copy()
    elif damage == "utf8":
        arrays["item.utf8"][-1] = 0xFF
    else:
        del arrays["item.offsets"]
    with pytest.raises(DataError):
        Ids.from_arrays(arrays, "item", what="item")


@given(
    st.sets(st.integers(-40, 40) | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=30),
    st.lists(st.integers(-60, 60) | st.integers(-(2**70), 2**70), max_size=30),
)
def test_integers_near_and_far_are_found_alike(known, asked):
    ids = Ids(np.array(sorted(known), dtype=np.int64))
    place = {value: at for at, value in enumerate(sorted(known))}
    assert ids.lookup(asked).tolist() == [place.get(one, -1) for one in asked]


def test_dense_integers_in_any_order_are_found_by_position():
    ids = Ids(np.array([7, 3, 5, 4]))
    assert ids._table is not None
    assert ids.lookup([4, 6, 7, 2, 8, -(2**63), 2**63 - 1]).tolist() == [3, -1, 0, -1, -1, -1, -1]
    assert ids.lookup([4, 2**80]).tolist() == [3, -1]
