"""Floor 2: `Tags`, who called which item what: the raw material of concepts.

Station: beside the line: tags x item codes -> ConceptMap. Cleaning follows METHOD.md 5.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cfsae_fast.data.columns import check_values, encode_ids, take_columns
from cfsae_fast.errors import DataError, UnknownConceptError, did_you_mean
from cfsae_fast.ids import Ids

if TYPE_CHECKING:
    import scipy.sparse

OUTSIDE = -1  # item of an assignment to something that is not in the catalogue
NOBODY = -1  # user of an assignment that the catalogue makes (a genre)
STRANGER = -2  # user of an assignment by somebody who is not among the data set's users


@dataclass(frozen=True, eq=False)
class Tags:
    """Assignments of tags to items, one per entry.

    names: cleaned tags; tags (n,) int32 positions in names; items (n,) int32 item positions, or
    OUTSIDE: assignments outside the catalogue stay, because `min_count` counts them too;
    weights (n,) float32; users (n,) int32 user positions, NOBODY or STRANGER, or None where
    nobody is known.

    Raises:
        DataError: the arrays contradict each other.
    """

    names: tuple[str, ...]
    tags: np.ndarray
    items: np.ndarray
    weights: np.ndarray
    users: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, dtype in (("tags", np.int32), ("items", np.int32), ("weights", np.float32)):
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != self.tags.shape or array.ndim != 1:
                raise DataError(
                    f"{name} must be {np.dtype(dtype)} of shape {self.tags.shape}, "
                    f"got {array.dtype} of shape {array.shape}"
                )
        users = self.users
        if users is not None and (users.dtype != np.int32 or users.shape != self.tags.shape):
            raise DataError(f"users must be int32 of shape {self.tags.shape} or None")
        if self.n_assignments and not (
            self.tags.min() >= 0 and self.tags.max() < len(self.names) and self.items.min() >= -1
        ):
            raise DataError(f"tags must be in [0, {len(self.names)}) and items at least {OUTSIDE}")
        if len(set(self.names)) != len(self.names):
            raise DataError("names must be distinct, got a tag twice")

    @property
    def n_assignments(self) -> int:
        return len(self.tags)

    @property
    def n_tags(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tags):
            return NotImplemented
        return (
            self.names == other.names
            and np.array_equal(self.tags, other.tags)
            and np.array_equal(self.items, other.items)
            and np.array_equal(self.weights, other.weights)
            and (self.users is None) == (other.users is None)
            and (self.users is None or np.array_equal(self.users, other.users))
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Tags({self.n_assignments} assignments of {self.n_tags} tags)"

    def counts(self) -> np.ndarray:
        """Assignments of each tag, in and outside of the catalogue: (n_tags,) int64."""
        return np.bincount(self.tags, minlength=self.n_tags)

    def min_count(self, count: int) -> Tags:
        """Tags of at least `count` assignments, counted before any are lost to item filters."""
        return self.keep_tags(self.counts() >= count)

    def keep_tags(self, mask: np.ndarray) -> Tags:
        """The tags where `mask` (n_tags,) bool holds, and their assignments."""
        position = np.cumsum(mask, dtype=np.int32) - np.int32(1)
        left = self._pick(np.flatnonzero(mask[self.tags]))
        names = tuple(name for name, keep in zip(self.names, mask, strict=True) if keep)
        return Tags(names, position[left.tags], left.items, left.weights, left.users)

    def in_catalogue(self) -> Tags:
        """Assignments to items of the catalogue, and the tags that have any."""
        inside = self._pick(np.flatnonzero(self.items != OUTSIDE))
        return inside.keep_tags(inside.counts() > 0)

    def for_users(self, users: np.ndarray) -> Tags:
        """Assignments made by user positions `users`, and those that nobody made (genres).

        Labels for an honest evaluation come from the training users only.
        """
        if self.users is None:
            return self
        return self._pick(np.flatnonzero((self.users == NOBODY) | np.isin(self.users, users)))

    def moved(self, *, items: np.ndarray, users: np.ndarray, n_items: int, n_users: int) -> Tags:
        """The same tags after a filter kept the former positions `items` and `users`.

        n_items, n_users: how many there were before. Lost items become OUTSIDE, lost users
        STRANGER.
        """
        item_at = np.full(n_items + 1, OUTSIDE, dtype=np.int32)  # [-1]: OUTSIDE stays outside
        item_at[items] = np.arange(len(items), dtype=np.int32)
        user_at = np.full(n_users + 2, STRANGER, dtype=np.int32)
        user_at[users] = np.arange(len(users), dtype=np.int32)
        user_at[NOBODY] = NOBODY
        new_users = None if self.users is None else user_at[self.users]
        return Tags(self.names, self.tags, item_at[self.items], self.weights, new_users)

    def merged(self, other: Tags) -> Tags:
        """The assignments of both; equal names become one tag."""
        names = tuple(sorted({*self.names, *other.names}))
        at = {name: position for position, name in enumerate(names)}
        tags = [at[name] for name in (*self.names, *other.names)]
        position = np.asarray(tags, dtype=np.int32)
        users = None
        if self.users is not None or other.users is not None:
            users = np.concatenate([_known_users(self), _known_users(other)])
        return Tags(
            names,
            position[np.concatenate([self.tags, other.tags + np.int32(self.n_tags)])],
            np.concatenate([self.items, other.items]),
            np.concatenate([self.weights, other.weights]),
            users,
        )

    def matrix(self, n_items: int) -> scipy.sparse.csr_array:
        """Summed weights of the catalogue's assignments: CSR (n_tags, n_items) float32."""
        from scipy.sparse import coo_array

        inside = self.items != OUTSIDE
        self._check_items(n_items)
        coordinates = (self.tags[inside], self.items[inside])
        matrix = coo_array((self.weights[inside], coordinates), shape=(self.n_tags, n_items))
        return matrix.tocsr()

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Distinct (item, tag) pairs of the catalogue: two (m,) int32, by item and then tag."""
        inside = self.items != OUTSIDE
        key = self.items[inside].astype(np.int64) * max(self.n_tags, 1) + self.tags[inside]
        key = np.unique(key)
        items, tags = np.divmod(key, max(self.n_tags, 1))
        return items.astype(np.int32), tags.astype(np.int32)

    def index(self, name: str) -> int:
        """Position of a tag in `names`, after cleaning.

        Raises:
            UnknownConceptError: no such tag; the nearest ones are named.
        """
        try:
            return self.names.index(clean_tag(name))
        except ValueError:
            hint = did_you_mean(clean_tag(name), list(self.names))
            raise UnknownConceptError(f"tag {name!r} is unknown{hint}") from None

    def item_mask(self, name: str, n_items: int) -> np.ndarray:
        """Which items carry the tag: (n_items,) bool."""
        self._check_items(n_items)
        items = self.items[self.tags == self.index(name)]
        mask = np.zeros(n_items, dtype=bool)
        mask[items[items != OUTSIDE]] = True
        return mask

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        item_ids: Ids,
        user_ids: Ids | None = None,
        item: str = "item",
        tag: str = "tag",
        weight: str | None = None,
        user: str | None = None,
    ) -> Tags:
        """Tags from a polars or pandas frame or a mapping of columns, one row per assignment.

        Names are cleaned by `clean_tag`; rows left without a name are dropped. Items that
        `item_ids` lacks become OUTSIDE, users that `user_ids` lacks STRANGER. weight None: 1.

        Raises:
            DataError: a column is missing, ids are of another kind than `item_ids`, or a weight
                is NaN, infinite or negative.
        """
        roles = {"item": item, "tag": tag, "weight": weight, "user": user}
        columns = take_columns(frame, roles, what="tags")
        names, positions, kept = _clean_column(columns["tag"])
        weights = np.ones(len(positions), dtype=np.float32)
        if "weight" in columns:
            weights = check_values(columns["weight"], what="tag weights")
        items = _locate(columns["item"], item_ids, missing=OUTSIDE)
        users = None
        if "user" in columns:
            if user_ids is None:
                raise ValueError("user_ids must be given with user=, got None")
            users = _locate(columns["user"], user_ids, missing=STRANGER)[kept]
        return cls(names, positions[kept], items[kept], weights[kept], users)

    @classmethod
    def from_lists(cls, tags_of_item: Iterable[Sequence[str]]) -> Tags:
        """Tags from one list of names per item position, as genres come; each weighs 1."""
        lists = [list(names or ()) for names in tags_of_item]
        items = np.repeat(np.arange(len(lists)), [len(names) for names in lists])
        flat = np.asarray([name for names in lists for name in names], dtype=np.str_)
        names, positions, kept = _clean_column(flat)
        ones = np.ones(len(kept), dtype=np.float32)
        tags = cls(names, positions[kept], items[kept].astype(np.int32), ones)
        items, positions = tags.pairs()  # a list that repeats a name means it once
        return cls(names, positions, items, ones[: len(items)])

    def _pick(self, at: np.ndarray) -> Tags:
        users = None if self.users is None else self.users[at]
        return Tags(self.names, self.tags[at], self.items[at], self.weights[at], users)

    def _check_items(self, n_items: int) -> None:
        if self.n_assignments and self.items.max() >= n_items:
            raise DataError(
                f"n_items must be above every tagged item ({self.items.max()}), got {n_items}"
            )


def clean_tag(name: str) -> str:
    """Lower case, no spaces around, single spaces inside: "  Film   Noir" -> "film noir"."""
    return " ".join(name.lower().split())


def _known_users(tags: Tags) -> np.ndarray:
    if tags.users is not None:
        return tags.users
    return np.full(tags.n_assignments, NOBODY, dtype=np.int32)


def _clean_column(column: Any) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Sorted cleaned names, the position of each row's, and which rows have a name at all."""
    values = column.to_list() if hasattr(column, "to_list") else list(column)
    texts = ["" if _is_nothing(value) else str(value) for value in values]
    raw = {text: clean_tag(text) for text in set(texts)}
    names = tuple(sorted(set(raw.values()) - {""}))
    at = {name: position for position, name in enumerate(names)} | {"": -1}
    positions = np.fromiter((at[raw[text]] for text in texts), dtype=np.int32, count=len(texts))
    return names, positions, np.flatnonzero(positions >= 0)


def _is_nothing(value: object) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _locate(column: Any, ids: Ids, *, missing: int) -> np.ndarray:
    """Position among `ids` of each row's external id, or `missing`."""
    codes, found = encode_ids(column, what=ids.what)
    if len(found) and len(ids) and found.is_text != ids.is_text:
        kinds = ("int", "str")
        raise DataError(
            f"{ids.what} ids of tags must be {kinds[ids.is_text]} as in the interactions, "
            f"got {kinds[found.is_text]}"
        )
    positions = ids.lookup(found.values.tolist()).astype(np.int32)
    positions[positions < 0] = missing
    return positions[codes] if len(codes) else codes
