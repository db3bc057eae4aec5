"""Floor 6: a picture of users before and after a boost, by UMAP (extra "umap").

Station: embedding -> steer -> embedding', in two dimensions: where do knobs take people?
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cfsae_fast.errors import require_extra
from cfsae_fast.evaluation.protocol import Protocol
from cfsae_fast.recommender import Fitted, pipeline
from cfsae_fast.recommender.inputs import Request
from cfsae_fast.steering import boost

NEIGHBOURS = 15  # umap-learn's default
SHOWN, GROUND, CONCEPTS, TURN = 200, 1000, 5, 0.5


def judge(fitted: Fitted, cut: Protocol, cell: Any) -> dict[str, Any]:
    """Places (x, y) of training users, and of test users without and with boost(concept, TURN).

    The plane is that of GROUND training users; the first SHOWN test users are put into it, for each
    of the CONCEPTS most trusted concepts. spread: how much nearer to each other a boost brings
    users, as mean distance from their centre in the embedding's space over that without it.

    Raises:
        MissingExtraError: umap-learn is not installed.
    """
    if fitted.concepts is None:
        return {"skipped": "the data set has no tags"}
    umap = require_extra("umap", extra="umap", purpose="a picture of users")
    count = min(SHOWN, cut.test.inputs.n_users)
    rows = cut.test.inputs.rows(np.arange(count))
    ground = cut.train.rows(np.arange(min(GROUND, cut.train.n_users)))
    embedding = pipeline.embed(fitted, Request(rows, None, False))
    trusted = sorted(fitted.concepts, key=lambda one: -np.nan_to_num(one.confidence))[:CONCEPTS]
    moved = {
        one.name: pipeline.steer(fitted, embedding, [[boost(one.name, TURN)]] * count,
                                 mode="residual")
        for one in trusted
    }  # fmt: skip
    neighbours = min(NEIGHBOURS, len(ground.offsets) - 2)
    plane = umap.UMAP(metric="cosine", n_neighbors=neighbours, random_state=cell.seed, n_jobs=1)
    below = plane.fit_transform(fitted.cfae.encode(ground))
    return {
        "alpha": TURN,
        "ground": _places(below),
        "before": _places(plane.transform(embedding)),
        "after": {name: _places(plane.transform(one)) for name, one in moved.items()},
        "spread": {name: _spread(one) / _spread(embedding) for name, one in moved.items()},
    }


def _places(points: np.ndarray) -> list[list[float]]:
    return np.round(points.astype(float), 3).tolist()


def _spread(vectors: np.ndarray) -> float:
    """Mean distance of the vectors' directions from their centre."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return float(np.linalg.norm(unit - unit.mean(axis=0), axis=1).mean())
