"""Floor 6: the same settings over seeds: means with bootstrap intervals, and paired differences.

Station: after all cells. A seed splits the users and trains both models anew, so that an interval
over seeds holds what the draw of users and what training by chance do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np

COMPARED = ("compat", "loss", "k", "n_latents", "kind", "l1")  # settings that pairs may differ in
DRAWS, FLIPS = 4000, 4096

Settings = tuple[tuple[str, Any], ...]


def over_seeds(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and 95 % bootstrap bounds over seeds of rows of the table of results.

    One row per settings, experiment and metric that at least two seeds have; bounds are of seeds
    drawn anew with replacement.
    """
    found = []
    for (settings, experiment, metric), values in _by_seed(rows).items():
        if len(values) > 1:
            low, high = bounds(np.array(list(values.values())))
            found.append({
                **dict(settings), "experiment": experiment, "metric": metric,
                "mean": float(np.mean(list(values.values()))), "low": low, "high": high,
                "seeds": len(values),
            })  # fmt: skip
    return found


def differences(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Paired comparisons of settings that differ in one of COMPARED alone, seed by seed.

    Each against the first of its kind: mean difference, 95 % bootstrap bounds, and p of an exact
    two-sided sign-flip test over the seeds that both have, of which there must be two (five seeds
    give a p of 0.0625 at least).
    """
    table, found = _by_seed(rows), []
    for field in COMPARED:
        first: dict[Any, tuple[Any, dict[int, float]]] = {}
        for (settings, experiment, metric), values in table.items():
            rest = tuple(pair for pair in settings if pair[0] != field)
            value = dict(settings).get(field)
            other, theirs = first.setdefault((rest, experiment, metric), (value, values))
            shared = sorted(set(values) & set(theirs))
            if other == value or len(shared) < 2:
                continue
            gaps = np.array([values[seed] - theirs[seed] for seed in shared])
            low, high = bounds(gaps)
            found.append({
                **dict(rest), "experiment": experiment, "metric": metric, "setting": field,
                "from": other, "to": value, "difference": float(gaps.mean()), "low": low,
                "high": high, "p": sign_flip(gaps), "seeds": len(shared),
            })  # fmt: skip
    return found


def bounds(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of means of `values` (n,) drawn anew with replacement."""
    low, high = np.percentile(_weights(len(values)) @ values, [2.5, 97.5])
    return float(low), float(high)


@cache
def _weights(n: int) -> np.ndarray:
    """(DRAWS, n): how much each of n values counts in a draw's mean."""
    random = np.random.default_rng([n, 0x5EED])
    return random.multinomial(n, np.full(n, 1 / n), size=DRAWS) / n


def sign_flip(gaps: np.ndarray) -> float:
    """Two-sided p of paired differences (n,): how often signs drawn anew give as large a sum.

    All 2^n signs where these are at most FLIPS, else so many at random, the real ones among them.
    """
    if 2 ** len(gaps) <= FLIPS:
        signs = np.array(list(itertools.product([-1.0, 1.0], repeat=len(gaps))))
    else:
        random = np.random.default_rng([len(gaps), 0xF11B])
        signs = random.choice([-1.0, 1.0], size=(FLIPS, len(gaps)))
        signs[0] = 1
    return float((np.abs(signs @ gaps) >= abs(gaps.sum()) - 1e-12).mean())


def _by_seed(rows: Iterable[dict[str, Any]]) -> dict[tuple[Settings, str, str], dict[int, float]]:
    """{(settings but the seed, experiment, metric): {seed: value}}."""
    found: dict[tuple[Settings, str, str], dict[int, float]] = {}
    apart = ("seed", "experiment", "metric", "value")
    for row in rows:
        settings = tuple(pair for pair in row.items() if pair[0] not in apart)
        at = settings, row["experiment"], row["metric"]
        found.setdefault(at, {})[row["seed"]] = row["value"]
    return found
