"""Floor 6: the steering experiment: every way to steer on the same wishes, with intervals.

Station: knobs -> top-N, ours against the published method and the baselines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from cfsae_fast.errors import DataError
from cfsae_fast.evaluation import steerers, teaser, tradeoff
from cfsae_fast.evaluation.protocol import Protocol
from cfsae_fast.evaluation.tradeoff import Curve, Steerer
from cfsae_fast.evaluation.wishes import Wishes, fair_wishes, known_tags, paper_wishes
from cfsae_fast.ops import Rows
from cfsae_fast.recommender import Fitted, probing
from cfsae_fast.recommender.labelling import label

DRAWS = 300
PAPER = "paper (top-1, reconstruct)"  # what others are compared with
OURS = "toward (probe map)"


def judge(fitted: Fitted, cut: Protocol, cell: Any) -> dict[str, Any]:
    """The curves of all ways under three protocols: paper, history, unseen (see `wishes`); why a
    protocol is skipped, where its tags are too rare."""
    if cut.tags is None:
        return {"skipped": "the data set has no tags"}
    protocols = {
        "paper": lambda: paper_wishes(cut),
        "history": lambda: fair_wishes(cut, seed=cell.seed),
        "unseen": lambda: fair_wishes(cut, unseen=True, seed=cell.seed),
    }
    return {name: _protocol(fitted, make, cell.seed) for name, make in protocols.items()}


def _protocol(fitted: Fitted, make: Callable[[], Wishes], seed: int) -> dict[str, Any]:
    try:
        wishes = make()
    except DataError as error:
        return {"skipped": str(error)}
    popularity = np.bincount(fitted.histories.items, minlength=len(fitted.item_ids))
    options = {"carried": wishes.carried, "popularity": popularity, "items": fitted.cfae.items}
    curves = [tradeoff.curve(one, wishes, **options) for one in ways(fitted, wishes, seed)]
    first = next(one for one in curves if one.name == PAPER)
    return {
        "users": len(wishes.tag),
        "concepts": len(np.unique(wishes.tag)),
        "ways": {one.name: _plain(one, first, seed) for one in curves},
    }


def ways(fitted: Fitted, wishes: Wishes, seed: int) -> list[Steerer]:
    """The published ways, ours, and the baselines; each map sees `wishes.known` alone."""
    lift = label(fitted, known_tags(wishes), with_toward=False)
    probe = fitted.with_concepts(probing.build(fitted, wishes.known, wishes.names), {})
    model = teaser.fit(_csr(fitted, fitted.histories), (wishes.known > 0).toarray().astype(float))
    return [
        *steerers.published(fitted, wishes),
        steerers.knob(lift, wishes, mode="residual", name="boost (lift map)"),
        steerers.toward(probe, wishes, name=OURS),
        steerers.random_latent(fitted, wishes, seed=seed),
        steerers.mean_item(fitted, wishes),
        steerers.probe(fitted, wishes),
        steerers.rerank(fitted, wishes),
        steerers.teaser(model, wishes, _csr(fitted, wishes.inputs)),
    ]


def _plain(curve: Curve, paper: Curve, seed: int) -> dict[str, Any]:
    one = {"draws": DRAWS, "seed": seed}
    volume = tradeoff.bootstrap([curve], lambda p: tradeoff.hypervolume(p[0]), **one)
    ratio = tradeoff.bootstrap([curve, paper], _ratio, **one)
    points = curve.points()
    names = ("personal_recall", "segment_recall")
    return {
        "strengths": list(curve.strengths),
        "personal_ndcg": points[:, 0].tolist(),
        "segment_ndcg": points[:, 1].tolist(),
        **{name: np.nanmean(getattr(curve, name), axis=1).tolist() for name in names},
        **{
            name: getattr(curve, name).tolist()
            for name in ("collateral", "popularity", "coverage", "gini", "diversity")
        },
        "personal_se": _error(curve.personal_ndcg),
        "segment_se": _error(curve.segment_ndcg),
        "hypervolume": volume._asdict(),
        "hypervolume_over_paper": ratio._asdict(),
        "area": tradeoff.area_under(points),
        "cost_of_doubling": tradeoff.cost_of(points),
        "sees_truth": curve.sees_truth,
    }


def _ratio(points: list[np.ndarray]) -> float:
    ours, theirs = map(tradeoff.hypervolume, points)
    return ours / theirs if theirs else float("nan")


def _error(values: np.ndarray) -> list[float]:
    return (np.nanstd(values, axis=1, ddof=1) / np.sqrt((~np.isnan(values)).sum(axis=1))).tolist()


def _csr(fitted: Fitted, rows: Rows) -> csr_array:
    shape = (len(rows.offsets) - 1, len(fitted.item_ids))
    return csr_array((np.ones(len(rows.items)), rows.items, rows.offsets), shape=shape)
