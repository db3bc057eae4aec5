"""Filters: order matters, k-core converges, errors say which step took everything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import interactions, items_of, pairs_of

from cfsae_fast.data import (
    Binarize,
    Filters,
    Interactions,
    KCore,
    MinItemInteractions,
    MinUserInteractions,
    MinValue,
)
from cfsae_fast.errors import DataError

# user 1: a, b; user 2: a, c; user 3: c only
FRAME = {"user": [1, 1, 2, 2, 3], "item": list("abacc"), "value": [5, 4, 3, 4, 1]}


def filtered(*steps):
    return Filters(*steps).apply(Interactions.from_frame(FRAME, value="value"))


def test_each_step_by_hand():
    assert items_of(filtered(MinValue(4))) == {1: {"a", "b"}, 2: {"c"}}
    assert items_of(filtered(MinUserInteractions(2))) == {1: {"a", "b"}, 2: {"a", "c"}}
    assert items_of(filtered(MinItemInteractions(2))) == {1: {"a"}, 2: {"a", "c"}, 3: {"c"}}
    assert filtered(Binarize()).values.tolist() == [1] * 5


def test_order_is_the_order_given():
    items_first = filtered(MinItemInteractions(2), MinUserInteractions(2))
    users_first = filtered(MinUserInteractions(2), MinItemInteractions(2))
    assert items_of(items_first) == {2: {"a", "c"}}
    assert items_of(users_first) == {1: {"a"}, 2: {"a"}}


def test_no_steps_change_nothing():
    assert filtered() == Interactions.from_frame(FRAME, value="value")


@given(interactions(), st.integers(1, 3), st.integers(1, 3))
def test_k_core_is_the_largest_stable_part(x, user, item):
    rows = pairs_of(x)
    while True:  # the slow way: drop one thing at a time
        sizes = {}
        for row in rows.values():
            for one in row:
                sizes[one] = sizes.get(one, 0) + 1
        gone_users = [u for u, row in rows.items() if len(row) < user]
        gone_items = {i for i, size in sizes.items() if size < item}
        if not gone_users and not gone_items:
            break
        rows = {
            u: {i: v for i, v in row.items() if i not in gone_items}
            for u, row in rows.items()
            if u not in gone_users
        }
    if not rows:
        with pytest.raises(DataError, match="filters must leave an interaction"):
            Filters(KCore(user=user, item=item)).apply(x)
    else:
        assert pairs_of(Filters(KCore(user=user, item=item)).apply(x)) == rows


def test_nothing_left_names_the_step_and_the_range():
    with pytest.raises(DataError, match=r"MinValue\(value=9\) left none of 5; values were in \[1"):
        filtered(MinUserInteractions(1), MinValue(9))


def test_bad_parameters():
    for bad in (MinUserInteractions, MinItemInteractions):
        with pytest.raises(ValueError, match="count must be at least 1, got 0"):
            bad(0)
    with pytest.raises(ValueError, match="item must be at least 1"):
        KCore(user=1, item=0)
    with pytest.raises(ValueError, match="value must be finite"):
        MinValue(float("nan"))
    with pytest.raises(TypeError, match="steps must be filters"):
        Filters(4.0)
