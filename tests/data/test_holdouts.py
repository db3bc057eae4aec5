"""Hold-outs: disjoint, complete, and a row's cut is its own business."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import interactions, items_of, pairs_of, tags_for

from cfsae_fast.data import (
    NO_TAG,
    Interactions,
    Tags,
    hold_out_last,
    hold_out_random,
    hold_out_random_and_tag,
    hold_out_tag,
)
from cfsae_fast.errors import DataError

KINDS = ["random", "last", "tag", "random_and_tag"]


def hold_out(kind, x, tags, seed=42):
    if kind == "random":
        return hold_out_random(x, seed=seed)
    if kind == "last":
        return hold_out_last(x)
    function = hold_out_tag if kind == "tag" else hold_out_random_and_tag
    return function(x, tags, seed=seed)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_inputs_and_targets_part_the_row(kind, data):
    x = data.draw(interactions())
    inputs, targets, _ = hold_out(kind, x, data.draw(tags_for(x.n_items)))
    assert inputs.user_ids == targets.user_ids == x.user_ids
    assert inputs.item_ids == targets.item_ids == x.item_ids
    seen, held, whole = pairs_of(inputs), pairs_of(targets), pairs_of(x)
    for user, row in whole.items():
        assert not seen[user].keys() & held[user].keys()
        assert seen[user] | held[user] == row
        assert seen[user]
        if len(row) < 2:
            assert not held[user]
        elif kind in ("random", "last", "random_and_tag"):
            assert held[user]


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_row_is_cut_alike_whatever_else_is_there(kind, data):
    x = data.draw(interactions())
    tags = data.draw(tags_for(x.n_items))
    seed = data.draw(st.integers(0, 9))
    whole = items_of(hold_out(kind, x, tags, seed).targets)
    users = np.asarray(data.draw(st.permutations(range(x.n_users))), dtype=np.int64)
    users = users[: data.draw(st.integers(1, x.n_users))]
    part, _, items = x.select_users(users).compact()  # other item positions, too
    moved = tags.moved(
        items=items, users=np.arange(0), n_items=x.n_items, n_users=x.n_users
    ).in_catalogue()  # other tag positions, too
    hold_out_random(x, seed=seed + 1)  # and calls in between
    got = items_of(hold_out(kind, part, moved, seed).targets)
    assert got == {user: whole[user] for user in got}


@given(interactions(), st.floats(0.01, 0.99))
def test_sizes_are_the_ceiling(x, share):
    sizes = hold_out_random(x, share=share).targets.counts_per_user()
    for size, count in zip(sizes, x.counts_per_user(), strict=True):
        wanted = math.ceil(share * count - 1e-9)
        assert size == (0 if count < 2 else min(max(wanted, 1), count - 1))


def test_five_items_give_one_target_and_fifteen_three():
    for items, want in ((5, 1), (6, 2), (15, 3), (16, 4)):
        x = Interactions.from_frame({"user": [1] * items, "item": list(range(items))})
        assert hold_out_random(x).targets.nnz == want


def test_every_item_is_equally_likely_and_seeds_differ():
    users, items = np.divmod(np.arange(20_000 * 10), 10)
    x = Interactions.from_frame({"user": users, "item": items})
    first = hold_out_random(x, seed=1)
    counts = first.targets.counts_per_item()
    assert counts.sum() == 40_000 and abs(counts - 4000).max() < 230  # 4 sd of 57
    pairs = first.targets.items.reshape(-1, 2).astype(int)
    both = np.bincount(pairs[:, 0] * 10 + pairs[:, 1], minlength=100)
    both = both[both > 0]
    assert len(both) == 45 and abs(both - 20_000 / 45).max() < 5 * math.sqrt(20_000 / 45)
    second = hold_out_random(x, seed=2).targets
    same = np.isin(
        first.targets.users_of_pairs() * 10 + first.targets.items,
        second.users_of_pairs() * 10 + second.items,
    )
    assert 0.18 < same.mean() < 0.22


def test_last_by_time_with_ties_to_the_later_item():
    frame = {"user": [1, 1, 1, 2, 2], "item": [1, 2, 3, 1, 2], "t": [9, 1, 9, 5, 4]}
    x = Interactions.from_frame(frame, timestamp="t")
    assert items_of(hold_out_last(x).targets) == {1: {3}, 2: {1}}
    assert items_of(hold_out_last(x, count=2).targets) == {1: {1, 3}, 2: {1}}
    with pytest.raises(ValueError, match="count must be at least 1"):
        hold_out_last(x, count=0)
    with pytest.raises(DataError, match="must have timestamps"):
        hold_out_last(Interactions.from_frame(frame))


def test_tag_hold_out_takes_all_items_of_one_tag():
    x = Interactions.from_frame({"user": [1] * 4 + [2] * 2, "item": [0, 1, 2, 3, 0, 1]})
    tags = Tags.from_lists([["noir"], ["noir"], ["space"], []])
    seen = set()
    for seed in range(40):
        out = hold_out_tag(x, tags, seed=seed)
        seen.add(int(out.tags[0]))
        want = {0, 1} if out.tags[0] == 0 else {2}
        assert items_of(out.targets)[1] == want
        assert out.tags[1] == NO_TAG  # noir is all that user 2 has
        assert not items_of(out.targets)[2]
    assert seen == {0, 1}


def test_support_bounds():
    x = Interactions.from_frame({"user": [1] * 4, "item": [0, 1, 2, 3]})
    tags = Tags.from_lists([["noir"], ["noir"], ["space"], []])
    for seed in range(10):
        assert hold_out_tag(x, tags, seed=seed, min_support=2).tags.tolist() == [0]
        assert hold_out_tag(x, tags, seed=seed, max_support=1).tags.tolist() == [1]
        assert hold_out_tag(x, tags, seed=seed, min_support=3).tags.tolist() == [NO_TAG]
    with pytest.raises(ValueError, match="min_support must be at least 1"):
        hold_out_tag(x, tags, min_support=0)
    with pytest.raises(ValueError, match="max_support must be at least 2"):
        hold_out_tag(x, tags, min_support=2, max_support=1)


def test_random_and_tag_contains_the_random_targets():
    rng = np.random.default_rng(0)
    x = Interactions.from_frame(
        {"user": rng.integers(0, 50, 900), "item": rng.integers(0, 60, 900)}
    )
    tags = Tags.from_lists([[f"t{at % 7}"] for at in range(60)])
    random, both = hold_out_random(x), hold_out_random_and_tag(x, tags)
    for user, held in items_of(both.targets).items():
        assert items_of(random.targets)[user] < held
        moved = held - items_of(random.targets)[user]
        tag = both.tags[x.user_ids.index([user])[0]]
        assert {item % 7 for item in moved} == {int(tags.names[tag][1:])}
        assert not any(item % 7 == int(tags.names[tag][1:]) for item in items_of(both.inputs)[user])


def test_no_tags_at_all():
    x = Interactions.from_frame({"user": [1, 1], "item": [0, 1]})
    out = hold_out_tag(x, Tags.from_lists([[], []]))
    assert out.tags.tolist() == [NO_TAG] and out.targets.nnz == 0


def test_share_is_checked():
    x = Interactions.from_frame({"user": [1], "item": [0]})
    for share in (0, 1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"share must be in \(0, 1\)"):
            hold_out_random(x, share=share)


def test_a_tag_nobody_here_uses_changes_no_choice():
    rng = np.random.default_rng(0)
    x = Interactions.from_frame(
        {"user": rng.integers(0, 80, 900), "item": rng.integers(0, 60, 900)}
    )
    lists = [[f"t{at % 7}"] for at in range(60)]
    tags = Tags.from_lists(lists)
    unseen = Tags.from_frame({"item": [99], "tag": ["a first name"]}, item_ids=x.item_ids)
    more = tags.merged(unseen)
    assert more.names[1:] == tags.names
    for function in (hold_out_tag, hold_out_random_and_tag):
        first, second = function(x, tags), function(x, more)
        assert first.targets == second.targets
        assert [tags.names[at] for at in first.tags] == [more.names[at] for at in second.tags]
