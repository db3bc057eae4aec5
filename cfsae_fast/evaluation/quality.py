"""Floor 6: what recommendations and codes are worth on held-out users (METHOD.md 4, seen at -inf).

Station: the whole line, compared with what the user did next.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cfsae_fast import metrics
from cfsae_fast.data import HoldOut
from cfsae_fast.metrics import CodeMeter, CodeQuality, Estimate
from cfsae_fast.ops import Rows
from cfsae_fast.recommender import Fitted, pipeline
from cfsae_fast.recommender.inputs import Request, take

CHUNK = 1024  # users held at a time


class Quality(NamedTuple):
    """Ranking quality at n over the users that have targets."""

    n: int
    recall: Estimate
    ndcg: Estimate
    coverage: float


def judge_ranking(
    fitted: Fitted, holdout: HoldOut, *, n: int = 20, mode: str = "residual"
) -> Quality:
    """Recall, nDCG and coverage at `n` of unsteered recommendations from `holdout.inputs`.

    mode "residual" is the base model itself, "reconstruct" what the SAE leaves of it.

    Raises:
        ValueError: no user has a target, or the hold-out is of another catalogue.
    """
    inputs, targets = _aligned(fitted, holdout)
    tops = []
    for rows in _chunks(inputs):
        embedding = pipeline.embed(fitted, Request(rows, None, False))
        steered = pipeline.steer(fitted, embedding, [None] * len(embedding), mode=mode)
        tops.append(pipeline.top(fitted, steered, n, seen=rows).ids)
    ids = np.concatenate(tops)
    return Quality(
        n,
        metrics.estimate(metrics.recall_at(ids, targets, n)),
        metrics.estimate(metrics.ndcg_at(ids, targets, n)),
        metrics.coverage_at(ids, len(fitted.item_ids), n),
    )


def judge_codes(fitted: Fitted, rows: Rows) -> CodeQuality:
    """Cosine, explained variance, L0, and dead latents counted over all latents, for `rows`."""
    meter = CodeMeter(fitted.sae.n_latents)
    for part in _chunks(rows):
        embedding = pipeline.embed(fitted, Request(part, None, False))
        encoded = fitted.sae.encode(embedding)
        meter.update(embedding, fitted.sae.decode(encoded), encoded.code)
    return meter.result()


def evaluate(
    fitted: Fitted, holdout: HoldOut, *, train: Rows | None = None, n: int = 20
) -> dict[str, Any]:
    """Everything a table of results needs, ready for JSON.

    train: rows over which dead latents are counted too (None: the stored histories).
    """
    base = judge_ranking(fitted, holdout, n=n)
    reconstructed = judge_ranking(fitted, holdout, n=n, mode="reconstruct")
    codes = judge_codes(fitted, holdout.inputs.rows())
    alive = judge_codes(fitted, fitted.histories if train is None else train)
    return {
        "n": n,
        "users": base.ndcg.n,
        "base": _plain(base),
        "reconstruct": _plain(reconstructed),
        "ndcg_kept": reconstructed.ndcg.mean / base.ndcg.mean if base.ndcg.mean else None,
        "sae": {
            "cosine": codes.cosine._asdict(),
            "explained_variance": codes.explained_variance,
            "l0": codes.l0._asdict(),
            "dead_share_test": codes.dead_share,
            "dead_share_train": alive.dead_share,
        },
    }


def _plain(quality: Quality) -> dict[str, Any]:
    return {
        "recall": quality.recall._asdict(),
        "ndcg": quality.ndcg._asdict(),
        "coverage": quality.coverage,
    }


def _aligned(fitted: Fitted, holdout: HoldOut) -> tuple[Rows, Rows]:
    """Inputs and targets of the users that have both."""
    if holdout.inputs.item_ids != fitted.item_ids:
        raise ValueError(
            "holdout must have the items of the model in the same order; "
            "split users after filtering, then fit on the training users"
        )
    keep = np.flatnonzero(holdout.targets.counts_per_user() > 0)
    if not len(keep):
        raise ValueError("holdout must have at least one user with targets, got none")
    return holdout.inputs.rows(keep), holdout.targets.rows(keep)


def _chunks(rows: Rows) -> list[Rows]:
    request = Request(rows, None, False)
    count = len(rows.offsets) - 1
    return [take(request, first, first + CHUNK).rows for first in range(0, count, CHUNK)]
