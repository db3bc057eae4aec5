"""Floor 2: delimited text and Parquet files -> polars frames whose columns are what was asked for.

Station: before the first arrow. Truncated, empty and mis-shaped files are refused here, by name.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from cfsae_fast.errors import DataError, require_extra

Kind = Literal["int", "float", "text", "id"]
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})$")  # 007 and 20-digit ids stay text
_SAMPLED_LINES = 1000
_TAIL_BYTES = 1 << 16


def polars() -> Any:
    """The polars module, or an error that says how to install it."""
    return require_extra("polars", extra="train", purpose="reading files")


def read_text_table(
    path: Path,
    kinds: Mapping[str, Kind],
    *,
    separator: str = ",",
    quoted: bool = True,
    header: Sequence[str] | None = None,
    ends_with_newline: bool = False,
) -> Any:
    """The columns `kinds` {name: kind} of a delimited UTF-8 file, as a polars frame.

    id: int64 if all the file's are plain integers, else text; read as polars categories so that
    the strings are stored once each. header: names where the file has none. ends_with_newline:
    the format always ends so; a file that does not was cut.

    Raises:
        DataError: no such file, empty, cut, wrong columns, not UTF-8, or a field of the wrong kind.
    """
    pl = polars()
    _require_file(path)
    found = list(header) if header else _header(path, separator, quoted)
    require_columns(path, kinds, found)
    check_complete(path, separator, len(found), quoted=quoted, strict=ends_with_newline)
    dtypes = {"int": pl.Int64, "float": pl.Float64, "text": pl.String, "id": pl.Categorical}
    schema = {name: dtypes[kinds[name]] if name in kinds else pl.String for name in found}
    options = {
        "separator": separator,
        "has_header": header is None,
        "quote_char": '"' if quoted else None,
    }
    whole = _whole_columns(path, kinds, found, options)
    with polars_errors(path):
        try:
            return _scan(path, schema | dict.fromkeys(whole, pl.Int64), options, list(kinds))
        except pl.exceptions.ComputeError:
            if not whole:
                raise
        return _scan(path, schema, options, list(kinds))


def read_parquet_table(path: Path, wanted: Mapping[str, bool]) -> Any:
    """Columns of a Parquet file as a polars frame; `wanted` {name: whether it must be there}.

    Raises:
        DataError: no such file, not Parquet, or a required column is missing.
    """
    pl = polars()
    _require_file(path)
    with polars_errors(path):
        found = pl.scan_parquet(path).collect_schema().names()
        require_columns(path, [name for name, needed in wanted.items() if needed], found)
        return pl.scan_parquet(path).select([name for name in wanted if name in found]).collect()


def table_columns(path: Path) -> list[str]:
    """Names of the columns of a .csv, .tsv or .parquet file."""
    _require_file(path)
    if path.suffix == ".parquet":
        with polars_errors(path):
            return polars().scan_parquet(path).collect_schema().names()
    return _header(path, separator_of(path), quoted=True)


def separator_of(path: Path) -> str:
    """A comma for .csv, a tab for everything else."""
    return "," if path.suffix == ".csv" else "\t"


def require_columns(path: Path, wanted: Any, found: Sequence[str]) -> None:
    """Raise DataError if a name of `wanted` is not among `found`."""
    missing = [name for name in wanted if name not in found]
    if missing:
        raise DataError(
            f"{path} must have the columns {list(wanted)}, got {list(found)} "
            f"(missing {', '.join(missing)})"
        )


def check_complete(
    path: Path, separator: str, n_fields: int, *, quoted: bool, strict: bool
) -> None:
    """Raise DataError if the last line was cut: no line end (`strict`), or too few fields."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _TAIL_BYTES))
        tail = file.read()
    if tail.endswith(b"\n"):
        return
    last = tail.rpartition(b"\n")[2].decode("utf-8", "replace")
    fields = _split(last, separator, quoted)
    if strict or len(fields) < n_fields:
        raise DataError(
            f"{path} must end with a whole line, got {last[:80]!r} with {len(fields)} of "
            f"{n_fields} fields and no line end: the file is truncated; copy or fetch it again"
        )


@contextmanager
def polars_errors(path: Path) -> Iterator[None]:
    """Turn what polars raises about a file into DataError."""
    pl = polars()
    try:
        yield
    except pl.exceptions.PolarsError as error:
        reason = " ".join(str(error).split("\n\n")[0].split())
        raise DataError(f"{path} must be a readable table, got: {reason}") from error


def _scan(path: Path, schema: Mapping[str, Any], options: dict[str, Any], keep: list[str]) -> Any:
    # lazily: columns that are not kept are never stored
    return polars().scan_csv(path, schema=dict(schema), **options).select(keep).collect()


def _whole_columns(
    path: Path, kinds: Mapping[str, Kind], found: Sequence[str], options: dict[str, Any]
) -> list[str]:
    """The id columns whose first lines all hold plain integers."""
    ids = [name for name, kind in kinds.items() if kind == "id"]
    if not ids:
        return []
    pl = polars()
    with polars_errors(path):
        schema = dict.fromkeys(found, pl.String)
        sample = pl.scan_csv(path, schema=schema, n_rows=_SAMPLED_LINES, **options).collect()
    return [name for name in ids if all(_WHOLE.match(text or "x") for text in sample[name])]


def _header(path: Path, separator: str, quoted: bool) -> list[str]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        line = file.readline()
    if not line.strip():
        raise DataError(f"{path} must start with a line of column names, got an empty one")
    return _split(line.rstrip("\r\n"), separator, quoted)


def _split(line: str, separator: str, quoted: bool) -> list[str]:
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    return next(csv.reader([line.rstrip("\r\n")], delimiter=separator, quoting=quoting), [])


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path} must be a file, got {'a directory' if path.is_dir() else 'none'}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} must hold data, got an empty file; copy or fetch it again")
