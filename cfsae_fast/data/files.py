"""Floor 2: anybody's CSV, TSV and Parquet files, by column names.

Station: (user, item) -> CSR.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cfsae_fast.data.interactions import Duplicates, Interactions
from cfsae_fast.data.tables import (
    read_parquet_table,
    read_text_table,
    separator_of,
    table_columns,
)
from cfsae_fast.data.tags import Tags
from cfsae_fast.errors import DataError
from cfsae_fast.ids import Ids

# what files in the wild call their columns; looked for only where the caller names none
ALIASES = {
    "user": ("user", "user_id", "userId", "userID", "uid"),
    "item": ("item", "item_id", "itemId", "movieId", "artistID", "song", "song_id", "track", "iid"),
    "value": ("value", "rating", "weight", "count", "plays", "score"),
    "timestamp": ("timestamp", "time", "ts"),
    "tag": ("tag", "genre", "label", "name"),
}


def read_csv(
    path: str | Path,
    *,
    user: str = "user",
    item: str = "item",
    value: str | None = None,
    timestamp: str | None = None,
    separator: str | None = None,
    duplicates: Duplicates = "last",
    allow_negative: bool = False,
) -> Interactions:
    """Interactions from a delimited UTF-8 file with a line of column names.

    separator None: a comma for .csv, else a tab. Ids are integers if all of a column are, else
    strings (007 and numbers beyond int64 are strings). Other arguments as
    `Interactions.from_frame`.

    Raises:
        DataError: the file is missing, empty, cut, or has not these columns; or what
            `Interactions.from_frame` raises.
    """
    roles = {"user": user, "item": item, "value": value, "timestamp": timestamp}
    frame = _read(Path(path), roles, separator)
    return _interactions(Path(path), frame, roles, duplicates, allow_negative)


def read_parquet(
    path: str | Path,
    *,
    user: str = "user",
    item: str = "item",
    value: str | None = None,
    timestamp: str | None = None,
    duplicates: Duplicates = "last",
    allow_negative: bool = False,
) -> Interactions:
    """Interactions from a Parquet file; arguments as `Interactions.from_frame`.

    Raises:
        DataError: the file is missing or not Parquet, or has not these columns; or what
            `Interactions.from_frame` raises.
    """
    roles = {"user": user, "item": item, "value": value, "timestamp": timestamp}
    columns = {name: True for name in roles.values() if name is not None}
    frame = read_parquet_table(Path(path), columns)
    return _interactions(Path(path), frame, roles, duplicates, allow_negative)


def read_tags(
    path: str | Path,
    *,
    item_ids: Ids,
    user_ids: Ids | None = None,
    item: str = "item",
    tag: str = "tag",
    weight: str | None = None,
    user: str | None = None,
) -> Tags:
    """Tags from a CSV, TSV or Parquet file; arguments as `Tags.from_frame`.

    Raises:
        DataError: the file is missing, empty, cut, or has not these columns; or what
            `Tags.from_frame` raises.
    """
    path = Path(path)
    roles = {"user": user, "item": item, "tag": tag, "value": weight}
    frame = _read(path, roles, None, as_text=_text_items(item, user, item_ids, user_ids))
    return Tags.from_frame(
        frame,
        item_ids=item_ids,
        user_ids=user_ids,
        item=item,
        tag=tag,
        weight=weight,
        user=user,
    )


def guess_columns(path: Path, *needed: str) -> dict[str, str | None]:
    """{role: column} of a file by the names of `ALIASES`; roles beyond `needed` may be None.

    Raises:
        DataError: a needed role has no column of a known name.
    """
    found = table_columns(path)
    guess = {
        role: next((name for name in names if name in found), None)
        for role, names in ALIASES.items()
    }
    for role in needed:
        if guess[role] is None:
            raise DataError(
                f"{path} must have a {role} column (one of {', '.join(ALIASES[role])}), got "
                f"{found}; name it with read_csv or read_parquet ({role}=...)"
            )
    return guess


def _read(
    path: Path, roles: dict[str, str | None], separator: str | None, as_text: tuple[str, ...] = ()
) -> Any:
    named = {role: name for role, name in roles.items() if name is not None}
    if path.suffix == ".parquet":
        return read_parquet_table(path, dict.fromkeys(named.values(), True))
    kinds = {"user": "id", "item": "id", "value": "float", "timestamp": "int", "tag": "text"}
    columns = {name: kinds[role] for role, name in named.items()}
    columns |= dict.fromkeys((name for name in as_text if name in columns), "text")
    return read_text_table(path, columns, separator=separator or separator_of(path))


def _text_items(
    item: str, user: str | None, item_ids: Ids, user_ids: Ids | None
) -> tuple[str, ...]:
    """Id columns to read as text because the interactions' ids are: "12" must stay "12"."""
    names = [item] if item_ids.is_text else []
    if user is not None and user_ids is not None and user_ids.is_text:
        names.append(user)
    return tuple(names)


def _interactions(
    path: Path,
    frame: Any,
    roles: dict[str, str | None],
    duplicates: Duplicates,
    allow_negative: bool,
) -> Interactions:
    try:
        return Interactions.from_frame(
            frame, **roles, duplicates=duplicates, allow_negative=allow_negative
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
