"""Floor 6: what steering gives and what it costs, as one curve per way to steer.

Station: knobs -> top-N, judged twice: against what the user did next (personal), and against the
concept that was wished for (segment).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from cfsae_fast import metrics
from cfsae_fast.evaluation.wishes import Wishes
from cfsae_fast.ops import Rows

CHUNK = 1024  # users whose lists are looked up in all concepts at a time


class Steerer(NamedTuple):
    """A way to steer: `recommend(strength, seen)` gives everybody's top-n item positions (B, n),
    none of them in the row of `seen`.

    strengths rise from 0, which is the unsteered list of that way. sees_truth: it reads the very
    item-tag matrix that `segment` is made of, so its segment metrics say little.
    """

    name: str
    strengths: tuple[float, ...]
    recommend: Callable[[float, Rows], np.ndarray]
    sees_truth: bool = False


class Curve(NamedTuple):
    """One way to steer at S strengths over B users; (S, B) arrays, NaN where undefined.

    collateral (S,): mean |change| of the other concepts' shares. popularity (S,): mean change of
    ln(1 + interactions) of recommended items. coverage, gini, diversity (S,): of the lists.
    """

    name: str
    strengths: tuple[float, ...]
    personal_ndcg: np.ndarray
    segment_ndcg: np.ndarray
    personal_recall: np.ndarray
    segment_recall: np.ndarray
    collateral: np.ndarray
    popularity: np.ndarray
    coverage: np.ndarray
    gini: np.ndarray
    diversity: np.ndarray
    sees_truth: bool = False

    def points(self) -> np.ndarray:
        """(S, 2): mean personal and segment nDCG at each strength."""
        return np.stack(
            [np.nanmean(self.personal_ndcg, axis=1), np.nanmean(self.segment_ndcg, axis=1)], axis=1
        )


def curve(
    steerer: Steerer,
    wishes: Wishes,
    *,
    carried: np.ndarray,
    popularity: np.ndarray,
    items: np.ndarray,
    n: int = 20,
) -> Curve:
    """Judge one way to steer at all its strengths.

    carried (T, I) bool: which item carries which concept; popularity (I,): training interactions;
    items (I, d): vectors that diversity compares.
    """
    tops = [steerer.recommend(one, wishes.inputs)[:, :n] for one in steerer.strengths]
    asked = tops
    if len(wishes.barred.items) != len(wishes.inputs.items):
        asked = [steerer.recommend(one, wishes.barred)[:, :n] for one in steerer.strengths]
    first = concept_shares(tops[0], carried)
    heard = np.log1p(popularity)
    directions = items / np.maximum(np.linalg.norm(items, axis=1, keepdims=True), 1e-12)
    return Curve(
        steerer.name,
        steerer.strengths,
        np.stack([metrics.ndcg_at(ids, wishes.personal, n) for ids in tops]),
        np.stack([metrics.ndcg_at(ids, wishes.segment, n) for ids in asked]),
        np.stack([metrics.recall_at(ids, wishes.personal, n) for ids in tops]),
        np.stack([metrics.recall_at(ids, wishes.segment, n) for ids in asked]),
        np.array([collateral(first, concept_shares(ids, carried), wishes.tag) for ids in tops]),
        np.array([mean_over(ids, heard) - mean_over(tops[0], heard) for ids in tops]),
        np.array([metrics.coverage_at(ids, len(items), n) for ids in tops]),
        np.array([gini(np.bincount(ids[ids >= 0], minlength=len(items))) for ids in tops]),
        np.array([diversity(ids, directions) for ids in tops]),
        steerer.sees_truth,
    )


def hypervolume(points: np.ndarray) -> float:
    """Area of what the points (S, 2) dominate, above and right of (0, 0); negatives count as 0."""
    points = np.maximum(np.nan_to_num(points), 0)
    area, high = 0.0, 0.0
    for x, y in points[np.argsort(-points[:, 0], kind="stable")]:
        area += x * max(y - high, 0.0)
        high = max(high, y)
    return area


def area_under(points: np.ndarray) -> float:
    """Area under segment nDCG as a function of personal nDCG, by trapezes along the curve.

    Points are taken in the order of strength; a stretch where personal nDCG rises counts negative.
    """
    x, y = points[:, 0], points[:, 1]
    return float(((x[:-1] - x[1:]) * (y[:-1] + y[1:]) / 2).sum())


def cost_of(points: np.ndarray, factor: float = 2.0) -> float:
    """Share of personal nDCG lost where segment nDCG first is `factor` times that of strength 0.

    Linear between neighbours; NaN where the curve never gets there.
    """
    goal = factor * points[0, 1]
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if y0 < goal <= y1:
            x = x0 + (x1 - x0) * (goal - y0) / (y1 - y0)
            return float(1 - x / points[0, 0])
    return float("nan")


class Interval(NamedTuple):
    """A number and the middle 95 % of its bootstrap draws."""

    value: float
    low: float
    high: float


def bootstrap(
    curves: Sequence[Curve],
    statistic: Callable[[list[np.ndarray]], float],
    *,
    draws: int = 500,
    seed: int = 42,
) -> Interval:
    """`statistic` of the curves' points, and its spread when users are drawn anew.

    All curves must be of the same users: a draw takes the same users in each, so differences and
    ratios of curves are paired.
    """
    n_users = curves[0].personal_ndcg.shape[1]
    random, found = np.random.default_rng([seed, 0xB007]), []
    for _ in range(draws):
        times = np.bincount(random.integers(0, n_users, n_users), minlength=n_users)
        found.append(statistic([_weighted(one, times) for one in curves]))
    low, high = np.nanpercentile(found, [2.5, 97.5]) if np.isfinite(found).any() else [np.nan] * 2
    return Interval(statistic([one.points() for one in curves]), float(low), float(high))


def concept_shares(ids: np.ndarray, carried: np.ndarray) -> np.ndarray:
    """Share of each user's list that carries each concept: (B, n), (T, I) -> (B, T)."""
    shares = np.empty((len(ids), len(carried)))
    for low in range(0, len(ids), CHUNK):
        part = ids[low : low + CHUNK]
        real = part >= 0
        found = carried[:, np.where(real, part, 0)] & real
        shares[low : low + CHUNK] = (found.sum(axis=2) / np.maximum(real.sum(axis=1), 1)).T
    return shares


