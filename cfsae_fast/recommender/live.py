"""Floor 5: one user's profile that stays between requests.

Station: the last line of the story, again and again for one user.

What an edit of the history changes (embedding, code, scores of the code) is derived again from the
items, so nothing drifts; what a knob changes is added to kept scores, row by row of the table.
Either way the top is decided in fp32: it is what `recommend` answers, bit for bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cfsae_fast import ops, steering
from cfsae_fast.ids import Id
from cfsae_fast.ops import Encoded, Recommended, Rows
from cfsae_fast.recommender import calibration, inputs, pipeline
from cfsae_fast.recommender.fitted import Fitted
from cfsae_fast.recommender.inputs import Request


class Top(NamedTuple):
    """Top-N of external ids and their scores (N,), best first; padding has score -inf."""

    ids: np.ndarray
    scores: np.ndarray


class _Kept(NamedTuple):
    """What the history alone decides: embedding (1, d), its code, scores of the code (I,)."""

    embedding: np.ndarray
    encoded: Encoded
    scores: np.ndarray


class LiveProfile:
    """A user who is here now; made by `SteerableRecommender.live`.

    >>> profile = model.live(history=["Heat", "Ronin"])
    >>> profile.add("Alien")
    >>> profile.turn({"film noir": 0.3})
    >>> ids, scores = profile.top(10)

    Turning knobs is quickest on a folded model (`model.fold()`); without tables every `top` is a
    full request. Not for several threads at once. In residual mode the first two requests after an
    edit read all items.
    """

    def __init__(
        self,
        fitted: Fitted,
        request: Request,
        steer: Any = None,
        *,
        mode: str = "residual",
        exclude_seen: bool = True,
    ) -> None:
        """request: one row.

        Raises:
            ValueError: the request has several rows, or mode is none.
        """
        pipeline.check_mode(mode)
        if len(request.rows.offsets) != 2:
            raise ValueError(
                f"live must be given one user or history, got {len(request.rows.offsets) - 1}"
            )
        self.fitted, self.mode, self.exclude_seen = fitted, mode, exclude_seen
        self._request = request
        self._kept: _Kept | None = None
        self._base: np.ndarray | None = None
        self._asked = False
        self.turn(steer)

    @property
    def history(self) -> list[Id]:
        """External ids of the items, by position."""
        return self.fitted.item_ids.values[self._request.rows.items].tolist()

    def add(self, item: Id) -> None:
        """Put an item into the history; one that is there stays.

        Raises:
            UnknownIdError: the item is not in the catalogue.
        """
        at = int(self.fitted.item_ids.index([item])[0])
        self._edit(np.union1d(self._request.rows.items, [at]))

    def remove(self, item: Id) -> None:
        """Take an item out of the history.

        Raises:
            UnknownIdError: the item is not in the catalogue.
            ValueError: it is not in the history.
        """
        at = int(self.fitted.item_ids.index([item])[0])
        items = self._request.rows.items
        if at not in items:
            raise ValueError(f"item must be in the history to be removed, got {item!r}")
        self._edit(items[items != at])

    def turn(self, steer: Any) -> None:
        """Set the knobs, as recommend's `steer`; None turns all of them back."""
        turns = [calibration.cleared(one) for one in steering.per_row(steer, 1)]
        if self._kept is None:  # is everything known?
            knobs = None
            self.fitted.resolved(turns[0])
        else:
            knobs = self._knobs_of(turns)
        self._turns, self._knobs = turns, knobs

    def top(self, n: int = 10) -> Top:
        """The n best items, as `recommend` answers for this history and these knobs."""
        inputs.check_n(n)
        found = self._found(n)
        return Top(self.fitted.item_ids.named(found.ids[0]), found.scores[0])

    def _found(self, n: int) -> Recommended:
        fitted, folded = self.fitted, self.fitted.folded
        residual = self.mode == "residual"
        if folded is None or folded.decode_side is None or residual and not any(self._turns):
            return self._afresh(n)
        if residual and self._base is None and not self._asked:
            self._asked = True  # base scores are worth their product from the second request on
            return self._afresh(n)
        kept = self._keep()
        seen = self._request.rows if self.exclude_seen else None
        if self._knobs is None:
            self._knobs = self._knobs_of(self._turns)
        if self._knobs is None:  # reconstruct, nothing turned
            moved = fitted.sae.decode(kept.encoded)
            return folded.recommend(fitted.cfae, kept.encoded, moved, n, seen=seen)
        return ops.folded_turn(
            (kept.scores, self._dense() if residual else None),
            kept.embedding,
            kept.encoded,
            self._knobs,
            fitted.sae.dictionary,
            fitted.sae.bias,
            folded.decode_side,
            fitted.cfae.items,
            n,
            bias=fitted.cfae.item_bias,
            seen=None if seen is None else seen.items,
        )

    def _afresh(self, n: int) -> Recommended:
        options = {"mode": self.mode, "exclude_seen": self.exclude_seen}
        return pipeline.answer(self.fitted, self._request, self._turns, n, **options)

    def _keep(self) -> _Kept:
        if self._kept is None:
            fitted = self.fitted
            embedding = pipeline.embed(fitted, self._request)
            encoded = pipeline.encode(fitted, self._request, embedding)
            scores = ops.folded_scores(encoded.code, fitted.folded.decode_side.table)[0]
            self._kept = _Kept(embedding, encoded, scores)
        return self._kept

    def _knobs_of(self, turns: list[steering.Turns]) -> ops.Knobs | None:
        kept = self._keep()
        return pipeline.knobs_of(self.fitted, turns, kept.encoded, kept.embedding)

    def _dense(self) -> np.ndarray:
        """Base scores (I,) of the embedding: an I x I table would be needed to fold them."""
        if self._base is None:
            cfae = self.fitted.cfae
            scores = cfae.items @ self._keep().embedding[0]
            self._base = scores if cfae.item_bias is None else scores + cfae.item_bias
        return self._base

    def _edit(self, items: np.ndarray) -> None:
        rows = Rows(np.array([0, len(items)], np.int64), np.asarray(items, np.int32))
        self._request = Request(rows, None, True)
        self._kept = self._base = self._knobs = None
        self._asked = False
