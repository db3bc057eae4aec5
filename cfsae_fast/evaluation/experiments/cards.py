"""Floor 6: what one latent is about, as plain data: for reports, and for people who label.

Station: item codes, user codes and lists before and after a boost, seen from one latent.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cfsae_fast.evaluation.protocol import Protocol
from cfsae_fast.ops import Rows
from cfsae_fast.recommender import Fitted, pipeline
from cfsae_fast.recommender.inputs import Request
from cfsae_fast.recommender.labelling import item_codes
from cfsae_fast.steering import boost

CARDS, ITEMS, LIST, BINS, TURN = 12, 8, 8, 12, 0.3


def cards(fitted: Fitted, cut: Protocol) -> list[dict[str, Any]]:
    """The first latent of the CARDS most trusted concepts, each concept's and latent's once."""
    if fitted.concepts is None:
        return []
    codes, users = item_codes(fitted), fitted.sae.encode(fitted.cfae.encode(fitted.histories)).code
    ranked = sorted(
        fitted.concepts, key=lambda one: -np.nan_to_num(one.confidence, nan=0.0) * one.n_items**0.1
    )
    found, seen = [], set()
    for concept in ranked:
        latent = int(concept.latents[0])
        if latent not in seen and len(found) < CARDS:
            seen.add(latent)
            found.append(_card(fitted, cut, concept, latent, codes, users))
    return found


def _card(
    fitted: Fitted, cut: Protocol, concept: Any, latent: int, codes: Any, users: Any
) -> dict[str, Any]:
    mine = np.where(codes.indices == latent, codes.values, 0).sum(axis=1)
    best = np.argsort(-mine, kind="stable")[:ITEMS]
    fires = users.indices == latent
    values = users.values[fires]
    counts, edges = np.histogram(values, bins=BINS) if len(values) else ([], [])
    rows, user = _listener(cut, fires)
    before, after = (_titles(fitted, rows, turn) for turn in (None, boost(concept.name, TURN)))
    return {
        "latent": latent,
        "concept": concept.name,
        "confidence": float(concept.confidence),
        "verdict": concept.verdict,
        "items_with_concept": concept.n_items,
        "top_items": [_title(fitted, at) for at in best if mine[at] > 0],
        "fires_for_share_of_users": float(fires.any(axis=1).mean()),
        "histogram": {"counts": np.asarray(counts).tolist(), "edges": np.asarray(edges).tolist()},
        "fires_with": _together(fitted, users, fires, latent),
        "user": user,
        "before": before,
        "after": after,
        "alpha": TURN,
    }


def _together(fitted: Fitted, users: Any, fires: np.ndarray, latent: int) -> list[dict[str, Any]]:
    """Latents whose users overlap most with this one's (Jaccard), with their names."""
    own = fires.any(axis=1)
    flat = users.indices[own]
    joint = np.bincount(flat[flat >= 0], minlength=fitted.sae.n_latents)
    every = np.bincount(users.indices[users.indices >= 0], minlength=fitted.sae.n_latents)
    overlap = joint / np.maximum(every + own.sum() - joint, 1)
    overlap[latent] = 0
    best = np.argsort(-overlap, kind="stable")[:4]
    return [
        {"latent": at, "name": fitted.latent_names.get(at, ""), "overlap": float(overlap[at])}
        for at in best.tolist()
        if overlap[at] > 0
    ]


def _listener(cut: Protocol, fires: np.ndarray) -> tuple[Rows, str]:
    """A test user, whose list is shown before and after: the one with the median history."""
    counts = cut.test.inputs.counts_per_user()
    at = int(np.argsort(counts, kind="stable")[len(counts) // 2])
    return cut.test.inputs.rows(np.array([at])), str(cut.test.inputs.user_ids.values[at])


def _titles(fitted: Fitted, rows: Rows, turn: Any) -> list[str]:
    embedding = pipeline.embed(fitted, Request(rows, None, False))
    moved = pipeline.steer(fitted, embedding, [[turn] if turn else []], mode="residual")
    ids = pipeline.top(fitted, moved, LIST, seen=rows).ids[0]
    return [_title(fitted, int(at)) for at in ids if at >= 0]


def _title(fitted: Fitted, at: int) -> str:
    return fitted.title(at) or str(fitted.item_ids.values[at])
