"""Floor 6: what the code alone keeps of the ranking (METHOD.md 4), with what the paper reported.

Station: encode -> SAE.encode -> SAE.decode -> top-N against encode -> top-N, per user.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cfsae_fast import metrics
from cfsae_fast.data import HoldOut
from cfsae_fast.evaluation.protocol import Protocol
from cfsae_fast.ops import Encoded, Rows
from cfsae_fast.recommender import Fitted, pipeline

N = 20
REFINE_STEPS = 5
CHUNK = 1024
DRAWS = 1000
PUBLISHED_ROWS = 256  # users whose scores of all items are held at a time: 42 MB on ML-25M


def judge(fitted: Fitted, cut: Protocol, cell: Any) -> dict[str, Any]:
    """Base and with-SAE nDCG and recall, what is kept (with its interval), dead latents."""
    keep = np.flatnonzero(cut.test.targets.counts_per_user() > 0)
    inputs, targets = cut.test.inputs.rows(keep), cut.test.targets.rows(keep)
    sae = fitted.sae
    base = ranked(fitted, inputs, targets, None)
    ways = {
        "reconstruct": sae.encode,
        f"refined_{REFINE_STEPS}": lambda x: sae.encode(x, refine_steps=REFINE_STEPS),
        "pursued": sae.pursue,
    }
    found: dict[str, Any] = {"users": len(keep), "base": _means(base)}
    for name, encode in ways.items():
        steered = ranked(fitted, inputs, targets, encode)
        found[name] = {**_means(steered), **compared(steered["ndcg"], base["ndcg"], cell.seed)}
    found["sae"] = fidelity(fitted, inputs)
    if cell.compat == "paper":
        parts = {"val": cut.validation, "test": cut.test}
        found["paper"] = {name: as_published(fitted, one) for name, one in parts.items()}
    return found


def ranked(
    fitted: Fitted, inputs: Rows, targets: Rows, encode: Callable[[np.ndarray], Encoded] | None
) -> dict[str, np.ndarray]:
    """nDCG and recall of each user, through a code where `encode` says how it is made."""
    embedding = fitted.cfae.encode(inputs)
    if encode is not None:
        embedding = fitted.sae.decode(encode(embedding))
    ids = pipeline.top(fitted, embedding, N, seen=inputs).ids
    return {
        "ndcg": metrics.ndcg_at(ids, targets, N),
        "recall": metrics.recall_at(ids, targets, N),
    }


def compared(steered: np.ndarray, base: np.ndarray, seed: int) -> dict[str, float]:
    """kept: ratio of means with its bootstrap interval over users; degradation: the mean paired
    difference, its standard error, and p of a two-sided sign-flip test."""
    random, n = np.random.default_rng([seed, 0xD1FF]), len(base)
    times = random.multinomial(n, np.full(n, 1 / n), size=DRAWS)
    low, high = np.percentile((times @ steered) / (times @ base), [2.5, 97.5])
    difference = steered - base
    flips = random.choice([-1.0, 1.0], size=(DRAWS, n)) @ difference
    return {
        "kept": float(steered.mean() / base.mean()),
        "kept_low": float(low),
        "kept_high": float(high),
        "degradation": float(difference.mean()),
        "degradation_se": float(difference.std(ddof=1) / np.sqrt(n)),
        "p": float((1 + (np.abs(flips) >= abs(difference.sum())).sum()) / (1 + DRAWS)),
    }


def fidelity(fitted: Fitted, inputs: Rows) -> dict[str, float]:
    """Cosine, explained variance, L0 on test inputs; dead share over training and test users."""
    sae, meters = fitted.sae, []
    for rows in (inputs, fitted.histories):
        meter = metrics.CodeMeter(sae.n_latents)
        for low in range(0, len(rows.offsets) - 1, CHUNK):
            part = rows.take(np.arange(low, min(low + CHUNK, len(rows.offsets) - 1)))
            embedding = fitted.cfae.encode(part)
            encoded = sae.encode(embedding)
            meter.update(embedding, sae.decode(encoded), encoded.code)
        meters.append(meter)
    test, train = (meter.result() for meter in meters)
    return {
        "cosine": test.cosine.mean,
        "explained_variance": test.explained_variance,
        "l0": test.l0.mean,
        "dead_share_train": train.dead_share,
        "dead_share_test": test.dead_share,
        "dead_reported_by_paper": int((meters[0].fired[: sae.d] == 0).sum()),
    }


def as_published(fitted: Fitted, holdout: HoldOut) -> dict[str, Any]:
    """What a published result file says of one part, by its rules (METHOD.md 3.3 and 4).

    Scores are non-negative, an input's own part taken off (ELSA), and seen items set to 0 rather
    than left out; cosine is to the standardised embedding; of dead latents the first d count.
    """
    keep = np.flatnonzero(holdout.targets.counts_per_user() > 0)
    values: dict[str, list[np.ndarray]] = {}
    fired = np.zeros(fitted.sae.n_latents, dtype=np.int64)
    for low in range(0, len(keep), PUBLISHED_ROWS):
        users = keep[low : low + PUBLISHED_ROWS]
        inputs, targets = holdout.inputs.rows(users), holdout.targets.rows(users)
        embedding = fitted.cfae.encode(inputs)
        encoded = fitted.sae.encode(embedding)
        decoded = fitted.sae.decode(encoded)
        fired += metrics.fired(encoded.code, len(fired))
        base, through = (_published_ids(fitted, one, inputs) for one in (embedding, decoded))
        found = {
            "cosine": metrics.cosine(_standardised(embedding, encoded), decoded),
            "l0": metrics.l0(encoded.code).astype(np.float64),
        }
        for name, metric in (("recall", metrics.recall_at), ("ndcg", metrics.ndcg_at)):
            found[name] = metric(through, targets, N)
            found[f"{name} degradation"] = found[name] - metric(base, targets, N)
        for name, one in found.items():
            values.setdefault(name, []).append(one)
    joined = {name: np.concatenate(parts) for name, parts in values.items()}
    before = joined["ndcg"].mean() - joined["ndcg degradation"].mean()
    return {
        **_means(joined),
        "dead neurons": int((fired[: fitted.sae.d] == 0).sum()),
        "kept": float(joined["ndcg"].mean() / before),
    }


def _published_ids(fitted: Fitted, embedding: np.ndarray, inputs: Rows) -> np.ndarray:
    """The published top-N, (B, N)."""
    scores, at = fitted.cfae.decode(embedding), _entries(inputs)
    if fitted.cfae.kind == "elsa":
        np.subtract.at(scores, at, 1.0)
        scores = np.maximum(scores, 0)
    else:
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    scores[at] = 0
    return np.argsort(-scores, axis=1, kind="stable")[:, :N]


def _standardised(embedding: np.ndarray, encoded: Encoded) -> np.ndarray:
    if encoded.stats is None:
        return embedding
    mean, std = (np.asarray(one)[:, None] for one in encoded.stats)
    return (embedding - mean) / std


def _entries(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    counts = np.diff(rows.offsets)
    return np.repeat(np.arange(len(counts)), counts), rows.items


def _means(values: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: metrics.estimate(one)._asdict() for name, one in values.items()}
