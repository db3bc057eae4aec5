"""Room 3: does an exported graph give Python's answers? Random requests, both asked.

Station: top-N of the graph beside top-N of the library.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from cfsae_fast.export.files import read_manifest
from cfsae_fast.export.sessions import feeds, open_session
from cfsae_fast.recommender import Recommendations, SteerableRecommender
from cfsae_fast.recommender.fitted import Fitted

TOLERANCE = 1e-4  # of a row's largest score
_SPARE = 20  # ranks below the last that an item tied with it may stand at
_LONGEST = 60  # items in a random history
_BATCHES = (1, 3, 32)  # folded graphs have a path for few rows, and one for many


class Parity(NamedTuple):
    """requests asked; different: rows whose ids differ by more than ties; error: the largest
    difference of scores, as a share of the row's largest score."""

    requests: int
    different: int
    error: float

    @property
    def holds(self) -> bool:
        return self.different == 0 and self.error <= TOLERANCE


def check_parity(
    recommender: SteerableRecommender | Fitted,
    path: str | os.PathLike,
    *,
    requests: int = 1000,
    seed: int = 0,
    custom_ops: bool = True,
) -> Parity:
    """Ask the graph at `path` and `recommender` the same random requests and compare.

    Histories of 0 to 60 items, wishes of up to three concepts, deny lists, n up to 50.
    """
    if isinstance(recommender, Fitted):
        recommender = SteerableRecommender.from_fitted(recommender)
    mode = read_manifest(path, verify=False).mode
    session = open_session(path, custom_ops=custom_ops)
    generator = np.random.default_rng(seed)
    parts: list[Parity] = []
    while asked := requests - sum(part.requests for part in parts):
        rows = min(asked, _BATCHES[len(parts) % len(_BATCHES)])
        request = draw(recommender.fitted, generator, rows)
        parts.append(compare(recommender, session, mode, **request))
    different = sum(part.different for part in parts)
    return Parity(requests, different, max((part.error for part in parts), default=0.0))


def draw(fitted: Fitted, generator: np.random.Generator, rows: int) -> dict[str, Any]:
    """A random request of `rows` histories."""
    ids = fitted.item_ids.values
    longest = min(_LONGEST, len(ids))
    names = [concept.name for concept in fitted.concepts or ()]
    histories, wishes = [], []
    for length in generator.integers(0, longest + 1, size=rows):
        histories.append(ids[generator.choice(len(ids), size=length)].tolist())
        chosen = generator.permutation(names)[: generator.integers(0, 4)].tolist()
        wishes.append({name: float(generator.choice([0.3, 0.1, -1.0, -0.5])) for name in chosen})
    deny = ids[generator.choice(len(ids), size=min(5, len(ids)))].tolist()
    return {
        "histories": histories,
        "steer": wishes,
        "deny": deny,
        "n": int(generator.integers(1, 51)),
    }


def compare(
    recommender: SteerableRecommender,
    session: Any,
    mode: str,
    *,
    histories: list[list[Any]],
    steer: list[Any],
    deny: list[Any],
    n: int,
) -> Parity:
    """Ask both once; histories, wishes and deny list in external ids."""
    asked = feeds(recommender, histories, n=n, steer=steer, deny=deny)
    ids, scores = session.run(["ids", "scores"], asked)
    want = recommender.recommend(
        histories=histories, n=n + _SPARE, steer=steer, mode=mode, deny=deny
    )
    different, error = 0, 0.0
    for row in range(len(histories)):
        one = Recommendations(want.ids[row], want.scores[row])
        same, off = _compare_row(recommender.fitted, ids[row], scores[row], one, n)
        different += not same
        error = max(error, off)
    return Parity(len(histories), different, error)


def _compare_row(
    fitted: Fitted, ids: np.ndarray, scores: np.ndarray, want: Recommendations, n: int
) -> tuple[bool, float]:
    real = np.isfinite(want.scores)
    positions = fitted.item_ids.index(want.ids[real])
    by_item = dict(zip(positions.tolist(), want.scores[real].tolist(), strict=True))
    count = min(n, len(positions))
    filled = ids >= 0
    if filled.sum() != count or not filled[:count].all() or (scores[count:] != -np.inf).any():
        return False, float("inf")
    if count == 0:
        return True, 0.0
    size = max(float(np.abs(want.scores[:count]).max()), 1e-6)
    error = float(np.abs(scores[:count] - want.scores[:count]).max()) / size
    ours = np.array([by_item.get(item, np.inf) for item in ids[:count].tolist()])
    tied = np.abs(ours - want.scores[:count]) <= TOLERANCE * size
    distinct = len(set(ids[:count].tolist())) == count
    return bool(tied.all()) and distinct, error
