"""Floor 2: a data set as a folder of Parquet files, which `load` reads back.

Station: made-up and filtered data sets on disk.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cfsae_fast.data.dataset import Dataset
from cfsae_fast.data.tables import polars
from cfsae_fast.data.tags import NOBODY, OUTSIDE, Tags
from cfsae_fast.errors import DataError


def write_parquet(dataset: Dataset, directory: str | Path) -> Path:
    """Write interactions.parquet, items.parquet and, with tags, tags.parquet or genres.

    Tags that nobody gave become genres; others keep their user. Returns the directory.

    Raises:
        DataError: the directory holds files already.
    """
    directory = Path(directory)
    if directory.exists() and any(directory.iterdir()):
        raise DataError(f"directory must be new or empty, got {directory}; choose another")
    directory.mkdir(parents=True, exist_ok=True)
    pl, inter = polars(), dataset.interactions
    events = {
        "user_id": inter.user_ids.values[inter.users_of_pairs()],
        "item_id": inter.item_ids.values[inter.items],
        "value": inter.values,
    }
    if inter.timestamps is not None:
        events["timestamp"] = inter.timestamps
    pl.DataFrame(events).write_parquet(directory / "interactions.parquet")
    items: dict[str, object] = {"item_id": inter.item_ids.values}
    if dataset.titles is not None:
        items["title"] = list(dataset.titles)
    if dataset.tags is not None and _is_genres(dataset.tags):
        items["genres"] = _lists(dataset.tags, inter.n_items)
    elif dataset.tags is not None:
        pl.DataFrame(_assignments(dataset)).write_parquet(directory / "tags.parquet")
    pl.DataFrame(items).write_parquet(directory / "items.parquet")
    return directory


def _is_genres(tags: Tags) -> bool:
    return tags.users is None or bool((tags.users == NOBODY).all())


def _lists(tags: Tags, n_items: int) -> list[list[str]]:
    found: list[list[str]] = [[] for _ in range(n_items)]
    for item, tag in zip(*tags.pairs(), strict=True):
        found[item].append(tags.names[tag])
    return found


def _assignments(dataset: Dataset) -> dict[str, object]:
    tags, inter = dataset.tags, dataset.interactions
    assert tags is not None and tags.users is not None
    kept = np.flatnonzero((tags.items != OUTSIDE) & (tags.users >= 0))
    return {
        "user_id": inter.user_ids.values[tags.users[kept]],
        "item_id": inter.item_ids.values[tags.items[kept]],
        "tag": [tags.names[at] for at in tags.tags[kept]],
        "weight": tags.weights[kept],
    }