def collateral(before: np.ndarray, after: np.ndarray, tag: np.ndarray) -> float:
    """Mean |change| of shares (B, T) over all concepts but the one wished for, tag (B,)."""
    moved = np.abs(after - before)
    moved[np.arange(len(tag)), tag] = np.nan
    return float(np.nanmean(moved)) if moved.shape[1] > 1 else 0.0


def mean_over(ids: np.ndarray, values: np.ndarray) -> float:
    """Mean of an item's value over all slots of all lists."""
    return float(values[ids[ids >= 0]].mean())


def gini(counts: np.ndarray) -> float:
    """Inequality of how often items are recommended: 0 all alike, 1 - 1/I one item for everybody.

    Source: mean absolute difference over twice the mean, with sorted counts.
    """
    counts = np.sort(counts.astype(np.float64))
    if not counts.sum():
        return float("nan")
    n = len(counts)
    return float((2 * np.arange(1, n + 1) - n - 1) @ counts / (n * counts.sum()))


def diversity(ids: np.ndarray, directions: np.ndarray) -> float:
    """Mean over lists of 1 - cosine between two of its items; directions (I, d) of length 1."""
    each = []
    for one in ids:
        one = one[one >= 0]
        if len(one) > 1:
            total = directions[one].sum(axis=0)
            own = (directions[one] ** 2).sum()
            each.append(1 - (total @ total - own) / (len(one) * (len(one) - 1)))
    return float(np.mean(each)) if each else float("nan")


def _weighted(one: Curve, times: np.ndarray) -> np.ndarray:
    both = []
    for values in (one.personal_ndcg, one.segment_ndcg):
        known = ~np.isnan(values)
        weight = np.where(known, times, 0)
        both.append((np.where(known, values, 0) * weight).sum(1) / np.maximum(weight.sum(1), 1))
    return np.stack(both, axis=1)
