"""Room 3: what an exported graph of fewer bits costs in quality.

Station: top-N of the graph and of the library, both beside what users did.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np

from cfsae_fast import metrics
from cfsae_fast.export.files import read_manifest
from cfsae_fast.export.sessions import feeds, open_session
from cfsae_fast.ops import Rows
from cfsae_fast.recommender import SteerableRecommender, pipeline
from cfsae_fast.recommender.fitted import Fitted
from cfsae_fast.recommender.inputs import Request

_BATCH = 128
_SHARE = 0.2  # of a row, hidden


class Loss(NamedTuple):
    """nDCG@n of the library and of the graph over the same users' hidden items."""

    users: int
    n: int
    model: float
    graph: float

    @property
    def lost(self) -> float:
        """Share of the model's nDCG; below 0 where the graph is better."""
        return 1.0 - self.graph / self.model if self.model else 0.0


def measure_loss(
    recommender: SteerableRecommender | Fitted,
    path: str | os.PathLike,
    *,
    users: int = 1000,
    n: int = 20,
    seed: int = 0,
    custom_ops: bool = True,
) -> Loss:
    """Hide a fifth of up to `users` stored users' items and ask both for them.

    The stored users are those of training, so the level is flattered; the loss is not.

    Raises:
        ValueError: no stored user has two items.
    """
    fitted = recommender if isinstance(recommender, Fitted) else recommender.fitted
    mode = read_manifest(path, verify=False).mode
    rng = np.random.default_rng(seed)
    inputs, targets = _cut(fitted.histories, rng, users)
    plain = feeds(fitted, [[]], n=n)  # no knob; a graph may want all inputs
    session = open_session(path, custom_ops=custom_ops, verify=False)
    ours, graphs, hidden = [], [], []
    for first in range(0, len(inputs), _BATCH):
        rows = _rows(inputs[first : first + _BATCH])
        request = {**plain, "items": rows.items.astype(np.int64), "offsets": rows.offsets}
        graphs.append(session.run(["ids"], request)[0])
        answer = pipeline.answer(
            fitted, Request(rows, None, False), [None] * (len(rows.offsets) - 1), n, mode=mode
        )
        ours.append(answer.ids)
        hidden += targets[first : first + _BATCH]
    truth = _rows(hidden)
    found = [
        float(np.mean(metrics.ndcg_at(np.concatenate(ids), truth, n))) for ids in (ours, graphs)
    ]
    return Loss(len(inputs), n, *found)


def _cut(
    histories: Rows, rng: np.random.Generator, users: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    lengths = np.diff(histories.offsets)
    able = np.flatnonzero(lengths >= 2)
    if not len(able):
        raise ValueError("recommender must hold users with at least 2 items, got none")
    inputs, targets = [], []
    for user in np.sort(rng.permutation(able)[:users]):
        row = rng.permutation(
            histories.items[histories.offsets[user] : histories.offsets[user + 1]]
        )
        count = max(1, round(_SHARE * len(row)))
        inputs.append(row[count:])
        targets.append(row[:count])
    return inputs, targets


def _rows(parts: list[np.ndarray]) -> Rows:
    offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return Rows(offsets, np.concatenate(parts).astype(np.int32))
