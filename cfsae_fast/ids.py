"""Floor 1: external ids (all int or all str) <-> positions 0..n-1, kept with every model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat

import numpy as np

from cfsae_fast.errors import DataError, UnknownIdError, did_you_mean

Id = int | str

TABLE_SPAN = 8  # a table of positions may be this many times as long as there are ids


class Ids:
    """An ordered set of external ids, all int64 or all str.

    Position is order: `ids[3]` is the external id of row or column 3. Immutable.

    Raises:
        DataError: ids are mixed, repeated, or neither integers nor strings.
    """

    def __init__(self, values: Sequence[Id] | np.ndarray, *, what: str = "item") -> None:
        self.what = what
        self.values = _normalise(values, what)
        self.values.setflags(write=False)
        self._least, self._table = _table(self.values)
        self._positions: dict[Id, int] = {}
        if self._table is None:
            self._positions = {value: at for at, value in enumerate(self.values.tolist())}
            distinct = len(self._positions)
        else:
            distinct = int(np.count_nonzero(self._table >= 0))
        if distinct != len(self.values):
            raise DataError(
                f"{what} ids must be distinct, got {len(self.values)} ids of which "
                f"{len(self.values) - distinct} are repeated"
            )

    @classmethod
    def range(cls, count: int, *, what: str = "item") -> Ids:
        """Ids 0..count-1, for data that came without external ids."""
        return cls(np.arange(count, dtype=np.int64), what=what)

    @property
    def is_text(self) -> bool:
        return self.values.dtype.kind == "U"

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, position):
        """External id (a Python int or str) of one position; an array for an array of positions."""
        picked = self.values[position]
        return picked.item() if np.ndim(picked) == 0 else picked

    def __contains__(self, value: object) -> bool:
        return bool(self.lookup([value])[0] >= 0)  # type: ignore[list-item]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ids) and np.array_equal(self.values, other.values)

    def __repr__(self) -> str:
        kind = "str" if self.is_text else "int"
        return f"Ids({len(self)} {self.what} ids of {kind}, first {self.values[:3].tolist()})"

    def lookup(self, values: Iterable[Id]) -> np.ndarray:
        """Positions (n,) int64 of external ids; -1 where an id is unknown."""
        values = values if isinstance(values, list) else list(values)
        get = self._positions.get
        if set(map(type, values)) <= {str if self.is_text else int}:  # nearly always
            if self._table is not None:
                return self._by_table(values)
            found = map(get, values, repeat(-1))
        elif self._table is not None:
            keys = [self._key(value) for value in values]
            found = (-1 if key is None else self._by_table([key])[0] for key in keys)
        else:
            found = (get(self._key(value), -1) for value in values)
        return np.fromiter(found, dtype=np.int64, count=len(values))

    @property
    def table(self) -> tuple[np.ndarray, int] | None:
        """Positions (n,) int64 by id - least (-1: no such id), and the least id; None where ids are
        text or lie far apart."""
        return None if self._table is None else (self._table, self._least)

    def index(self, values: Iterable[Id]) -> np.ndarray:
        """Positions (n,) int64 of external ids.

        Raises:
            UnknownIdError: an id is unknown; the message names the first one and its neighbours.
        """
        values = values if isinstance(values, list) else list(values)
        positions = self.lookup(values)
        if len(positions) and positions.min() < 0:
            missing = np.flatnonzero(positions < 0)
            raise self.unknown(values[missing[0]], others=len(missing) - 1)
        return positions

    def named(self, positions: np.ndarray) -> np.ndarray:
        """External ids of an array of positions; -1, the empty slot of a list, is "" or -1."""
        if not len(self.values):
            return np.full(positions.shape, "" if self.is_text else -1, dtype=self.values.dtype)
        named = self.values.take(positions, mode="wrap")
        if positions.size and positions.min() < 0:
            named[positions < 0] = "" if self.is_text else -1
        return named

    def unknown(self, value: object, *, others: int = 0) -> UnknownIdError:
        """The error for an id that is not here (to raise)."""
        more = f" (and {others} more)" if others else ""
        hint = ""
        if self.is_text and isinstance(value, str):
            hint = did_you_mean(value, self.values.tolist())
        elif isinstance(value, str) != self.is_text:
            kind = "str" if self.is_text else "int"
            hint = f"; {self.what} ids here are {kind}, got {type(value).__name__}"
        return UnknownIdError(
            f"{self.what} {value!r}{more} is not among the "
            f"{len(self)} {self.what} ids known here{hint}"
        )

    def to_arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays for safetensors: integers as they are, strings as UTF-8 bytes and offsets."""
        if not self.is_text:
            return {f"{prefix}.int": np.asarray(self.values)}
        return texts_to_arrays(self.values, prefix)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], prefix: str, *, what: str) -> Ids:
        """Inverse of `to_arrays`.

        Raises:
            DataError: the arrays are missing or do not fit together.
        """
        if f"{prefix}.int" in arrays:
            return cls(arrays[f"{prefix}.int"], what=what)
        return cls(texts_from_arrays(arrays, prefix), what=what)

    def _by_table(self, values: list[int]) -> np.ndarray:
        most = self._least + len(self._table) - 1
        try:
            at = np.array(values, dtype=np.int64)
        except OverflowError:  # beyond 64 bits: no id of ours
            values = [value if self._least <= value <= most else None for value in values]
            found = (-1 if one is None else self._table[one - self._least] for one in values)
            return np.fromiter(found, dtype=np.int64, count=len(values))
        at -= self._least
        inside = at.view(np.uint64) < len(self._table)  # what is below wraps to the far end
        if inside.all():
            return self._table.take(at)
        return np.where(inside, self._table.take(np.where(inside, at, 0)), -1)

    def _key(self, value: object) -> object:
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bool) or isinstance(value, str) != self.is_text:
            return None
        return value


