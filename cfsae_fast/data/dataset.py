"""Floor 2: `Dataset`, interactions with their tags, titles and licence.

Station: what a reader gives and training takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from cfsae_fast.data.filters import Filters
from cfsae_fast.data.interactions import Interactions
from cfsae_fast.data.tags import Tags
from cfsae_fast.errors import DataError


@dataclass(frozen=True)
class Dataset:
    """Interactions and what is known about their items.

    titles: one per item position, or None; tags: None where the source has none; licence: the
    terms in words, empty where unknown.

    Raises:
        DataError: titles or tags do not fit the items.
    """

    interactions: Interactions
    tags: Tags | None = None
    titles: tuple[str, ...] | None = None
    name: str = "unnamed"
    licence: str = ""

    def __post_init__(self) -> None:
        n_items = self.interactions.n_items
        if self.titles is not None and len(self.titles) != n_items:
            raise DataError(f"titles must be one per item ({n_items}), got {len(self.titles)}")
        tags = self.tags
        if tags is not None and tags.n_assignments and tags.items.max() >= n_items:
            raise DataError(f"tags must name items in [0, {n_items}), got {tags.items.max()}")

    def __repr__(self) -> str:
        parts = [repr(self.name), repr(self.interactions), repr(self.tags)]
        return f"Dataset({', '.join(parts)})"

    def title(self, position: int) -> str:
        """The title of an item position, or its external id where no title is known."""
        if self.titles is None:
            return str(self.interactions.item_ids[position])
        return self.titles[position]

    def titles_of(self, positions: Iterable[int]) -> list[str]:
        """Titles of item positions."""
        return [self.title(int(position)) for position in positions]

    def filtered(self, filters: Filters) -> Dataset:
        """The data set after `filters`; tags and titles follow the items that are left.

        Raises:
            DataError: nothing is left.
        """
        kept = filters.run(self.interactions)
        tags = self.tags
        if tags is not None:
            tags = tags.moved(
                items=kept.items,
                users=kept.users,
                n_items=self.interactions.n_items,
                n_users=self.interactions.n_users,
            )
        titles = None if self.titles is None else tuple(self.titles[at] for at in kept.items)
        return replace(self, interactions=kept.interactions, tags=tags, titles=titles)

    def training_tags(self, users: np.ndarray) -> Tags | None:
        """Tags given by user positions `users` (and genres), or None without tags."""
        return None if self.tags is None else self.tags.for_users(users)
