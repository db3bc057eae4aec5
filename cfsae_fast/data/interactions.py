"""Floor 2: `Interactions`, the users x items matrix in CSR form, with its external ids.

Station: interactions -> CSR, the first of the story; everything after it sees positions only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from cfsae_fast.data.columns import check_timestamps, check_values, encode_ids, take_columns
from cfsae_fast.data.merging import merge_pairs
from cfsae_fast.errors import DataError
from cfsae_fast.ids import Ids
from cfsae_fast.ops.containers import Rows

if TYPE_CHECKING:
    import scipy.sparse

Duplicates = Literal["last", "sum", "max", "error"]
DUPLICATES = ("last", "sum", "max", "error")


@dataclass(frozen=True, eq=False)
class Interactions:
    """Who took what: row u holds items[offsets[u]:offsets[u + 1]], ascending, none twice.

    offsets (U + 1,) int64; items (nnz,) int32; values (nnz,) float32, finite (ratings, counts, or
    1); timestamps (nnz,) int64 seconds, or None; user_ids, item_ids: external ids of the rows
    and columns. Arrays are shared, never copied or changed.

    Raises:
        DataError: the arrays contradict each other.
    """

    offsets: np.ndarray
    items: np.ndarray
    values: np.ndarray
    timestamps: np.ndarray | None
    user_ids: Ids
    item_ids: Ids

    def __post_init__(self) -> None:
        _check(self)

    @property
    def n_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    @property
    def nnz(self) -> int:
        return len(self.items)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Interactions):
            return NotImplemented
        return (
            np.array_equal(self.offsets, other.offsets)
            and np.array_equal(self.items, other.items)
            and np.array_equal(self.values, other.values)
            and (self.timestamps is None) == (other.timestamps is None)
            and (self.timestamps is None or np.array_equal(self.timestamps, other.timestamps))
            and self.user_ids == other.user_ids
            and self.item_ids == other.item_ids
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        times = "" if self.timestamps is None else ", with timestamps"
        return (
            f"Interactions({self.n_users} users, {self.n_items} items, "
            f"{self.nnz} interactions{times})"
        )

    def counts_per_user(self) -> np.ndarray:
        """Interactions of each user: (U,) int64."""
        return np.diff(self.offsets)

    def counts_per_item(self) -> np.ndarray:
        """Interactions of each item: (I,) int64."""
        return np.bincount(self.items, minlength=self.n_items)

    def row(self, user: int) -> np.ndarray:
        """Item positions (m,) int32 of one user position."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def users_of_pairs(self) -> np.ndarray:
        """User position of each stored pair: (nnz,) int32."""
        return np.repeat(np.arange(self.n_users, dtype=np.int32), self.counts_per_user())

    def rows(self, users: np.ndarray | None = None, *, binary: bool = True) -> Rows:
        """Histories of user positions `users` (None: all, without a copy) for the engine's ops.

        values are None if `binary`, where every interaction counts 1.
        """
        if users is None:
            return Rows(self.offsets, self.items, None if binary else self.values)
        offsets, pairs = _pairs_of(self, users)
        return Rows(offsets, self.items[pairs], None if binary else self.values[pairs])

    def select_users(self, users: np.ndarray) -> Interactions:
        """The rows of user positions `users` in that order; every item stays a column.

        Raises:
            DataError: a position is outside [0, n_users) or repeated.
        """
        offsets, pairs = _pairs_of(self, users)
        return Interactions(
            offsets,
            self.items[pairs],
            self.values[pairs],
            None if self.timestamps is None else self.timestamps[pairs],
            Ids(self.user_ids.values[users], what=self.user_ids.what),
            self.item_ids,
        )

    def keep_pairs(self, mask: np.ndarray) -> Interactions:
        """The stored pairs where `mask` (nnz,) bool holds; every user and item stays."""
        before = np.concatenate([[0], np.cumsum(mask, dtype=np.int64)])
        return Interactions(
            before[self.offsets],
            self.items[mask],
            self.values[mask],
            None if self.timestamps is None else self.timestamps[mask],
            self.user_ids,
            self.item_ids,
        )

    def compact(self) -> Compacted:
        """Drop users and items without interactions; the others keep their order."""
        users = np.flatnonzero(self.counts_per_user())
        items = np.flatnonzero(self.counts_per_item())
        if len(users) == self.n_users and len(items) == self.n_items:
            return Compacted(self, users, items)
        position = np.full(self.n_items, -1, dtype=np.int32)
        position[items] = np.arange(len(items), dtype=np.int32)
        interactions = Interactions(
            np.append(self.offsets[users], self.nnz).astype(np.int64),
            position[self.items],
            self.values,
            self.timestamps,
            Ids(self.user_ids.values[users], what=self.user_ids.what),
            Ids(self.item_ids.values[items], what=self.item_ids.what),
        )
        return Compacted(interactions, users, items)

    def binarized(self) -> Interactions:
        """The same pairs, each of value 1."""
        return Interactions(
            self.offsets,
            self.items,
            np.ones_like(self.values),
            self.timestamps,
            self.user_ids,
            self.item_ids,
        )

    def align_items(self, item_ids: Ids) -> Interactions:
        """The same users over another catalogue, such as a saved model's.

        Interactions with items that `item_ids` lacks are dropped.
        """
        position = item_ids.lookup(self.item_ids.values.tolist())[self.items]
        mask = position >= 0
        users = self.users_of_pairs()[mask]
        order = np.lexsort((position[mask], users))
        pick = np.flatnonzero(mask)[order]
        return Interactions(
            _offsets(np.bincount(users, minlength=self.n_users)),
            position[pick].astype(np.int32),
            self.values[pick],
            None if self.timestamps is None else self.timestamps[pick],
            self.user_ids,
            item_ids,
        )

    def to_scipy(self) -> scipy.sparse.csr_array:
        """values as a scipy CSR array (U, I) float32; explicit zeros stay stored."""
        from scipy.sparse import csr_array

        shape = (self.n_users, self.n_items)
        return csr_array((self.values.copy(), self.items.copy(), self.offsets.copy()), shape=shape)

    @classmethod
    def from_scipy(
        cls, matrix: Any, *, user_ids: Ids | None = None, item_ids: Ids | None = None
    ) -> Interactions:
        """Interactions from any scipy sparse matrix (U, I); stored zeros count as interactions.

        Ids default to 0..n-1. Pairs stored twice are added, as scipy means them.

        Raises:
            DataError: a value is NaN, infinite or negative, or ids do not fit the shape.
        """
        if not hasattr(matrix, "tocsr"):
            raise TypeError(f"matrix must be scipy sparse, got {type(matrix).__name__}")
        csr = matrix.tocsr(copy=True)
        csr.sum_duplicates()
        csr.sort_indices()
        return cls(
            csr.indptr.astype(np.int64),
            csr.indices.astype(np.int32),
            check_values(csr.data, what="values"),
            None,
            Ids.range(csr.shape[0], what="user") if user_ids is None else user_ids,
            Ids.range(csr.shape[1], what="item") if item_ids is None else item_ids,
        )

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        user: str = "user",
        item: str = "item",
        value: str | None = None,
        timestamp: str | None = None,
        duplicates: Duplicates = "last",
        allow_negative: bool = False,
    ) -> Interactions:
        """Interactions from a polars or pandas frame or a mapping of columns, one row per event.

        Positions follow sorted ids, whatever the order of rows. value None: every event is 1.
        duplicates: a pair that comes twice keeps its `last` value (by timestamp where there is
        one, else by row order), the `sum` or the `max` of its values, or is an `error`.

        Raises:
            DataError: a column is missing or of the wrong kind, ids are missing or mixed, a value
                is NaN, infinite or negative, or there is no row at all. Rows count from 0.
        """
        if duplicates not in DUPLICATES:
            raise ValueError(f"duplicates must be one of {DUPLICATES}, got {duplicates!r}")
        roles = {"user": user, "item": item, "value": value, "timestamp": timestamp}
        columns = take_columns(frame, roles, what="frame")
        users, user_ids = encode_ids(columns["user"], what="user")
        items, item_ids = encode_ids(columns["item"], what="item")
        if not len(users):
            raise DataError("frame must hold at least one interaction, got 0 rows")
        values = np.ones(len(users), dtype=np.float32)
        if "value" in columns:
            values = check_values(columns["value"], what="values", allow_negative=allow_negative)
        times = check_timestamps(columns["timestamp"]) if "timestamp" in columns else None
        users, items, values, times = merge_pairs(
            users, items, values, times, user_ids=user_ids, item_ids=item_ids, rule=duplicates
        )
        offsets = _offsets(np.bincount(users, minlength=len(user_ids)))
        return cls(offsets, items, values, times, user_ids, item_ids)


