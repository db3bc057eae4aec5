"""Floor 2: pairs in any order, some of them twice -> sorted distinct pairs.

Station: (user, item) -> CSR. Files that come sorted, as MovieLens does, are not sorted again.
"""

from __future__ import annotations

import numpy as np

from cfsae_fast.errors import DataError
from cfsae_fast.ids import Ids

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray, "np.ndarray | None"]


def merge_pairs(
    users: np.ndarray,
    items: np.ndarray,
    values: np.ndarray,
    timestamps: np.ndarray | None,
    *,
    user_ids: Ids,
    item_ids: Ids,
    rule: str,
) -> Pairs:
    """Sort pairs by (user, item) and make one of each repeated pair by `rule`.

    users, items (n,) int32 positions; values (n,) float32; timestamps (n,) int64 or None.
    rule: last (latest timestamp, ties to the later row), sum, max (both with the latest
    timestamp) or error.

    Raises:
        DataError: a pair repeats under `error`, or a sum leaves float32.
    """
    key = users.astype(np.int64) * len(item_ids) + items
    step, order = np.diff(key), np.arange(len(key))
    if (step < 0).any():
        order = np.argsort(key, kind="stable")
        key, users, items, values = key[order], users[order], items[order], values[order]
        timestamps = None if timestamps is None else timestamps[order]
        step = np.diff(key)
    if (step > 0).all():
        return users, items, values, timestamps
    if rule == "error":
        at = int(np.flatnonzero(step == 0)[0])
        raise _repeated((user_ids[users[at]], item_ids[items[at]]), order[at], order[at + 1])
    if timestamps is not None:  # latest last, ties in row order: lexsort is stable
        order = np.lexsort((timestamps, key))  # key, users and items stay as they are
        values, timestamps = values[order], timestamps[order]
    first = np.flatnonzero(np.concatenate([[True], step > 0]))
    last = np.append(first[1:], len(key)) - 1
    merged = _merge_values(values, first, last, rule)
    return users[last], items[last], merged, None if timestamps is None else timestamps[last]


def _repeated(pair: tuple, first: int, second: int) -> DataError:
    return DataError(
        f"pairs must be distinct with duplicates='error', got user {pair[0]!r} with item "
        f"{pair[1]!r} at rows {first} and {second}; pass duplicates='last', 'sum' or 'max'"
    )


def _merge_values(values: np.ndarray, first: np.ndarray, last: np.ndarray, rule: str) -> np.ndarray:
    if rule == "last":
        return values[last]
    if rule == "max":
        return np.maximum.reduceat(values, first)
    with np.errstate(over="ignore"):
        merged = np.add.reduceat(values.astype(np.float64), first).astype(np.float32)
    if not np.isfinite(merged).all():
        raise DataError("values must add up within float32, got an overflow; scale them down")
    return merged
