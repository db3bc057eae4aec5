"""Floor 5: `boost(concept, share=0.3)`: the least alpha per user that fills this much of the list.

Station: knobs, found by asking the rest of the line what they would do. A grid first, because a
share need not rise with alpha everywhere, then halving between the first alpha that reaches the
share and the last before it that does not; all users of a batch go at once.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

from cfsae_fast import metrics
from cfsae_fast.recommender import pipeline
from cfsae_fast.recommender.fitted import Fitted
from cfsae_fast.recommender.inputs import Request, take
from cfsae_fast.steering import Boost, Toward, Turns, boost

GRID = (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
HALVINGS = 5  # alpha to within 1/32 of a step of the grid
CHUNK = 1024  # users at a time


class Calibrated(NamedTuple):
    """alphas (B,): the least found that reaches the share, else the one that comes nearest; shares
    (B,): what they give, NaN for an empty list; reached (B,) bool."""

    alphas: np.ndarray
    shares: np.ndarray
    reached: np.ndarray


class ShareNotReached(UserWarning):
    """No boost gives some user the share that was asked for; the nearest was taken."""


def calibrate(
    fitted: Fitted,
    request: Request,
    concept: str,
    *,
    share: float,
    n: int,
    others: list[Turns] | None = None,
    **options: Any,
) -> Calibrated:
    """The least alpha per row that gives items of `concept` at least `share` of the top-n.

    others: each row's other turns, which stay as they are; their boosts leave alpha what is left
    of 1. options: of `pipeline.answer`.

    Raises:
        UnknownConceptError: no such concept.
        ValueError: share is not in (0, 1], or the model does not know which items carry it.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    mask, count = items_of(fitted, concept), len(request.rows.offsets) - 1
    others = others or [Turns()] * count
    parts = []
    for low in range(0, count, CHUNK):
        part = take(request, low, low + CHUNK)
        parts.append(_search(fitted, part, concept, share, n, mask, others[low : low + CHUNK],
                             options))  # fmt: skip
    if not parts:
        return Calibrated(np.empty(0), np.empty(0), np.empty(0, bool))
    return Calibrated(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def settled(
    fitted: Fitted, request: Request, turns: list[Turns], n: int, **options: Any
) -> list[Turns]:
    """`turns` with every boost(share=) replaced by the alpha that it takes.

    Warns:
        ShareNotReached: it cannot be had; the nearest there is stands in.
    Raises:
        ValueError: a row asks for two shares at once.
    """
    distinct = {id(one): one for one in turns}
    if not any(isinstance(turn, Boost) and turn.share for one in distinct.values() for turn in one):
        left = {key: cleared(one) for key, one in distinct.items()}
        return [left[id(one)] for one in turns]
    wanted: dict[Boost, list[int]] = {}
    for row, one in enumerate(turns):
        asked = [turn for turn in one if isinstance(turn, Boost) and turn.share]
        if len(asked) > 1:
            raise ValueError("steer must ask for one share at a time, got several for one user")
        for turn in asked:
            wanted.setdefault(turn, []).append(row)
    turns = list(turns)
    for turn, rows in wanted.items():
        others = [Turns(one for one in turns[row] if one != turn) for row in rows]
        found = calibrate(
            fitted, _rows(request, rows), turn.concept, share=turn.share, n=n, others=others,
            **options,
        )  # fmt: skip
        for row, rest, alpha in zip(rows, others, found.alphas, strict=True):
            turns[row] = rest + boost(turn.concept, float(alpha))
        _say(turn, found)
    return [cleared(one) for one in turns]


def cleared(turns: Turns) -> Turns:
    """`turns` without those that ask for nothing: the model is asked as if they were not there."""
    return Turns(one for one in turns if not _nothing(one))


def items_of(fitted: Fitted, concept: str) -> np.ndarray:
    """(I,) bool: which items carry a concept.

    Raises:
        UnknownConceptError: no such concept. ValueError: the model was labelled without keeping it.
    """
    concepts = pipeline.concepts_of(fitted)
    if concepts.carriers is None:
        raise ValueError("the model must know which items carry a concept; call label(tags) anew")
    return concepts.carried_by(concept, len(fitted.item_ids))


def _search(
    fitted: Fitted, request: Request, concept: str, share: float, n: int, mask: np.ndarray,
    others: list[Turns], options: dict[str, Any],
) -> Calibrated:  # fmt: skip
    room = np.array([1 - sum(t.alpha or 0 for t in one if isinstance(t, Boost)) for one in others])
    count = len(others)

    def shares(alphas: np.ndarray, rows: np.ndarray) -> np.ndarray:
        wishes = [
            others[row] + boost(concept, min(float(a), 1.0)) if a > 0 else others[row]
            for row, a in zip(rows, alphas, strict=True)
        ]
        ids = pipeline.answer(fitted, _rows(request, rows), wishes, n, **options).ids
        return metrics.share_at(ids, mask, n)

    low, high = np.zeros(count), np.full(count, np.nan)
    best, alphas = np.full(count, -1.0), np.zeros(count)
    for step in GRID:
        rows = np.flatnonzero(np.isnan(high))
        if not len(rows):
            break
        tried = step * room[rows]
        got = np.nan_to_num(shares(tried, rows), nan=-1.0)
        better = got > best[rows]
        best[rows[better]], alphas[rows[better]] = got[better], tried[better]
        there = got >= share - 1e-9
        high[rows[there]] = tried[there]
        low[rows[~there]] = tried[~there]
    reached = ~np.isnan(high)
    rows = np.flatnonzero(reached & (high > 0))
    for _ in range(HALVINGS if len(rows) else 0):
        middle = (low[rows] + high[rows]) / 2
        got = shares(middle, rows)
        there = got >= share - 1e-9
        high[rows[there]], best[rows[there]] = middle[there], got[there]
        low[rows[~there]] = middle[~there]
    alphas[reached] = high[reached]
    return Calibrated(alphas, np.where(best < 0, np.nan, best), reached)


def _rows(request: Request, rows: Any) -> Request:
    rows = np.asarray(rows)
    users = None if request.users is None else request.users[rows]
    return Request(request.rows.take(rows), users, False)


def _nothing(turn: Any) -> bool:
    if isinstance(turn, Toward):
        return turn.strength == 0
    return isinstance(turn, Boost) and turn.alpha == 0 and turn.share is None


def _say(turn: Boost, found: Calibrated) -> None:
    missed = int((~found.reached).sum())
    if missed:
        nearest = np.nanmax(np.append(found.shares[~found.reached], 0.0))
        warnings.warn(
            ShareNotReached(
                f"boost({turn.concept!r}, share={turn.share:g}) cannot be had for {missed} of "
                f"{len(found.reached)} users; the nearest is {nearest:.0%} of the list"
            ),
            stacklevel=4,
        )
