"""Floor 5: what users pass - user ids, histories, allow and deny lists - as rows of item positions.

Station: (user, item) -> CSR, for one live request.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from cfsae_fast.errors import DataError
from cfsae_fast.ids import Id, Ids
from cfsae_fast.ops import Rows
from cfsae_fast.ops.lists import positions_of_lists


class Request(NamedTuple):
    """Rows of item positions, the stored users they belong to, and whether one was asked for.

    users: (B,) int64 positions of stored users, or None for histories. single: the caller gave one
    user or one history, so the answer is one-dimensional.
    """

    rows: Rows
    users: np.ndarray | None
    single: bool


def take(request: Request, first: int, last: int) -> Request:
    """Rows first..last - 1 of a request (fewer at its end)."""
    if first == 0 and last >= len(request.rows.offsets) - 1:
        return request
    wanted = np.arange(first, min(last, len(request.rows.offsets) - 1))
    users = None if request.users is None else request.users[wanted]
    return Request(request.rows.take(wanted), users, request.single)


def rows_of(positions: np.ndarray, counts: Sequence[int]) -> Rows:
    """Rows from item positions (nnz,), counts[b] of them for row b; a repeated item counts once."""
    if len(counts) == 1:
        ordered = np.sort(positions)
        if (ordered[1:] == ordered[:-1]).any():
            ordered = np.unique(ordered)
        return Rows(np.array([0, len(ordered)]), ordered.astype(np.int32))
    # one key per entry, row before item, so that one sort does for all rows
    span = 1 + int(positions.max(initial=0))
    rows = np.repeat(np.arange(len(counts)), counts)
    keys = np.sort(rows * span + positions)
    first = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    keys = keys[first]
    starts = span * np.arange(len(counts) + 1)
    offsets = np.searchsorted(keys, starts)
    return Rows(offsets, (keys - np.repeat(starts[:-1], np.diff(offsets))).astype(np.int32))


def of_users(users: Any, user_ids: Ids, stored: Rows) -> Request:
    """Known users by external id, a scalar or a sequence.

    Raises:
        UnknownIdError: a user is not stored; pass histories= for new users.
        DataError: users are not ids.
    """
    single = not _is_list(users)
    wanted = [users] if single else list(users)
    if any(_is_list(one) for one in wanted):
        raise DataError("users must be ids, got a list inside; pass histories= for lists of items")
    positions = user_ids.lookup(wanted)
    if (positions < 0).any():
        missing = wanted[int(np.flatnonzero(positions < 0)[0])]
        error = user_ids.unknown(missing, others=int((positions < 0).sum()) - 1)
        raise type(error)(f"{error}; for a new user pass histories=[item ids]")
    return Request(stored.take(positions), positions, single)


def of_histories(histories: Any, item_ids: Ids, *, unknown: str) -> Request:
    """Histories of external item ids: one list, a list of lists, or a scipy CSR of item positions.

    Raises:
        UnknownIdError: an item is unknown and `unknown` is "error".
        DataError: not a list of ids, or a CSR with another number of columns.
    """
    if unknown not in ("error", "ignore"):
        raise ValueError(f"unknown must be 'error' or 'ignore', got {unknown!r}")
    if hasattr(histories, "tocsr"):
        return _of_sparse(histories.tocsr(), len(item_ids))
    found = _of_ints(histories, item_ids)
    if found is not None:
        return found
    given = _listed(histories, "histories")
    nested = [_is_list(one) for one in given]
    if any(nested) and not all(nested):
        raise DataError("histories must be one list of item ids or a list of lists, got a mixture")
    single = not any(nested)
    lists = [given] if single else given
    counts = list(map(len, lists))
    ids = lists[0] if len(lists) == 1 else list(chain.from_iterable(lists))
    if unknown == "error":
        return Request(rows_of(item_ids.index(ids), counts), None, single)
    found = item_ids.lookup(ids)
    known = found >= 0
    if not known.all():
        ends = np.cumsum([0, *counts])
        counts = np.diff(np.concatenate(([0], np.cumsum(known)))[ends])
    return Request(rows_of(found[known], counts), None, single)


def _of_ints(histories: Any, item_ids: Ids) -> Request | None:
    """What a server is sent: lists of ints that are all known. None: something is otherwise."""
    if not isinstance(histories, list) or not histories or item_ids.table is None:
        return None
    single = isinstance(histories[0], int)
    found = positions_of_lists([histories] if single else histories, *item_ids.table)
    return None if found is None else Request(rows_of(*found), None, single)


def allowed_mask(
    allow: Sequence[Id] | None, deny: Sequence[Id] | None, item_ids: Ids
) -> np.ndarray | None:
    """(I,) bool of items that may be recommended, or None when all may.

    Raises:
        UnknownIdError: a listed item is unknown.
    """
    if allow is None and deny is None:
        return None
    mask = np.full(len(item_ids), allow is None)
    if allow is not None:
        mask[item_ids.index(_listed(allow, "allow"))] = True
    if deny is not None:
        mask[item_ids.index(_listed(deny, "deny"))] = False
    return mask


def check_n(n: int) -> None:
    """Raises: ValueError: not a whole number of at least 1."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"n must be a whole number of at least 1, got {n!r}")


def _listed(ids: Any, name: str) -> list:
    if not _is_list(ids):
        raise DataError(f"{name} must be a list of item ids, got {type(ids).__name__}")
    return list(ids)


def _is_list(value: Any) -> bool:
    """Whether a value holds several ids: a collection, but not text nor a 0-d array."""
    return (
        isinstance(value, Collection)
        and not isinstance(value, str | bytes)
        and (not isinstance(value, np.ndarray) or value.ndim > 0)
    )


def _of_sparse(matrix: Any, n_items: int) -> Request:
    if matrix.shape[1] != n_items:
        raise DataError(f"histories must have {n_items} columns, got {matrix.shape[1]}")
    kept = np.concatenate(([0], np.cumsum(matrix.data != 0)))[matrix.indptr]
    positions = matrix.indices[matrix.data != 0].astype(np.int64)
    return Request(rows_of(positions, np.diff(kept)), None, False)