def _table(values: np.ndarray) -> tuple[int, np.ndarray | None]:
    """For integers that lie close together: the least, and positions by their distance from it.

    8 bytes and one read of memory an id, where a dict needs a hundred and several.
    """
    if values.dtype.kind != "i" or not len(values):
        return 0, None
    least, span = int(values.min()), int(values.max()) - int(values.min()) + 1
    if span > TABLE_SPAN * len(values):
        return 0, None
    table = np.full(span, -1, dtype=np.int64)
    table[values - least] = np.arange(len(values))
    return least, table


def texts_to_arrays(texts: np.ndarray, prefix: str) -> dict[str, np.ndarray]:
    """Strings (n,) as UTF-8 bytes and offsets, for safetensors."""
    encoded = [text.encode("utf-8") for text in texts.tolist()]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(one) for one in encoded], out=offsets[1:])
    blob = np.frombuffer(b"".join(encoded), dtype=np.uint8).copy()
    return {f"{prefix}.utf8": blob, f"{prefix}.offsets": offsets}


def texts_from_arrays(arrays: Mapping[str, np.ndarray], prefix: str) -> np.ndarray:
    """Inverse of `texts_to_arrays`.

    Raises:
        DataError: the arrays are missing or do not fit together.
    """
    try:
        blob, offsets = arrays[f"{prefix}.utf8"].tobytes(), arrays[f"{prefix}.offsets"]
    except KeyError as error:
        raise DataError(f"texts must be stored under {prefix!r}, found none") from error
    ends = offsets.tolist()
    if not ends or ends[0] != 0 or ends[-1] != len(blob) or (np.diff(offsets) < 0).any():
        raise DataError(f"{prefix} texts are damaged: offsets do not cover them")
    try:
        texts = [blob[a:b].decode("utf-8") for a, b in zip(ends, ends[1:], strict=False)]
    except UnicodeDecodeError as error:
        raise DataError(f"{prefix} texts are damaged: not UTF-8") from error
    return np.array(texts, dtype=np.str_) if texts else np.empty(0, np.str_)


def _normalise(values: Sequence[Id] | np.ndarray, what: str) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1:
        raise DataError(f"{what} ids must be one-dimensional, got shape {array.shape}")
    if array.size == 0:
        return array.astype(np.int64 if array.dtype.kind in "iuf" else np.str_)
    if array.dtype.kind == "O" or (array.dtype.kind == "U" and not isinstance(values, np.ndarray)):
        kinds = {
            str
            if isinstance(v, str)
            else int
            if isinstance(v, int | np.integer) and not isinstance(v, bool)
            else type(v)
            for v in values
        }
        if kinds not in ({str}, {int}):
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise DataError(f"{what} ids must be all int or all str, got {names}")
        array = np.asarray(list(values), dtype=np.str_ if kinds == {str} else np.int64)
    if array.dtype.kind == "u" and array.max() > np.iinfo(np.int64).max:
        raise DataError(f"{what} ids must fit int64, got {array.max()}; pass them as str")
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.dtype.kind == "U":
        return array.copy()
    raise DataError(f"{what} ids must be int or str, got dtype {array.dtype}")
