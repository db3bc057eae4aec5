"""Floor 2: the directories in which public data sets come, each read whole into a Dataset.

Station: (user, item) -> CSR, tags and titles beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cfsae_fast.data import licences
from cfsae_fast.data.dataset import Dataset
from cfsae_fast.data.files import guess_columns, read_tags
from cfsae_fast.data.interactions import Interactions
from cfsae_fast.data.tables import polars, read_parquet_table, read_text_table
from cfsae_fast.data.tags import Tags
from cfsae_fast.errors import DataError
from cfsae_fast.ids import Ids

TagSource = Literal["auto", "tags", "genres", "both", "none"]
TAG_SOURCES = ("auto", "tags", "genres", "both", "none")
_NO_GENRE = "(no genres listed)"


def read_movielens(directory: str | Path, *, tags: TagSource = "auto") -> Dataset:
    """MovieLens latest-small, latest, 20M, 25M or 32M: ratings.csv, movies.csv, tags.csv.

    tags: users' free words (`tags`), movies' `genres`, `both`, `none`, or `auto`: the words where
    there are any, else the genres.

    Raises:
        DataError: a file is missing, cut, or has other columns; a rating is not a number.
    """
    directory = Path(directory)
    _check_source(tags)
    ratings = _table(
        directory / "ratings.csv",
        {"userId": "int", "movieId": "int", "rating": "float", "timestamp": "int"},
    )
    interactions = _from_frame(
        directory, ratings, user="userId", item="movieId", value="rating", timestamp="timestamp"
    )
    del ratings
    movies = _table(directory / "movies.csv", {"movieId": "int", "title": "text", "genres": "text"})
    at = interactions.item_ids.lookup(movies["movieId"].to_list())
    words = None
    if tags not in ("genres", "none") and (directory / "tags.csv").exists():
        frame = _table(directory / "tags.csv", {"userId": "int", "movieId": "int", "tag": "text"})
        words = Tags.from_frame(
            frame,
            item_ids=interactions.item_ids,
            user_ids=interactions.user_ids,
            item="movieId",
            user="userId",
        )
    texts = movies["genres"].to_list()
    genres = [[] if text in (None, _NO_GENRE) else text.split("|") for text in texts]
    return Dataset(
        interactions,
        _choose(tags, words, _genre_tags(genres, at, interactions.n_items), directory),
        _titles(movies["title"].to_list(), at, interactions.item_ids),
        _name(directory),
        licences.GROUPLENS,
    )


def read_lastfm(directory: str | Path) -> Dataset:
    """HetRec 2011 Last.fm 2k: user_artists.dat, artists.dat, tags.dat, user_taggedartists.dat.

    Values are listening counts. Tagged artists nobody listened to stay in `tags` as OUTSIDE;
    artists without a name get their id as title. Text that is not UTF-8 is read as Latin-1.

    Raises:
        DataError: a file is missing, cut, or has other columns.
    """
    directory = Path(directory)
    listens = _table(
        directory / "user_artists.dat", {"userID": "int", "artistID": "int", "weight": "float"}
    )
    interactions = _from_frame(directory, listens, user="userID", item="artistID", value="weight")
    artists = _table(directory / "artists.dat", {"id": "int", "name": "text"})
    names = _table(directory / "tags.dat", {"tagID": "int", "tagValue": "text"})
    given = _table(
        directory / "user_taggedartists.dat", {"userID": "int", "artistID": "int", "tagID": "int"}
    )
    tags = Tags.from_frame(
        given.join(names, on="tagID", how="left"),  # a tag without a name is dropped by cleaning
        item_ids=interactions.item_ids,
        user_ids=interactions.user_ids,
        item="artistID",
        tag="tagValue",
        user="userID",
    )
    at = interactions.item_ids.lookup(artists["id"].to_list())
    titles = _titles(artists["name"].to_list(), at, interactions.item_ids)
    return Dataset(interactions, tags, titles, _name(directory), licences.LASTFM)


def read_msd(
    triplets_path: str | Path,
    tags_path: str | Path | None = None,
    *,
    tracks_path: str | Path | None = None,
) -> Dataset:
    """The Taste Profile's train_triplets.txt: user, song, play count, tab-separated, no header.

    tags_path: CSV, TSV or Parquet with columns song, tag and optionally weight (Last.fm's tags
    joined to songs are not distributed with it). tracks_path: unique_tracks.txt of the Million
    Song Dataset, for titles.

    Raises:
        DataError: a file is missing, cut, or not of this form.
    """
    path = Path(triplets_path)
    frame = read_text_table(
        path,
        {"user": "id", "song": "id", "count": "float"},
        separator="\t",
        quoted=False,
        header=("user", "song", "count"),
        ends_with_newline=True,
    )
    interactions = _from_frame(
        path, frame, user="user", item="song", value="count", duplicates="sum"
    )
    del frame
    tags = titles = None
    if tags_path is not None:
        tags = _song_tags(Path(tags_path), interactions.item_ids)
    if tracks_path is not None:
        titles = _track_titles(Path(tracks_path), interactions.item_ids)
    return Dataset(interactions, tags, titles, "msd", licences.TASTE_PROFILE)


def read_shared(directory: str | Path, *, tags: TagSource = "auto") -> Dataset:
    """A directory of interactions.parquet with items.parquet and tags.parquet where there are.

    Columns: user_id, item_id, value and timestamp (both optional); item_id, title, genres (a list
    of strings); user_id (optional), item_id, tag, weight (optional).

    Raises:
        DataError: a file is missing a column or is not Parquet.
    """
    directory = Path(directory)
    _check_source(tags)
    optional = {"value": False, "timestamp": False}
    events = read_parquet_table(
        directory / "interactions.parquet", {"user_id": True, "item_id": True} | optional
    )
    roles = {name: name if name in events.columns else None for name in optional}
    interactions = _from_frame(directory, events, user="user_id", item="item_id", **roles)
    titles = genres = words = None
    if (directory / "items.parquet").exists():
        items = read_parquet_table(
            directory / "items.parquet", {"item_id": True, "title": False, "genres": False}
        )
        at = interactions.item_ids.lookup(items["item_id"].to_list())
        if "title" in items.columns:
            titles = _titles(items["title"].to_list(), at, interactions.item_ids)
        if "genres" in items.columns:
            genres = _genre_tags(items["genres"].to_list(), at, interactions.n_items)
    if tags not in ("genres", "none") and (directory / "tags.parquet").exists():
        words = _shared_tags(directory / "tags.parquet", interactions)
    chosen = _choose(tags, words, genres, directory)
    return Dataset(interactions, chosen, titles, _name(directory), _licence(directory))


def _shared_tags(path: Path, interactions: Interactions) -> Tags:
    frame = read_parquet_table(
        path, {"user_id": False, "item_id": True, "tag": True, "weight": False}
    )
    return Tags.from_frame(
        frame,
        item_ids=interactions.item_ids,
        user_ids=interactions.user_ids,
        item="item_id",
        weight="weight" if "weight" in frame.columns else None,
        user="user_id" if "user_id" in frame.columns else None,
    )


def _table(path: Path, kinds: Mapping[str, Any]) -> Any:
    """A published file: .csv is quoted, .dat is tab-separated, unquoted and of any encoding."""
    if path.suffix == ".csv":
        return read_text_table(path, kinds, ends_with_newline=True)
    try:
        return read_text_table(path, kinds, separator="\t", quoted=False, ends_with_newline=True)
    except DataError as error:
        if "utf-8" not in str(error):
            raise
    text = path.read_bytes().decode("latin-1")
    lines = [line.split("\t") for line in text.splitlines()]
    columns = {name: [fields[lines[0].index(name)] for fields in lines[1:]] for name in kinds}
    pl = polars()
    whole = [name for name, kind in kinds.items() if kind == "int"]
    return pl.DataFrame(columns).with_columns(pl.col(whole).cast(pl.Int64))


def _from_frame(path: Path, frame: Any, **roles: Any) -> Interactions:
    try:
        return Interactions.from_frame(frame, **roles)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _titles(names: list[str | None], at: np.ndarray, item_ids: Ids) -> tuple[str, ...]:
    """One title per item; names[j] belongs to position at[j] (-1: none); ids fill the gaps."""
    titles = [str(value) for value in item_ids.values.tolist()]
    for position, name in zip(at.tolist(), names, strict=True):
        if position >= 0 and name:
            titles[position] = name.strip()
    return tuple(titles)


def _genre_tags(lists: list[Any], at: np.ndarray, n_items: int) -> Tags:
    of_item: list[list[str]] = [[] for _ in range(n_items)]
    for position, genres in zip(at.tolist(), lists, strict=True):
        if position >= 0:
            of_item[position] = list(genres or ())
    return Tags.from_lists(of_item)


def _check_source(tags: str) -> None:
    if tags not in TAG_SOURCES:
        raise ValueError(f"tags must be one of {TAG_SOURCES}, got {tags!r}")


def _choose(source: str, words: Tags | None, genres: Tags | None, directory: Path) -> Tags | None:
    words = words if words is not None and words.n_assignments else None
    genres = genres if genres is not None and genres.n_assignments else None
    if source == "none":
        return None
    if source == "auto":
        return words if words is not None else genres
    if source == "both" and words is not None and genres is not None:
        return words.merged(genres)
    wanted = {"tags": words, "genres": genres, "both": words or genres}[source]
    if wanted is None:
        raise DataError(f"{directory} must have {source} for tags={source!r}, got none")
    return wanted


def _name(directory: Path) -> str:
    directory = directory.resolve()
    return directory.parent.name if directory.name == "raw" else directory.name


def _licence(directory: Path) -> str:
    """The paragraph under "## Licence" of the directory's README.md, if there is one."""
    readme = directory / "README.md"
    if not readme.exists():
        return ""
    _, _, after = readme.read_text(encoding="utf-8", errors="replace").partition("## Licence\n")
    return after.partition("\n#")[0].strip()


def _song_tags(path: Path, item_ids: Ids) -> Tags:
    columns = guess_columns(path, "item", "tag")
    return read_tags(
        path,
        item_ids=item_ids,
        item=columns["item"],
        tag=columns["tag"],
        weight=columns["value"],
    )


def _track_titles(path: Path, item_ids: Ids) -> tuple[str, ...]:
    """Lines track<SEP>song<SEP>artist<SEP>title; the first track of a song names it."""
    titles: dict[str, str] = {}
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file):
            fields = line.rstrip("\n").split("<SEP>")
            if len(fields) != 4:
                raise DataError(
                    f"{path} must hold 4 fields between <SEP>, got {len(fields)} in line {number}"
                )
            titles.setdefault(fields[1], f"{fields[2]} - {fields[3]}")
    return tuple(titles.get(str(song), str(song)) for song in item_ids.values.tolist())
