"""Whether a peer's answer is ours, but for what fp32 sums in another order may change.

A benchmark compares first and times afterwards: a wrong answer ends it, so no ratio to it is told.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class WrongAnswer(AssertionError):
    """Two ways to one answer do not agree."""


def require(same: bool, name: str) -> None:
    """Raises: WrongAnswer: `same` is false."""
    if not same:
        raise WrongAnswer(f"{name} must answer as we do before it is timed, got something else")


def same_top(ids: Any, scores: Any, its_ids: Any, its_scores: Any, *, tie: float) -> bool:
    """ids, scores (B, N) each, best first. The same id must have the same score within `tie` times
    the row's largest; an id that only one list holds must be within that of the list's last.
    """
    for row in zip(*map(np.asarray, (ids, scores, its_ids, its_scores)), strict=True):
        (mine, my_scores), (its, theirs) = row[:2], row[2:]
        near = tie * max(1.0, float(np.abs(theirs[np.isfinite(theirs)]).max(initial=0)))
        ours_by_id = dict(zip(mine.tolist(), my_scores.tolist(), strict=True))
        its_by_id = dict(zip(its.tolist(), theirs.tolist(), strict=True))
        for one, other, last in (
            (ours_by_id, its_by_id, theirs),
            (its_by_id, ours_by_id, my_scores),
        ):
            for name, score in one.items():
                if abs(score - other.get(name, last[-1])) > near:
                    return False
    return True