class Compacted(NamedTuple):
    """Interactions without empty rows and columns, and the former positions of what is left."""

    interactions: Interactions
    users: np.ndarray
    items: np.ndarray


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _pairs_of(interactions: Interactions, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """offsets of the chosen rows and the positions of their pairs."""
    users = np.asarray(users)
    if users.ndim != 1 or (users.size and users.dtype.kind not in "iu"):
        raise DataError(
            f"users must be positions of shape (n,), got {users.dtype} of shape {users.shape}"
        )
    users = users.astype(np.int64, copy=False)
    if users.size and (users.min() < 0 or users.max() >= interactions.n_users):
        raise DataError(
            f"users must be positions in [0, n_users={interactions.n_users}), "
            f"got [{users.min()}, {users.max()}]; external ids go through user_ids.index()"
        )
    starts = interactions.offsets[users]
    counts = interactions.offsets[users + 1] - starts
    offsets = _offsets(counts)
    return offsets, np.repeat(starts - offsets[:-1], counts) + np.arange(offsets[-1])


def _check(x: Interactions) -> None:
    for name, dtype in (("offsets", np.int64), ("items", np.int32), ("values", np.float32)):
        array = getattr(x, name)
        if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
            kind = f"{getattr(array, 'dtype', type(array).__name__)}"
            raise DataError(f"{name} must be one-dimensional {np.dtype(dtype)}, got {kind}")
    if len(x.offsets) != len(x.user_ids) + 1:
        raise DataError(
            f"offsets must be (n_users + 1,) = ({len(x.user_ids) + 1},), got ({len(x.offsets)},)"
        )
    if x.offsets[0] != 0 or x.offsets[-1] != x.nnz or (np.diff(x.offsets) < 0).any():
        raise DataError(f"offsets must rise from 0 to nnz={x.nnz}, got {x.offsets[[0, -1]]}")
    if len(x.values) != x.nnz:
        raise DataError(f"values must be (nnz,) = ({x.nnz},), got {x.values.shape}")
    times = x.timestamps
    if times is not None and (times.dtype != np.int64 or times.shape != (x.nnz,)):
        raise DataError(
            f"timestamps must be int64 ({x.nnz},) or None, got {times.dtype} {times.shape}"
        )
    if x.nnz and (x.items.min() < 0 or x.items.max() >= x.n_items):
        raise DataError(
            f"items must be in [0, n_items={x.n_items}), got [{x.items.min()}, {x.items.max()}]"
        )
    rising = np.diff(x.items) > 0
    starts = x.offsets[1:-1]
    rising[starts[(starts > 0) & (starts < x.nnz)] - 1] = True  # a row's first item is free
    if not rising.all():
        at = int(np.flatnonzero(~rising)[0]) + 1
        raise DataError(f"items must ascend within each row and not repeat, pair {at} does not")
    if not np.isfinite(x.values).all():
        at = int(np.flatnonzero(~np.isfinite(x.values))[0])
        raise DataError(f"values must be finite, got {x.values[at]} at pair {at}")
