"""Lists of ints are looked up at once, and whatever else there may be in them is left to others."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cfsae_fast.ids import Ids
from cfsae_fast.ops.lists import positions_of_lists


@settings(max_examples=200, deadline=None)
@given(
    lists=st.lists(
        st.lists(
            st.one_of(
                st.sampled_from([3, 5, 8, 13]),
                st.integers(-(2**70), 2**70),
                st.sampled_from([True, 5.0, "5", None, np.int64(5)]),
            ),
            max_size=4,
        ),
        max_size=4,
    )
)
def test_lists_of_known_ints_are_looked_up_at_once(lists):
    ids = Ids([8, 3, 13, 5])
    known = all(type(one) is int and one in (3, 5, 8, 13) for ids_of in lists for one in ids_of)
    found = positions_of_lists(lists, *ids.table)
    assert (found is not None) == known
    if known:
        want = [ids.lookup([one])[0] for ids_of in lists for one in ids_of]
        assert found[0].tolist() == want and found[1].tolist() == [len(one) for one in lists]


def test_what_is_no_list_of_known_ints_takes_the_longer_way():
    ids = Ids([8, 3, 13, 5])
    assert positions_of_lists([[3, 8], (5,), []], *ids.table)[0].tolist() == [1, 0, 3]
    for unusual in ([[3], 5], [np.array([3])], ["3"], [{3}], [[3], None]):
        assert positions_of_lists(unusual, *ids.table) is None
    far = Ids([2**63 - 3, 2**63 - 1])
    assert positions_of_lists([[2**63 - 1, 2**63 - 3]], *far.table)[0].tolist() == [1, 0]
    assert positions_of_lists([[2**63 - 2]], *far.table) is None
    assert Ids(["a", "b"]).table is None and Ids([-(2**63), 2**63 - 1]).table is None
