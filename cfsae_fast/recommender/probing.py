"""Floor 5: concept maps by probing: which latents together point where a tag's items are.

Station: stage 3, as the other maps of `concepts`; this one reads item embeddings and the dictionary
instead of item codes. Ridge regressions from embeddings to the tag give a direction, matching
pursuit writes it as a few atoms with weights >= 0. `steering.toward` moves a user along it, as far
as `pulls` says.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cfsae_fast import concepts
from cfsae_fast.concepts import ConceptMap
from cfsae_fast.inference import pursuit
from cfsae_fast.ops import Code
from cfsae_fast.recommender.fitted import PROBE, Fitted
from cfsae_fast.steering import Add, Turns, toward_amounts

METHOD = PROBE  # of a map, beside concepts.METHODS
# Times the mean eigenvalue of the items' second moments. 1, 10 and 100 find items of anime-5k's
# genres that were not shown with the same AUC within 0.01.
RIDGE = 10.0
# A map's direction is two in one: all items alike, which finds items that nobody tagged, and items
# by how many training users took them, which ranks those right that lists are made of.
ALIKE, TAKEN = 1.0, 0.1  # their ridges
TAKEN_SHARE = 0.3  # of the second in the sum, both of length 1
CHUNK = 1 << 16  # items regressed on at a time: bounds memory at 3 CHUNK d
TOP = 64  # latents of a map; their sum lies 0.97 along the direction (anime-5k, d 256, L 2048)
SURE = 1.5  # the power by which embeddings longer than usual are moved less


def directions(
    items: np.ndarray, tags: Any, *, ridge: float = RIDGE, weights: np.ndarray | None = None
) -> np.ndarray:
    """Ridge regression of carrying a tag (0 / 1) on item embeddings: (I, d), (T, I) -> (T, d).

    weights (I,) >= 0: how much each item counts (None: all alike).
    """
    counts = np.ones(len(items)) if weights is None else weights / weights.mean()
    blocks = [slice(low, low + CHUNK) for low in range(0, len(items), CHUNK)]
    mean = sum(counts[at] @ items[at].astype(np.float64) for at in blocks) / len(items)
    carried = (tags != 0).astype(np.float64)
    moments, aimed = 0.0, 0.0
    for at in blocks:
        centred = items[at].astype(np.float64) - mean
        weighted = centred * counts[at, None]
        moments = moments + weighted.T @ centred
        aimed = aimed + np.asarray(carried[:, at] @ weighted)
    spread = np.trace(moments) or 1.0  # items that are all alike have no direction, and no moments
    moments[np.diag_indices_from(moments)] += ridge * spread / len(moments)
    return np.linalg.solve(moments, aimed.T).T


def wanted(fitted: Fitted, tags: Any) -> np.ndarray:
    """(T, d) float32 of length 1 (or 0): where `build` has the concepts of tags (T, I) point."""
    items = fitted.cfae.encode_items()
    taken = np.bincount(fitted.histories.items, minlength=len(items)) + 0.5
    alike = _unit(directions(items, tags, ridge=ALIKE))
    heard = _unit(directions(items, tags, ridge=TAKEN, weights=taken))
    return _unit((1 - TAKEN_SHARE) * alike + TAKEN_SHARE * heard).astype(np.float32)


def build(fitted: Fitted, tags: Any, names: tuple[str, ...], *, top: int = TOP) -> ConceptMap:
    """The map of tags (T, I) on a fitted model, method "probe"; `top` latents a concept at most.

    It reads the tags, the items' embeddings, and how many stored users took each item.
    """
    told = wanted(fitted, tags)
    code = pursuit.pursue(told, fitted.sae.dictionary, min(top, fitted.sae.n_latents))
    kept = code.indices >= 0
    sums = code.values.sum(axis=1, keepdims=True)
    weights = code.values / np.where(sums > 0, sums, 1)
    empty = np.flatnonzero(~kept.any(axis=1)).tolist()
    return ConceptMap(
        names=tuple(names),
        offsets=np.concatenate([[0], np.cumsum(kept.sum(axis=1))]),
        latents=code.indices[kept],
        weights=weights[kept],
        scores=code.values[:, 0] if code.values.shape[1] else np.zeros(len(names)),
        counts=np.diff(tags.indptr),
        reasons=dict.fromkeys(empty, "no latent points to its items"),
        method=METHOD,
        n_latents=fitted.sae.n_latents,
        top=top,
    )


def mapped(
    fitted: Fitted, codes: Code, tags: Any, names: tuple[str, ...], *, method: str | None = None,
    top: int | None = None, popularity: np.ndarray | None = None,
) -> ConceptMap:  # fmt: skip
    """The map of tags (T, I) by a method of `concepts.build`, or by METHOD of this room; None:
    their defaults. codes, popularity: as `concepts.build`.
    """
    given = {} if top is None else {"top": top}
    if method == METHOD:
        return build(fitted, tags, names, **given)
    if method is not None and method not in concepts.METHODS:
        raise ValueError(f"method must be one of {(*concepts.METHODS, METHOD)}, got {method!r}")
    given |= {} if method is None else {"method": method}
    return concepts.build(codes, tags, names, fitted.sae.n_latents, popularity=popularity, **given)


def toward(
    fitted: Fitted, concept_map: ConceptMap, concept: str, strength: float, *, pull: float = 1.0
) -> Turns:
    """`steering.toward` as Add turns, by a map and a pull that are given; for experiments.

    pull: this user's, of `pulls`.

    Raises:
        UnknownConceptError: no such concept. ValueError: strength is not in [0, 1].
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be in [0, 1], got {strength:g}")
    latents, weights = concept_map.target(concept)
    length = fitted.length_of(latents, weights)
    if not strength or not length:
        return Turns()
    amounts = toward_amounts(weights.astype(np.float64), length, strength, pull)
    return Turns((Add(tuple(latents.tolist()), tuple(amounts.tolist()), relative=True),))


def pulls(fitted: Fitted, embedding: np.ndarray) -> np.ndarray:
    """How far each user is to be moved beside the usual one, by toward: (B, d) -> (B,).

    (usual length / length) ** SURE: a long embedding stands for a history that says much, and what
    it recommends is worth more; the usual is the median of stored users. An embedding of zeros
    gets 1.
    """
    lengths = np.linalg.norm(embedding.astype(np.float64), axis=1)
    ratio = np.divide(fitted.usual_length, lengths, out=np.ones_like(lengths), where=lengths > 0)
    return ratio**SURE


def _unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)
