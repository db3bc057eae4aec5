"""Floor 2: one name or path -> one Dataset, by recognising what lies there.

Station: the door to (user, item) -> CSR.
"""

from __future__ import annotations

import os
from dataclasses import replace
from inspect import signature
from pathlib import Path

from cfsae_fast.data.dataset import Dataset
from cfsae_fast.data.fetching import fetch
from cfsae_fast.data.files import guess_columns, read_csv, read_parquet
from cfsae_fast.data.generated import generate
from cfsae_fast.data.layouts import (
    TagSource,
    read_lastfm,
    read_movielens,
    read_msd,
    read_shared,
)
from cfsae_fast.data.sources import FetchError, Progress
from cfsae_fast.errors import DataError

DEFAULT_NAME = "ml-latest-small"
_GENERATED = ("users", "items", "concepts", "seed", "mean_history")
_MARKS = {  # the file that tells a layout, in the order looked for
    "interactions.parquet": "Parquet",
    "ratings.csv": "MovieLens",
    "user_artists.dat": "HetRec Last.fm",
    "train_triplets.txt": "Taste Profile",
}


def load(source: str | Path, *, tags: TagSource = "auto") -> Dataset:
    """The data set at a path, of a name, or made up.

    source: a directory (Parquet, MovieLens, HetRec Last.fm or Taste Profile layout, also one
    level down in raw/), a .csv, .tsv or .parquet file with columns of the usual names, the name
    of a directory in one of `data_directories()`, or "generated:users=1000,items=500".
    tags: as `read_movielens`; of effect where items have genres.

    Raises:
        DataError: nothing of this name, an unknown layout (the message lists what was found), or
            what the reader raises.
    """
    text = str(source)
    if text == "generated" or text.startswith("generated:"):
        return generate(**_parse_generated(text))
    path = Path(source).expanduser()
    if path.is_file():
        return _load_file(path)
    if path.is_dir():
        return _load_directory(path, tags)
    for directory in data_directories():
        if (directory / text).is_dir():
            return _load_directory(directory / text, tags)
    known = sorted({path.name for where in data_directories() for path in _data_sets(where)})
    raise DataError(
        f"source must be a path, 'generated:...' or one of {known} in "
        f"{[str(where) for where in data_directories()]}, got {text!r}; "
        "fetch() brings ml-latest-small, ml-25m, ml-32m and msd"
    )


def data_directories() -> list[Path]:
    """Where names are looked up: CFSAE_DATA_DIR, ../shared/data, the cache; only existing ones."""
    candidates = [
        Path("..") / "shared" / "data",
        Path(__file__).resolve().parents[2] / ".." / "shared" / "data",
        cache_directory(),
    ]
    chosen = os.environ.get("CFSAE_DATA_DIR")
    if chosen:
        candidates.insert(0, Path(chosen))
    existing: dict[Path, Path] = {}
    for path in candidates:
        if path.is_dir():
            existing.setdefault(path.resolve(), path)
    return list(existing.values())


def cache_directory() -> Path:
    """$XDG_CACHE_HOME/cfsae_fast, else ~/.cache/cfsae_fast; fetched data sets go there."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "cfsae_fast"


def default_dataset(
    *,
    tags: TagSource = "auto",
    progress: Progress | None = None,
    base_url: str | None = None,
) -> tuple[Dataset, str]:
    """The demo's data and a sentence that says which.

    ml-latest-small from `data_directories()`; else fetched into `cache_directory()`; else, if that
    fails, a generated catalogue.
    """
    for directory in data_directories():
        path = directory / DEFAULT_NAME
        if path.is_dir():
            return load(path, tags=tags), f"{DEFAULT_NAME}, read from {path}"
    try:
        fetch(DEFAULT_NAME, cache_directory(), progress=progress, base_url=base_url)
        path = cache_directory() / DEFAULT_NAME
        return load(path, tags=tags), f"{DEFAULT_NAME}, fetched into {path}"
    except FetchError as error:
        return generate(), f"a generated catalogue, since {DEFAULT_NAME} was not to be had: {error}"


def _load_file(path: Path) -> Dataset:
    if path.name == "train_triplets.txt":
        return read_msd(path)
    if path.suffix not in (".csv", ".tsv", ".parquet"):
        raise DataError(f"{path} must be .csv, .tsv or .parquet, got {path.suffix!r}")
    guess = guess_columns(path, "user", "item")
    columns = {role: guess[role] for role in ("user", "item", "value", "timestamp")}
    read = read_parquet if path.suffix == ".parquet" else read_csv
    return Dataset(read(path, **columns), name=path.stem)


def _load_directory(path: Path, tags: TagSource) -> Dataset:
    for place in (path, path / "raw"):
        for mark, layout in _MARKS.items():
            if not (place / mark).is_file():
                continue
            if layout == "Parquet":
                return read_shared(place, tags=tags)
            if layout == "MovieLens":
                return read_movielens(place, tags=tags)
            if layout == "HetRec Last.fm":
                return read_lastfm(place)
            return _load_taste_profile(place)
    found = sorted(entry.name for entry in path.iterdir())[:20]
    raise DataError(
        f"{path} must hold one of {', '.join(f'{m} ({n})' for m, n in _MARKS.items())}, "
        f"got {found or 'an empty directory'}; read other files with read_csv or read_parquet"
    )


def _load_taste_profile(path: Path) -> Dataset:
    beside = [path / "song_tag_assignment.csv", path / "unique_tracks.txt"]
    tags_path, tracks_path = (file if file.is_file() else None for file in beside)
    dataset = read_msd(path / "train_triplets.txt", tags_path, tracks_path=tracks_path)
    return replace(dataset, name=path.resolve().name)


def _data_sets(directory: Path) -> list[Path]:
    return [
        path
        for path in directory.iterdir()
        if path.is_dir()
        and any((place / mark).is_file() for place in (path, path / "raw") for mark in _MARKS)
    ]


def generated_options(source: str) -> dict[str, int | float]:
    """What "generated:users=1000,..." asks for, defaults filled in.

    Raises:
        DataError: it is no such text, or sets something unknown.
    """
    if source.partition(":")[0] != "generated":
        raise DataError(f"source must begin with 'generated:', got {source!r}")
    defaults = {name: one.default for name, one in signature(generate).parameters.items()}
    return {**defaults, **_parse_generated(source)}


def _parse_generated(text: str) -> dict[str, int | float]:
    options: dict[str, int | float] = {}
    for part in filter(None, text.partition(":")[2].split(",")):
        name, _, number = part.partition("=")
        if name not in _GENERATED:
            raise DataError(f"generated: must set some of {_GENERATED}, got {part!r}")
        try:
            options[name] = float(number) if name == "mean_history" else int(number)
        except ValueError:
            raise DataError(f"generated: {name} must be a number, got {number!r}") from None
    return options
