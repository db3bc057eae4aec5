"""Models and requests of the sizes that matter, without training: costs depend on shapes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cfsae_fast.concepts import ConceptMap
from cfsae_fast.ids import Ids
from cfsae_fast.inference import CFAENetwork, SAENetwork
from cfsae_fast.ops import Rows
from cfsae_fast.recommender.fitted import Fitted

LATENT, ALPHA = 7, 0.3  # the one concept's latent, and how far it is turned
WISH = {"one concept": ALPHA}


class Sizes(NamedTuple):
    n_items: int
    d: int
    n_latents: int
    k: int

    def __str__(self) -> str:
        return f"I={self.n_items} d={self.d} L={self.n_latents} k={self.k}"


FULL, QUICK = Sizes(40857, 1024, 8192, 32), Sizes(9724, 256, 2048, 32)


def unit_rows(n_rows: int, d: int, seed: int) -> np.ndarray:
    """Random directions (n_rows, d) float32: the hardest case for bounds on products."""
    drawn = np.random.default_rng(seed).standard_normal((n_rows, d), dtype=np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def make_fitted(sizes: Sizes) -> Fitted:
    """ELSA + TopK of random unit rows, with one concept."""
    items, dictionary = unit_rows(sizes.n_items, sizes.d, 0), unit_rows(sizes.n_latents, sizes.d, 1)
    concepts = ConceptMap(
        names=("one concept",),
        offsets=np.array([0, 1]),
        latents=np.array([LATENT]),
        weights=np.ones(1),
        scores=np.ones(1),
        counts=np.ones(1, dtype=np.int64),
        reasons={},
        method="best_characterizes",
        n_latents=sizes.n_latents,
    )
    return Fitted(
        cfae=CFAENetwork("elsa", items, items),
        sae=SAENetwork(
            "topk",
            dictionary,
            np.zeros(sizes.n_latents, np.float32),
            dictionary,
            np.zeros(sizes.d, np.float32),
            sizes.k,
            sizes.k,
        ),
        user_ids=Ids([0], what="user"),
        item_ids=Ids.range(sizes.n_items),
        histories=Rows(np.array([0, 0]), np.empty(0, np.int32)),
        cold=items.mean(axis=0),
        concepts=concepts,
    )


def draw_histories(n_items: int, batch: int, length: int, seed: int = 0) -> list[list[int]]:
    """`batch` histories of `length` different items (at most half of all)."""
    rng = np.random.default_rng(seed)
    length = min(length, n_items // 2)
    return [rng.choice(n_items, length, replace=False).tolist() for _ in range(batch)]
