"""Floor 2: a made-up catalogue with planted concepts, for tests, benchmarks and empty machines.

Station: (user, item) -> CSR, any number of them. Users come in blocks that depend on (seed, block)
alone, so that 100M interactions stream through the memory of one block, and the first n users
are the same whatever n is. Draws follow power laws in closed form: no tables, no search.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cfsae_fast.data.dataset import Dataset
from cfsae_fast.data.interactions import Interactions
from cfsae_fast.data.randomness import salt
from cfsae_fast.data.tags import Tags
from cfsae_fast.ids import Ids
from cfsae_fast.ops.containers import Rows

BLOCK_USERS = 8192  # a block of 100-item histories takes about 100 MB while it is made
TASTES = 3  # concepts a user mixes, 58 / 24 / 18 %: floor(3 u^2)
POPULAR_SHARE = 0.2  # of a history drawn from the whole catalogue, the rest from the concepts
_SKEW = 3.0  # rank = floor(n u^3): the first hundredth of a list gets 22 % of its draws
SHORTEST_HISTORY = 5


@dataclass(frozen=True)
class Catalogue:
    """Items and their concepts; everything a block of users is drawn from.

    concept_offsets (C + 1,) int64, concept_items (m,) int32: items of concept c from the most to
    the least popular; by_popularity (I,) int32: all items, likewise.
    """

    concept_offsets: np.ndarray
    concept_items: np.ndarray
    by_popularity: np.ndarray

    @property
    def n_items(self) -> int:
        return len(self.by_popularity)

    @property
    def n_concepts(self) -> int:
        return len(self.concept_offsets) - 1

    def tags(self) -> Tags:
        """The planted concepts as tags "concept-03"."""
        concepts = np.repeat(np.arange(self.n_concepts), np.diff(self.concept_offsets))
        width = max(2, len(str(self.n_concepts - 1)))
        names = tuple(f"concept-{at:0{width}d}" for at in range(self.n_concepts))
        weights = np.ones(len(concepts), dtype=np.float32)
        return Tags(names, concepts.astype(np.int32), self.concept_items, weights)

    def odds(self) -> np.ndarray:
        """(C + 1, I): what a draw from each concept is, and last one from the whole catalogue."""
        out = np.zeros((self.n_concepts + 1, self.n_items))
        spans = zip(self.concept_offsets, self.concept_offsets[1:], strict=False)
        lists = [*(self.concept_items[low:high] for low, high in spans), self.by_popularity]
        for row, items in zip(out, lists, strict=True):
            row[items] = np.diff((np.arange(len(items) + 1) / len(items)) ** (1 / _SKEW))
        return out

    def titles(self) -> tuple[str, ...]:
        """Titles "concept-03 item 17", by the first concept of each item."""
        tags = self.tags()
        first = np.full(self.n_items, self.n_concepts)
        np.minimum.at(first, tags.items, tags.tags)
        return tuple(f"{tags.names[concept]} item {at}" for at, concept in enumerate(first))


def catalogue(items: int, concepts: int, *, seed: int = 42) -> Catalogue:
    """Deal 1 to 3 concepts to each item; every concept gets at least items // concepts.

    Raises:
        ValueError: there are no items or concepts, or more concepts than items.
    """
    if not 1 <= concepts <= items:
        raise ValueError(f"concepts must be in [1, items={items}], got {concepts}")
    if items >= 2**31:
        raise ValueError(f"items must be fewer than 2**31, got {items}")
    random = _generator(seed, "catalogue")
    by_popularity = random.permutation(items).astype(np.int32)
    rank = np.empty(items, dtype=np.int64)
    rank[by_popularity] = np.arange(items)
    own = random.permutation(items) % concepts
    more = random.integers(0, concepts, size=(items, 2))
    has_more = random.random((items, 2)) < (0.5, 0.25)
    item = np.concatenate([np.arange(items), *(np.flatnonzero(has) for has in has_more.T)])
    concept = np.concatenate([own, *(m[h] for m, h in zip(more.T, has_more.T, strict=True))])
    key = np.unique(concept * np.int64(items) + rank[item])
    concept, rank_of = np.divmod(key, items)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(concept, minlength=concepts))])
    return Catalogue(offsets.astype(np.int64), by_popularity[rank_of], by_popularity)


def stream(
    users: int, items: int, concepts: int, *, seed: int = 42, mean_history: float = 50.0
) -> Iterator[Rows]:
    """Histories of all users, BLOCK_USERS at a time, as Rows with values None.

    mean_history: draws per user on average (a geometric number, at least 5); repeats merge, so
    that histories in small catalogues are shorter. Items in a row ascend. Memory: one block.

    Raises:
        ValueError: a count is out of range.
    """
    if users < 1:
        raise ValueError(f"users must be at least 1, got {users}")
    if not mean_history > SHORTEST_HISTORY:
        raise ValueError(f"mean_history must be above {SHORTEST_HISTORY}, got {mean_history}")
    things = catalogue(items, concepts, seed=seed)

    def blocks() -> Iterator[Rows]:
        for block in range(-(-users // BLOCK_USERS)):
            size = min(BLOCK_USERS, users - block * BLOCK_USERS)
            yield _block(things, block, size, seed=seed, mean_history=mean_history)

    return blocks()


def generate(
    users: int = 2000,
    items: int = 1000,
    concepts: int = 20,
    *,
    seed: int = 42,
    mean_history: float = 50.0,
) -> Dataset:
    """The whole of `stream` as a Dataset, with concepts as tags and titles that name them.

    Ids are positions. Items that nobody took are columns too.

    Raises:
        ValueError: a count is out of range.
    """
    rows = list(stream(users, items, concepts, seed=seed, mean_history=mean_history))
    ends = np.cumsum([0] + [block.offsets[-1] for block in rows])
    offsets = [block.offsets[1:] + end for block, end in zip(rows, ends, strict=False)]
    chosen = np.concatenate([block.items for block in rows])
    interactions = Interactions(
        np.concatenate([np.zeros(1, np.int64), *offsets]),
        chosen,
        np.ones(len(chosen), dtype=np.float32),
        None,
        Ids.range(users, what="user"),
        Ids.range(items, what="item"),
    )
    things = catalogue(items, concepts, seed=seed)
    name = f"generated:users={users},items={items},concepts={concepts},seed={seed}"
    return Dataset(interactions, things.tags(), things.titles(), name, "generated: no terms")


def preferences(users: int, concepts: int, *, seed: int = 42) -> np.ndarray:
    """(users, concepts): the planted share of each concept in a user's taste, of sum 1.

    What the histories of `stream` are drawn by; POPULAR_SHARE of a history follows no taste.
    """
    parts = []
    for block in range(-(-users // BLOCK_USERS)):
        size = min(BLOCK_USERS, users - block * BLOCK_USERS)
        part = np.zeros((size, concepts))
        tastes = _tastes(seed, block, size, concepts)
        for slot, share in enumerate(slot_shares()):
            np.add.at(part, (np.arange(size), tastes[:, slot]), share)
        parts.append(part)
    return np.concatenate(parts)


def slot_shares() -> np.ndarray:
    """How a user's tastes are mixed: 58, 24 and 18 %."""
    return np.diff(np.sqrt(np.arange(TASTES + 1) / TASTES))


