"""Floor 2: filters in the order given; the order changes the result, so it is never implied.

Station: interactions -> CSR. MovieLens as the paper: Filters(MinValue(4), MinUserInteractions(5),
Binarize()); MSD: Filters(MinItemInteractions(200), MinUserInteractions(20), Binarize()).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cfsae_fast.data.interactions import Compacted, Interactions
from cfsae_fast.errors import DataError


@dataclass(frozen=True)
class MinValue:
    """Keep interactions of at least `value`."""

    value: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"value must be finite, got {self.value}")

    def __call__(self, interactions: Interactions) -> Interactions:
        return interactions.keep_pairs(interactions.values >= self.value)


@dataclass(frozen=True)
class MinUserInteractions:
    """Keep users with at least `count` interactions, counted once."""

    count: int

    def __post_init__(self) -> None:
        _check_count("count", self.count)

    def __call__(self, interactions: Interactions) -> Interactions:
        counts = interactions.counts_per_user()
        return interactions.keep_pairs(np.repeat(counts >= self.count, counts))


@dataclass(frozen=True)
class MinItemInteractions:
    """Keep items with at least `count` interactions, counted once."""

    count: int

    def __post_init__(self) -> None:
        _check_count("count", self.count)

    def __call__(self, interactions: Interactions) -> Interactions:
        keep = interactions.counts_per_item() >= self.count
        return interactions.keep_pairs(keep[interactions.items])


@dataclass(frozen=True)
class KCore:
    """Drop users below `user` and items below `item` interactions until nobody is left to drop."""

    user: int
    item: int

    def __post_init__(self) -> None:
        _check_count("user", self.user)
        _check_count("item", self.item)

    def __call__(self, interactions: Interactions) -> Interactions:
        users, items = interactions.users_of_pairs(), interactions.items
        left = np.arange(len(items))
        while True:
            user_counts = np.bincount(users[left], minlength=interactions.n_users)
            item_counts = np.bincount(items[left], minlength=interactions.n_items)
            keep = user_counts[users[left]] >= self.user
            keep &= item_counts[items[left]] >= self.item
            if keep.all():
                break
            left = left[keep]
        mask = np.zeros(len(items), dtype=bool)
        mask[left] = True
        return interactions.keep_pairs(mask)


@dataclass(frozen=True)
class Binarize:
    """Give every interaction the value 1."""

    def __call__(self, interactions: Interactions) -> Interactions:
        return interactions.binarized()


Step = MinValue | MinUserInteractions | MinItemInteractions | KCore | Binarize


@dataclass(frozen=True)
class Filters:
    """Steps applied one after another; users and items left empty are dropped at the end."""

    steps: tuple[Step, ...]

    def __init__(self, *steps: Step) -> None:
        for step in steps:
            if not isinstance(step, Step):
                raise TypeError(f"steps must be filters of cfsae_fast.data, got {step!r}")
        object.__setattr__(self, "steps", steps)

    def apply(self, interactions: Interactions) -> Interactions:
        """What the steps leave.

        Raises:
            DataError: nothing is left; the message names the step that took the last ones.
        """
        return self.run(interactions).interactions

    def run(self, interactions: Interactions) -> Compacted:
        """As `apply`, with the former positions of the users and items that are left."""
        for step in self.steps:
            before, interactions = interactions, step(interactions)
            if interactions.nnz == 0:
                raise DataError(
                    f"filters must leave an interaction, {step} left none of {before.nnz}; "
                    f"values were in [{before.values.min(initial=np.inf)}, "
                    f"{before.values.max(initial=-np.inf)}], at most "
                    f"{before.counts_per_user().max(initial=0)} per user and "
                    f"{before.counts_per_item().max(initial=0)} per item"
                )
        return interactions.compact()


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")
