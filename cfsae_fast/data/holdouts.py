"""Floor 2: hold-outs: each row is cut into what the model sees and what it should find.

Station: evaluation. METHOD.md 1.4 and 1.6; which item falls where depends on (seed, external user
id, external item ids of the row) only, never on other rows or on the order of calls.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cfsae_fast.data.interactions import Interactions
from cfsae_fast.data.randomness import hash_ids, hash_texts, mix, salt
from cfsae_fast.data.tags import Tags
from cfsae_fast.errors import DataError

NO_TAG = -1
_USERS_AT_ONCE = 4096  # bounds the users x tags counts held at a time


class HoldOut(NamedTuple):
    """inputs and targets: the same users and items, disjoint, together the rows they came from.

    A user who cannot be cut (fewer than 2 items, or no fitting tag) is all input; evaluation
    leaves out users without targets. tags (U,) int32: position of the tag held out, NO_TAG for
    none; None for hold-outs without tags.
    """

    inputs: Interactions
    targets: Interactions
    tags: np.ndarray | None = None


def hold_out_random(interactions: Interactions, *, share: float = 0.2, seed: int = 42) -> HoldOut:
    """ceil(share * m) random items of each row of m become targets, at most m - 1.

    Raises:
        ValueError: share is not in (0, 1).
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be in (0, 1), got {share}")
    counts = interactions.counts_per_user()
    wanted = np.ceil(share * counts - 1e-9).astype(np.int64)
    wanted = np.where(counts < 2, 0, np.clip(wanted, 1, counts - 1))
    return _cut(interactions, _first_of_each_row(interactions, _draws(interactions, seed), wanted))


def hold_out_last(interactions: Interactions, *, count: int = 1) -> HoldOut:
    """The `count` latest items of each row become targets (at most m - 1); no randomness.

    Equal times: the item later in the catalogue counts as later.

    Raises:
        DataError: there are no timestamps.
        ValueError: count is below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if interactions.timestamps is None:
        raise DataError(
            "interactions must have timestamps for a leave-last-out hold-out, got none; "
            "read them with timestamp= or use hold_out_random"
        )
    rows = interactions.users_of_pairs()
    order = np.lexsort((interactions.items, interactions.timestamps, rows))
    from_end = np.repeat(interactions.offsets[1:], interactions.counts_per_user())
    from_end = from_end - np.arange(interactions.nnz)
    wanted = np.minimum(count, np.maximum(interactions.counts_per_user() - 1, 0))
    mask = np.zeros(interactions.nnz, dtype=bool)
    mask[order] = from_end <= wanted[rows]
    return _cut(interactions, mask)


def hold_out_tag(
    interactions: Interactions,
    tags: Tags,
    *,
    seed: int = 42,
    min_support: int = 1,
    max_support: int | None = None,
) -> HoldOut:
    """All of a user's items that carry one tag become targets, the tag drawn evenly.

    A tag is drawn among those that at least `min_support` (and at most `max_support`) of the
    user's items carry, but not all of them, so that something is left to see. (The paper draws
    among all and then drops the users left with an empty side; METHOD.md 1.6 a.)
    """
    chosen, mask = _tag_of_each_row(
        interactions, tags, seed=seed, min_support=min_support, max_support=max_support
    )
    return _cut(interactions, mask, chosen)


def hold_out_random_and_tag(
    interactions: Interactions,
    tags: Tags,
    *,
    share: float = 0.2,
    seed: int = 42,
    min_support: int = 1,
    max_support: int | None = None,
) -> HoldOut:
    """`hold_out_random`, and then all inputs that carry one tag become targets too.

    The tag is drawn as in `hold_out_tag`, among those of the inputs (METHOD.md 1.6 b, d).
    """
    random = hold_out_random(interactions, share=share, seed=seed)
    chosen, moved = _tag_of_each_row(
        random.inputs, tags, seed=seed, min_support=min_support, max_support=max_support
    )
    rows = interactions.users_of_pairs()
    key = rows.astype(np.int64) * interactions.n_items + interactions.items
    inputs = random.inputs
    input_key = inputs.users_of_pairs().astype(np.int64) * inputs.n_items + inputs.items
    left = np.isin(key, input_key[~moved], assume_unique=True)
    return _cut(interactions, ~left, chosen)


def _cut(interactions: Interactions, target: np.ndarray, tags: np.ndarray | None = None) -> HoldOut:
    return HoldOut(interactions.keep_pairs(~target), interactions.keep_pairs(target), tags)


def _draws(interactions: Interactions, seed: int) -> np.ndarray:
    """One uint64 per stored pair, from the external ids of its user and its item."""
    users = hash_ids(interactions.user_ids)[interactions.users_of_pairs()]
    items = hash_ids(interactions.item_ids)[interactions.items]
    return mix(salt(seed, "hold out"), users, items)


def _first_of_each_row(
    interactions: Interactions, draws: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """Mask (nnz,) of the `wanted[u]` pairs of row u that have the smallest draws."""
    rows = interactions.users_of_pairs()
    order = np.lexsort((draws, rows))
    rank = np.arange(interactions.nnz) - interactions.offsets[rows]
    mask = np.zeros(interactions.nnz, dtype=bool)
    mask[order] = rank < wanted[rows]
    return mask


def _check_support(min_support: int, max_support: int | None) -> None:
    if min_support < 1:
        raise ValueError(f"min_support must be at least 1, got {min_support}")
    if max_support is not None and max_support < min_support:
        raise ValueError(f"max_support must be at least {min_support}, got {max_support}")


def _tag_of_each_row(
    interactions: Interactions,
    tags: Tags,
    *,
    seed: int,
    min_support: int,
    max_support: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The tag drawn for each row (or NO_TAG), and the mask (nnz,) of the row's items with it."""
    _check_support(min_support, max_support)
    from scipy.sparse import csr_array

    shape = (interactions.n_items, max(tags.n_tags, 1))
    items, carried = tags.pairs()
    carries = csr_array((np.ones(len(items), np.int32), (items, carried)), shape=shape)
    name_draws = hash_texts(np.asarray(tags.names, dtype=np.str_)) if tags.n_tags else None
    user_draws = mix(salt(seed, "hold out tag"), hash_ids(interactions.user_ids))
    chosen = np.full(interactions.n_users, NO_TAG, dtype=np.int32)
    sizes = interactions.counts_per_user()
    matrix = csr_array(
        (np.ones(interactions.nnz, np.int32), interactions.items, interactions.offsets),
        shape=(interactions.n_users, interactions.n_items),
    )
    for start in range(0, interactions.n_users if tags.n_tags else 0, _USERS_AT_ONCE):
        support = (matrix[start : start + _USERS_AT_ONCE] @ carries).tocoo()
        user, tag = support.row + start, support.col
        fits = (support.data >= min_support) & (support.data < sizes[user])
        if max_support is not None:
            fits &= support.data <= max_support
        user, tag = user[fits], tag[fits]
        order = np.lexsort((tag, mix(user_draws[user], name_draws[tag]), user))
        first, at = np.unique(user[order], return_index=True)
        chosen[first] = tag[order][at]
    rows = interactions.users_of_pairs()
    wanted = chosen[rows].astype(np.int64)
    pair_key = items.astype(np.int64) * tags.n_tags + carried
    mask = (wanted >= 0) & np.isin(interactions.items * np.int64(tags.n_tags) + wanted, pair_key)
    return chosen, mask
