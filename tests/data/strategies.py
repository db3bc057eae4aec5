"""Random interactions and tags for the property tests."""

import numpy as np
from hypothesis import strategies as st

from cfsae_fast.data import Interactions, Tags

INT_IDS = st.integers(-(2**62), 2**62)
TEXT_IDS = st.text("abcxyz0129é_ ", min_size=1, max_size=6)


@st.composite
def frames(draw, *, min_rows=1, max_rows=60):
    """A dict of columns: user, item, value, timestamp; repeats and any order."""
    user_pool = draw(_pool())
    item_pool = draw(_pool())
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from(user_pool),
                st.sampled_from(item_pool),
                st.integers(0, 5),
                st.integers(0, 3),
            ),
            min_size=min_rows,
            max_size=max_rows,
        )
    )
    user, item, value, timestamp = (list(column) for column in zip(*rows, strict=True))
    return {"user": user, "item": item, "value": value, "timestamp": timestamp}


@st.composite
def interactions(draw, *, with_times=True):
    frame = draw(frames())
    return Interactions.from_frame(
        frame, value="value", timestamp="timestamp" if with_times else None
    )


@st.composite
def tags_for(draw, n_items, *, max_tags=5):
    lists = draw(
        st.lists(
            st.lists(st.sampled_from([f"tag {at}" for at in range(max_tags)]), max_size=3),
            min_size=n_items,
            max_size=n_items,
        )
    )
    return Tags.from_lists(lists)


def _pool():
    return st.one_of(
        st.lists(INT_IDS, min_size=1, max_size=12, unique=True),
        st.lists(TEXT_IDS, min_size=1, max_size=12, unique=True),
    )


def pairs_of(interactions):
    """{external user: {external item: value}} of the rows, computed the slow way."""
    return {
        interactions.user_ids[user]: {
            interactions.item_ids[int(item)]: float(value)
            for item, value in zip(
                interactions.items[start:end], interactions.values[start:end], strict=True
            )
        }
        for user, (start, end) in enumerate(
            zip(interactions.offsets[:-1], interactions.offsets[1:], strict=True)
        )
    }


def items_of(interactions):
    """{external user: set of external items}."""
    return {user: set(row) for user, row in pairs_of(interactions).items()}


def checkerboard(users=20, items=10):
    """User u took the items of its own parity."""
    user, item = np.nonzero(np.add.outer(np.arange(users), np.arange(items)) % 2 == 0)
    return Interactions.from_frame({"user": user, "item": item})
