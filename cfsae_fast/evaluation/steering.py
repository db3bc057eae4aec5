"""Floor 6: do the knobs obey? A concept's share in the top-n as its knob is turned.

Station: steer -> top-N, for many users, concepts and strengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cfsae_fast import metrics
from cfsae_fast.ops import Rows
from cfsae_fast.recommender import Fitted, pipeline
from cfsae_fast.recommender.inputs import Request
from cfsae_fast.steering import boost, suppress

ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


class Obedience(NamedTuple):
    """How one concept answers its knob, averaged over users.

    shares: mean share of the top-n at each alpha of a boost. rank_correlation: Spearman of shares
    with alphas. suppressed: mean share under suppress; suppressed_ratio: of the unsteered share
    (NaN where that is 0).
    """

    concept: str
    n_items: int
    alphas: tuple[float, ...]
    shares: tuple[float, ...]
    rank_correlation: float
    suppressed: float
    suppressed_ratio: float


def obedience(
    fitted: Fitted,
    rows: Rows,
    concept: str,
    items: np.ndarray,
    *,
    alphas: Sequence[float] = ALPHAS,
    n: int = 20,
    mode: str = "residual",
) -> Obedience:
    """Turn one concept's knob for all `rows` and watch its share.

    items: (I,) bool, which items carry the concept. alphas: rising, the first one the baseline.
    """
    embedding = pipeline.embed(fitted, Request(rows, None, False))

    def share(turns: list) -> float:
        steered = pipeline.steer(fitted, embedding, [turns] * len(embedding), mode=mode)
        ids = pipeline.top(fitted, steered, n, seen=rows).ids
        return metrics.estimate(metrics.share_at(ids, items, n)).mean

    shares = [share([boost(concept, alpha)] if alpha else []) for alpha in alphas]
    low = share([suppress(concept)])
    return Obedience(
        concept,
        int(items.sum()),
        tuple(alphas),
        tuple(shares),
        spearman(np.asarray(alphas), np.asarray(shares)),
        low,
        low / shares[0] if shares[0] else float("nan"),
    )


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation, ties at their mean rank; NaN where one side is constant."""
    a, b = _ranks(x), _ranks(y)
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / norm) if norm else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + 1 + last) / 2)[inverse]
