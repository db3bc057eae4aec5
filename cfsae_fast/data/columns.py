"""Floor 2: one column of anybody's table -> numpy, ids -> positions; the first bad row is named.

Station: (user, item) -> CSR. Rows are counted from 0, after a header.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cfsae_fast.errors import DataError
from cfsae_fast.ids import Ids

_LARGEST_SPARE_TABLE = 1 << 20  # empty slots a direct id -> position table may always have


def column_names(frame: Any) -> list[str]:
    """Names of the columns of a polars or pandas frame, or of a mapping name -> array.

    Raises:
        TypeError: `frame` is none of these.
    """
    if isinstance(frame, Mapping):
        return [str(name) for name in frame]
    if hasattr(frame, "collect_schema"):
        return list(frame.collect_schema().names())
    if hasattr(frame, "columns"):
        return [str(name) for name in frame.columns]
    raise TypeError(
        "frame must be a polars or pandas frame or a mapping of columns, "
        f"got {type(frame).__name__}"
    )


def take_columns(frame: Any, wanted: Mapping[str, str | None], *, what: str) -> dict[str, Any]:
    """{role: column} for `wanted` {role: column name or None}; all of one length.

    Raises:
        DataError: a column is missing (the message names those found), or lengths differ.
    """
    wanted = {role: name for role, name in wanted.items() if name is not None}
    found = column_names(frame)
    missing = [name for name in wanted.values() if name not in found]
    if missing:
        raise DataError(
            f"{what} must have the column{'s' * (len(missing) > 1)} "
            f"{', '.join(map(repr, missing))}, got {found}; name them with "
            + ", ".join(f"{role}=" for role in wanted)
        )
    if hasattr(frame, "collect") and not isinstance(frame, Mapping):
        frame = frame.select(sorted(set(wanted.values()))).collect()
    columns = {role: frame[name] for role, name in wanted.items()}
    lengths = {role: len(column) for role, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{what} must have columns of one length, got {lengths}")
    return columns


def encode_ids(column: Any, *, what: str) -> tuple[np.ndarray, Ids]:
    """Positions (n,) int32 of a column of ids among its distinct ids, which come sorted.

    Integers sort by number, strings by code point; so positions do not depend on row order.

    Raises:
        DataError: ids are missing, mixed, fractional, or beyond int64.
    """
    column = _without_wrapping(column, what)
    if _is_polars_text(column):
        codes, values = _encode_polars_text(column, what)
    else:
        codes, values = _encode_array(_id_array(column, what))
    if len(values) > np.iinfo(np.int32).max:
        raise DataError(f"{what} ids must be fewer than 2**31, got {len(values)} distinct ones")
    return codes.astype(np.int32, copy=False), Ids(values, what=what)


def numbers(column: Any, *, what: str) -> np.ndarray:
    """The column as float64 (n,): missing values become NaN.

    Raises:
        DataError: the column is not numeric.
    """
    array = np.asarray(column.to_numpy() if hasattr(column, "to_numpy") else column)
    if array.dtype.kind not in "iufb" and array.dtype.kind != "O":
        raise DataError(f"{what} must be numbers, got dtype {array.dtype}")
    try:
        return array.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} must be numbers, got {error}") from error


def check_values(column: Any, *, what: str, allow_negative: bool = False) -> np.ndarray:
    """The column as float32 (n,), all finite, none negative.

    Raises:
        DataError: not numeric, or NaN, infinite or negative; the first such row is named.
    """
    wide = numbers(column, what=what)
    with np.errstate(over="ignore"):
        values = wide.astype(np.float32)
    bad = ~np.isfinite(values)
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{what} must be finite float32, got {wide[at]} at row {at} "
            f"({int(bad.sum())} such rows); drop them or fill them in"
        )
    if not allow_negative and (values < 0).any():
        at = int(np.flatnonzero(values < 0)[0])
        raise DataError(
            f"{what} must not be negative, got {values[at]} at row {at} "
            f"({int((values < 0).sum())} such rows); filter them out or pass allow_negative=True"
        )
    return values


def check_timestamps(column: Any) -> np.ndarray:
    """The column as int64 (n,): numbers as they are, dates as seconds since 1970.

    Raises:
        DataError: missing or not a time; the first such row is named.
    """
    array = np.asarray(column.to_numpy() if hasattr(column, "to_numpy") else column)
    if array.dtype.kind == "M":
        missing = np.isnat(array)
        array = array.astype("datetime64[s]").astype(np.int64)
    elif array.dtype.kind in "iu":
        return array.astype(np.int64)
    else:
        wide = numbers(array, what="timestamps")
        missing = ~np.isfinite(wide)
        array = np.where(missing, 0, wide).astype(np.int64)
    if missing.any():
        at = int(np.flatnonzero(missing)[0])
        raise DataError(f"timestamps must not be missing, got none at row {at}")
    return array


def _without_wrapping(column: Any, what: str) -> Any:
    """A polars series as it is, if text; anything else as an array or a list."""
    if _is_polars_text(column):
        return column
    nulls = getattr(column, "null_count", None)
    if callable(nulls) and nulls():  # polars numbers: to_numpy would turn them to floats
        _missing(what, int(np.flatnonzero(column.is_null().to_numpy())[0]))
    return column.to_numpy() if hasattr(column, "to_numpy") else column


def _id_array(column: Any, what: str) -> np.ndarray:
    array = column if isinstance(column, np.ndarray) else np.asarray(column, dtype=object)
    if array.ndim != 1:
        raise DataError(f"{what} ids must be one-dimensional, got shape {array.shape}")
    if array.dtype.kind == "f":
        bad = ~np.isfinite(array)
        if bad.any():
            _missing(what, int(np.flatnonzero(bad)[0]))
    if array.dtype.kind == "O":
        return _plain_objects(array, what)
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise DataError(f"{what} ids must fit int64, got {array.max()}; pass them as str")
    if array.dtype.kind in "iu":
        return array.astype(np.int64, copy=False)
    if array.dtype.kind != "U":
        raise DataError(
            f"{what} ids must be int or str, got dtype {array.dtype}; cast the column first"
        )
    return array


def _plain_objects(array: np.ndarray, what: str) -> np.ndarray:
    kinds = np.array([_kind(value) for value in array.tolist()])
    if (kinds == "missing").any():
        _missing(what, int(np.flatnonzero(kinds == "missing")[0]))
    found = sorted(set(kinds.tolist()))
    if len(found) > 1:
        at = int(np.flatnonzero(kinds != kinds[0])[0])
        raise DataError(
            f"{what} ids must be all int or all str, got {' and '.join(found)} "
            f"({array[0]!r} at row 0, {array[at]!r} at row {at}); cast the column to one of them"
        )
    if found not in ([], ["int"], ["str"]):
        raise DataError(f"{what} ids must be int or str, got {found[0]}; cast the column first")
    try:
        return array.astype(np.int64 if found == ["int"] else np.str_)
    except OverflowError as error:
        raise DataError(
            f"{what} ids must fit int64, got {max(array.tolist(), key=abs)}; pass them as str"
        ) from error


def _kind(value: object) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "missing"
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas' marks, without importing pandas
        return "missing"
    if isinstance(value, str):
        return "str"
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return "int"
    return type(value).__name__


def _missing(what: str, at: int) -> None:
    raise DataError(f"{what} ids must not be missing, got none at row {at}; drop the row")


def _encode_array(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if array.size == 0 or array.dtype.kind == "U":
        values, codes = np.unique(array, return_inverse=True)
        return codes.reshape(-1), values
    low, high = int(array.min()), int(array.max())
    if high - low > 4 * array.size + _LARGEST_SPARE_TABLE:
        values, codes = np.unique(array, return_inverse=True)
        return codes.reshape(-1), values
    # ids of real data sets are nearly dense: a table is ten times faster than a sort
    present = np.zeros(high - low + 1, dtype=bool)
    shifted = array - low
    present[shifted] = True
    position = np.cumsum(present, dtype=np.int32) - 1
    return position[shifted], np.flatnonzero(present) + low


def _is_polars_text(column: Any) -> bool:
    return type(column).__module__.startswith("polars.") and str(column.dtype).startswith(
        ("String", "Utf8", "Categorical", "Enum")
    )


def _encode_polars_text(series: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    import polars as pl

    if series.null_count():
        _missing(what, int(np.flatnonzero(series.is_null().to_numpy())[0]))
    if series.dtype == pl.String:
        series = series.cast(pl.Categorical)
    distinct = series.unique()
    names = np.asarray(distinct.cast(pl.String).to_list(), dtype=np.str_)
    codes = distinct.to_physical().to_numpy()
    order = np.argsort(names, kind="stable")
    if not len(order):
        return np.empty(0, np.int32), names
    position = np.zeros(int(codes.max()) + 1, dtype=np.int32)
    position[codes[order]] = np.arange(len(order), dtype=np.int32)
    return position[series.to_physical().to_numpy()], names[order]
