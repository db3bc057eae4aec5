"""CSR invariants of Interactions, what it reads, and what it refuses."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from strategies import frames, interactions, pairs_of

from cfsae_fast.data import Interactions
from cfsae_fast.errors import DataError
from cfsae_fast.ids import Ids

EVENTS = {"user": [7, 3, 7, 3], "item": ["b", "a", "a", "c"], "value": [1.0, 2.0, 3.0, 4.0]}


def last_by_time(frame):
    """{user: {item: value}}: the truth for duplicates='last', one event at a time."""
    latest = {}
    for user, item, value, time in zip(*frame.values(), strict=True):
        if (user, item) not in latest or time >= latest[user, item][0]:
            latest[user, item] = (time, float(value))
    rows = {user: {} for user in frame["user"]}
    for (user, item), (_, value) in latest.items():
        rows[user][item] = value
    return rows


@given(frames())
def test_from_frame_keeps_the_last_value_of_every_pair(frame):
    got = Interactions.from_frame(frame, value="value", timestamp="timestamp")
    assert pairs_of(got) == last_by_time(frame)


@given(interactions())
def test_rows_ascend_without_repeats(x):
    assert x.offsets[0] == 0 and x.offsets[-1] == x.nnz
    for user in range(x.n_users):
        row = x.row(user)
        assert len(row) and (np.diff(row) > 0).all()
    assert list(x.user_ids.values) == sorted(x.user_ids.values)
    assert list(x.item_ids.values) == sorted(x.item_ids.values)


@given(frames(), st.randoms(use_true_random=False))
def test_order_of_events_does_not_matter(frame, random):
    frame["timestamp"] = list(range(len(frame["user"])))
    order = list(range(len(frame["user"])))
    random.shuffle(order)
    shuffled = {name: [column[at] for at in order] for name, column in frame.items()}
    columns = {"value": "value", "timestamp": "timestamp"}
    assert Interactions.from_frame(frame, **columns) == Interactions.from_frame(shuffled, **columns)


@given(frames())
def test_polars_lazy_pandas_and_columns_agree(frame):
    want = Interactions.from_frame(frame, value="value", timestamp="timestamp")
    for table in (pl.DataFrame(frame), pl.LazyFrame(frame), pd.DataFrame(frame)):
        assert Interactions.from_frame(table, value="value", timestamp="timestamp") == want


@given(interactions(with_times=False))
def test_scipy_round_trip(x):
    back = Interactions.from_scipy(x.to_scipy(), user_ids=x.user_ids, item_ids=x.item_ids)
    assert back == x


@given(interactions(), st.data())
def test_select_users_and_rows_pick_the_same(x, data):
    users = np.asarray(data.draw(st.permutations(range(x.n_users))), dtype=np.int64)
    users = users[: data.draw(st.integers(0, x.n_users))]
    picked, rows = x.select_users(users), x.rows(users, binary=False)
    whole = pairs_of(x)
    assert pairs_of(picked) == {x.user_ids[u]: whole[x.user_ids[u]] for u in users}
    assert picked.item_ids == x.item_ids
    np.testing.assert_array_equal(rows.offsets, picked.offsets)
    np.testing.assert_array_equal(rows.items, picked.items)
    np.testing.assert_array_equal(rows.values, picked.values)


@given(interactions(), st.data())
def test_compact_drops_only_what_is_empty(x, data):
    mask = np.asarray(data.draw(st.lists(st.booleans(), min_size=x.nnz, max_size=x.nnz)), bool)
    left, users, items = x.keep_pairs(mask).compact()
    want = pairs_of(x.keep_pairs(mask))
    assert pairs_of(left) == {user: row for user, row in want.items() if row}
    assert (left.counts_per_item() > 0).all()
    np.testing.assert_array_equal(x.user_ids.values[users], left.user_ids.values)
    np.testing.assert_array_equal(x.item_ids.values[items], left.item_ids.values)


def test_duplicate_rules_by_hand():
    frame = {"user": [1, 1, 1], "item": [5, 5, 6], "value": [2.0, 1.0, 9.0], "t": [20, 10, 0]}
    for rule, by_row, by_time in (("last", 1.0, 2.0), ("sum", 3.0, 3.0), ("max", 2.0, 2.0)):
        got = Interactions.from_frame(frame, value="value", duplicates=rule)
        assert got.values.tolist() == [by_row, 9.0]
        timed = Interactions.from_frame(frame, value="value", timestamp="t", duplicates=rule)
        assert timed.values.tolist() == [by_time, 9.0]
        assert timed.timestamps.tolist() == [20, 0]


def test_duplicates_can_be_an_error_naming_both_rows():
    frame = {"user": ["u", "v", "u"], "item": [5, 5, 5]}
    with pytest.raises(DataError, match=r"user 'u' with item 5 at rows 0 and 2"):
        Interactions.from_frame(frame, duplicates="error")
    with pytest.raises(ValueError, match="duplicates must be one of"):
        Interactions.from_frame(frame, duplicates="first")


def test_ids_beyond_int32_and_int_ids_keep_their_kind():
    big = 2**40 + 7
    x = Interactions.from_frame({"user": [big, 1], "item": [-(2**50), 2**61]})
    assert x.user_ids.values.tolist() == [1, big]
    assert x.item_ids.values.tolist() == [-(2**50), 2**61]
    assert x.user_ids.index([big]).tolist() == [1]


@pytest.mark.parametrize("table", [dict, pl.DataFrame, pd.DataFrame])
@pytest.mark.parametrize(
    "bad, message",
    [(float("nan"), "finite float32, got nan at row 2"), (float("inf"), "got inf at row 2"),
     (1e300, "got 1e\\+300 at row 2"), (-1.5, "not be negative, got -1.5 at row 2")],
)  # fmt: skip
def test_bad_values_name_the_row(table, bad, message):
    frame = {"user": [1, 2, 3, 4], "item": [1, 2, 3, 4], "value": [1.0, 2.0, bad, bad]}
    with pytest.raises(DataError, match=message):
        Interactions.from_frame(table(frame), value="value")


def test_missing_value_in_polars_is_an_error():
    frame = pl.DataFrame({"user": [1, 2], "item": [1, 2], "value": [1, None]})
    with pytest.raises(DataError, match="values must be finite float32, got nan at row 1"):
        Interactions.from_frame(frame, value="value")


def test_negative_values_on_request():
    x = Interactions.from_frame(
        {"user": [1], "item": [1], "value": [-2]}, value="value", allow_negative=True
    )
    assert x.values.tolist() == [-2]


def test_text_values_are_an_error():
    frame = {"user": [1], "item": [1], "value": ["four"]}
    for table in (frame, pl.DataFrame(frame), pd.DataFrame(frame)):
        with pytest.raises(DataError, match="values must be numbers"):
            Interactions.from_frame(table, value="value")


@pytest.mark.parametrize("table", [dict, pd.DataFrame])
def test_mixed_ids_name_both_rows(table):
    frame = table({"user": [1, 2, "x"], "item": [1, 2, 3]})
    with pytest.raises(DataError, match=r"user ids must be all int or all str.*'x' at row 2"):
        Interactions.from_frame(frame)


@pytest.mark.parametrize(
    "user, message",
    [([1.5, 2.0], "must be int or str, got dtype float64|got float"),
     ([1, None], "must not be missing, got none at row 1"),
     (["a", None], "must not be missing, got none at row 1"),
     ([True, False], "must be int or str, got"),
     ([2**64, 1], "must fit int64")],
)  # fmt: skip
def test_bad_ids(user, message):
    tables = [{"user": user, "item": [1, 2]}]
    if user != [2**64, 1]:
        tables += [pl.DataFrame(tables[0]), pd.DataFrame(tables[0])]
    for table in tables:
        with pytest.raises(DataError, match=message):
            Interactions.from_frame(table)


def test_wrong_columns_name_found_and_wanted():
    with pytest.raises(DataError, match=r"columns 'userId', 'rating', got \['user', 'item'.*user="):
        Interactions.from_frame(EVENTS, user="userId", value="rating")
    with pytest.raises(TypeError, match="frame must be a polars or pandas frame"):
        Interactions.from_frame([1, 2, 3])


def test_lengths_must_agree_and_rows_exist():
    with pytest.raises(DataError, match="columns of one length"):
        Interactions.from_frame({"user": [1, 2], "item": [1]})
    with pytest.raises(DataError, match="at least one interaction, got 0 rows"):
        Interactions.from_frame({"user": [], "item": []})


def test_dates_become_seconds():
    frame = pd.DataFrame({"user": [1], "item": [1], "t": pd.to_datetime(["1970-01-02"])})
    for table in (frame, pl.from_pandas(frame)):
        x = Interactions.from_frame(table, timestamp="t")
        assert x.timestamps.tolist() == [86400]
    with pytest.raises(DataError, match="timestamps must not be missing, got none at row 1"):
        Interactions.from_frame({"user": [1, 2], "item": [1, 2], "t": [1.0, np.nan]}, timestamp="t")


def test_scipy_bad_values_and_shapes():
    matrix = sparse.coo_array(([1.0, np.nan], ([0, 1], [0, 1])), shape=(2, 2))
    with pytest.raises(DataError, match="values must be finite"):
        Interactions.from_scipy(matrix)
    with pytest.raises(DataError, match=r"offsets must be \(n_users \+ 1,\) = \(4,\)"):
        Interactions.from_scipy(sparse.eye(2), user_ids=Ids.range(3, what="user"))
    with pytest.raises(TypeError, match="matrix must be scipy sparse, got ndarray"):
        Interactions.from_scipy(np.eye(2))


def test_scipy_input_is_not_changed():
    matrix = sparse.csr_array(([1.0, 2.0, 3.0], [2, 0, 2], [0, 3]), shape=(1, 3))
    x = Interactions.from_scipy(matrix)
    assert matrix.indices.tolist() == [2, 0, 2]
    assert (x.items.tolist(), x.values.tolist()) == ([0, 2], [2.0, 4.0])


@pytest.mark.parametrize(
    "change, message",
    [({"items": np.array([1, 0, 1, 2], np.int32)}, "ascend within each row"),
     ({"items": np.array([0, 0, 1, 2], np.int32)}, "ascend within each row"),
     ({"items": np.array([0, 1, 1, 3], np.int32)}, r"items must be in \[0, n_items=3\)"),
     ({"items": np.array([0, 1, 1, 2])}, "items must be one-dimensional int32, got int64"),
     ({"offsets": np.array([0, 3, 2])}, "offsets must rise from 0"),
     ({"offsets": np.array([0, 2])}, "offsets must be"),
     ({"values": np.array([1, 1, 1, np.nan], np.float32)}, "finite, got nan at pair 3"),
     ({"values": np.ones(3, np.float32)}, "values must be"),
     ({"timestamps": np.zeros(3, np.int64)}, "timestamps must be int64")],
)  # fmt: skip
def test_contradictions_are_refused(change, message):
    good = {
        "offsets": np.array([0, 2, 4]), "items": np.array([0, 1, 1, 2], np.int32),
        "values": np.ones(4, np.float32), "timestamps": None,
        "user_ids": Ids.range(2, what="user"), "item_ids": Ids.range(3),
    }  # fmt: skip
    assert Interactions(**good).nnz == 4
    with pytest.raises(DataError, match=message):
        Interactions(**(good | change))


def test_users_out_of_range_are_refused():
    x = Interactions.from_frame(EVENTS)
    with pytest.raises(DataError, match=r"positions in \[0, n_users=2\), got \[0, 7\]"):
        x.rows(np.array([0, 7]))
    with pytest.raises(DataError, match="distinct"):
        x.select_users(np.array([0, 0]))


def test_align_items_to_another_catalogue():
    x = Interactions.from_frame(EVENTS, value="value")
    got = x.align_items(Ids(["c", "z", "a"]))
    assert pairs_of(got) == {3: {"a": 2.0, "c": 4.0}, 7: {"a": 3.0}}
    assert got.row(0).tolist() == [0, 2]


def test_counts():
    x = Interactions.from_frame(EVENTS)
    assert x.counts_per_user().tolist() == [2, 2]
    assert x.counts_per_item().tolist() == [2, 1, 1]
    assert repr(x) == "Interactions(2 users, 3 items, 4 interactions)"