def _tastes(seed: int, block: int, size: int, concepts: int) -> np.ndarray:
    drawn = _generator(seed, "tastes", block).random((size, TASTES))
    return (drawn * concepts).astype(np.int64)


def _block(things: Catalogue, block: int, size: int, *, seed: int, mean_history: float) -> Rows:
    # one generator per quantity: a shorter block uses a prefix of each and so has the same users
    def uniform(purpose: str, *shape: int) -> np.ndarray:
        return _generator(seed, purpose, block).random(shape)

    extra = np.log1p(-uniform("lengths", size)) / np.log1p(-1 / (mean_history - 4.0))
    draws = SHORTEST_HISTORY + np.floor(extra).astype(np.int64)
    user = np.repeat(np.arange(size), draws)
    total = len(user)
    tastes = _tastes(seed, block, size, things.n_concepts)
    slot = (uniform("slots", total) ** 2 * TASTES).astype(np.int64)
    concept = tastes[user, slot]
    place = uniform("ranks", total) ** _SKEW
    start = things.concept_offsets[concept]
    count = things.concept_offsets[concept + 1] - start
    item = things.concept_items[start + (place * count).astype(np.int64)]
    popular = uniform("sources", total) < POPULAR_SHARE
    item[popular] = things.by_popularity[(place[popular] * things.n_items).astype(np.int64)]
    key = np.sort(user * things.n_items + item)
    key = key[np.concatenate([[True], key[1:] != key[:-1]])]
    user, item = np.divmod(key, things.n_items)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=size))])
    return Rows(offsets.astype(np.int64), item.astype(np.int32), None)


def _generator(seed: int, purpose: str, block: int = 0) -> np.random.Generator:
    key = np.array([salt(seed, purpose), block], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
