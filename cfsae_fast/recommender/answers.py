"""Floor 5: what recommend() answers: ids and scores, or a frame.

Station: top-N, with the names that the user knows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cfsae_fast import ops
from cfsae_fast.errors import require_extra
from cfsae_fast.ids import Ids
from cfsae_fast.recommender.fitted import Fitted
from cfsae_fast.recommender.inputs import Request


class Recommendations(NamedTuple):
    """Top-N of external ids and their scores: (N,) each for one user, (B, N) for several.

    Best first. Slots that could not be filled hold score -inf, and id -1 or "".
    """

    ids: np.ndarray
    scores: np.ndarray


def join(parts: list[ops.Recommended], n: int, names: Ids) -> Recommendations:
    """The answers of several chunks as one, with external ids."""
    if len(parts) == 1:
        return Recommendations(names.named(parts[0].ids), parts[0].scores)
    ids = np.concatenate([part.ids for part in parts]) if parts else np.empty((0, n), np.int32)
    scores = np.concatenate([part.scores for part in parts]) if parts else np.empty((0, n), "f4")
    return Recommendations(names.named(ids), scores)


def frame(fitted: Fitted, request: Request, found: Recommendations) -> Any:
    """A polars frame (user, rank, item, title, score) of the slots that are filled."""
    polars = require_extra("polars", extra="train", purpose="recommend(frame=True)")
    row, rank = np.nonzero(np.isfinite(found.scores))
    names = row if request.users is None else fitted.user_ids[request.users][row]
    items = found.ids[row, rank]
    columns = {"user": names, "rank": rank + 1, "item": items}
    if fitted.titles is not None:
        columns["title"] = fitted.titles[fitted.item_ids.index(items)]
    return polars.DataFrame({**columns, "score": found.scores[row, rank]})
