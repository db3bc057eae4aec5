"""Floor 5: how far a knob can be trusted: does its push find items of the concept it was not shown?

Station: after stage 3. The items of every concept are cut in two; a map made of one half is asked
for the other. What comes out is the probability that the knob lifts an unseen item of the concept
above an item without it: 1/2 is a coin.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cfsae_fast.concepts import ConceptMap, detection
from cfsae_fast.errors import require_extra
from cfsae_fast.ops import Code, topk_encode
from cfsae_fast.recommender import probing
from cfsae_fast.recommender.fitted import Fitted

if TYPE_CHECKING:
    from scipy.sparse import csr_array

FEWEST_ITEMS = 10  # of a concept whose knob is tested: five each way
# Items that are at least this often taken are asked about: the vectors of others are noise.
FEWEST_TAKEN = 5
# A concept of n items is believed as n / (n + this) its own, the rest the average concept's.
PRIOR_ITEMS = 10.0
CHUNK = 64  # concepts pushed at a time: bounds memory at CHUNK * I
NUDGE = 0.1  # of the mean embedding's length: a push of a decoder that is not linear


class Found(NamedTuple):
    """A latent that answers an attribute: its AUC or |rank correlation|, and the threshold of
    activation above which an item has the attribute (binary attributes; else NaN)."""

    latent: int
    score: float
    threshold: float
    inverse: bool


def push(fitted: Fitted, directions: np.ndarray) -> np.ndarray:
    """What moving along `directions` (n, d) of the dictionary's space does to scores: (n, I).

    Exact up to a factor for linear decoders; else the change of a mean user's scores.
    """
    if not fitted.cfae.decoder_layers:
        return directions @ fitted.cfae.items.T
    length = np.linalg.norm(fitted.cold) * NUDGE
    size = np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
    moved = (fitted.cold + length * directions / size).astype(np.float32)
    return fitted.cfae.decode(moved) - fitted.cfae.decode(fitted.cold[None])


def directions_of(concept_map: ConceptMap, dictionary: np.ndarray) -> np.ndarray:
    """(T, d): where each concept's boost goes; NaN for concepts without latents."""
    out = np.full((len(concept_map.names), dictionary.shape[1]), np.nan, dtype=np.float32)
    for at, name in enumerate(concept_map.names):
        if at not in concept_map.reasons:
            latents, weights = concept_map.target(name)
            out[at] = weights @ dictionary[latents]
    return out


def knob_auc(
    fitted: Fitted, concept_map: ConceptMap, unseen: csr_array, carried: csr_array
) -> np.ndarray:
    """AUC (T,) of each knob's push: items of `unseen` against items that do not carry the concept.

    unseen, carried (T, I) sparse. Items taken less than FEWEST_TAKEN times are not asked about;
    NaN where there is nothing to ask.
    """
    heard = np.bincount(fitted.histories.items, minlength=len(fitted.item_ids)) >= FEWEST_TAKEN
    directions = directions_of(concept_map, fitted.sae.dictionary)
    found = np.full(len(directions), np.nan)
    asked = np.flatnonzero(np.isfinite(directions).all(axis=1))
    for at, scores in zip(asked, _pushes(fitted, directions[asked]), strict=True):
        positive, negative = np.zeros_like(heard), heard.copy()
        positive[unseen.indices[unseen.indptr[at] : unseen.indptr[at + 1]]] = True
        negative[carried.indices[carried.indptr[at] : carried.indptr[at + 1]]] = False
        found[at] = detection.auc(scores, positive & heard, negative)
    return found


def _pushes(fitted: Fitted, directions: np.ndarray) -> Iterator[np.ndarray]:
    """The rows (I,) of `push`, made CHUNK at a time: a decoder reads all its weights once for each
    call, which took minutes for thousands of tags one by one."""
    for low in range(0, len(directions), CHUNK):
        yield from push(fitted, directions[low : low + CHUNK])


def confidence(
    fitted: Fitted, codes: Code, carried: csr_array, names: tuple[str, ...], *, seed: int, **how
) -> np.ndarray:
    """Cross-fitted `knob_auc` (T,), each half of the items asked by the other half's map.

    Drawn towards the average concept by PRIOR_ITEMS; NaN for concepts of under FEWEST_ITEMS items
    that were taken. how: as `probing.mapped`.
    """
    parts = detection.halves(carried, seed=seed)
    areas = [
        knob_auc(fitted, probing.mapped(fitted, codes, known, names, **how), unseen, carried)
        for known, unseen in (parts, parts[::-1])
    ]
    heard = np.bincount(fitted.histories.items, minlength=len(fitted.item_ids)) >= FEWEST_TAKEN
    sizes = ((carried != 0).astype(np.float64)) @ heard.astype(np.float64)
    area = np.where(sizes >= FEWEST_ITEMS, np.mean(areas, axis=0), np.nan)
    if np.isnan(area).all():
        return area
    average = np.nansum(area * sizes * ~np.isnan(area)) / (sizes * ~np.isnan(area)).sum()
    return (sizes * area + PRIOR_ITEMS * average) / (sizes + PRIOR_ITEMS)


def activations(fitted: Fitted, width: int) -> csr_array:
    """The `width` strongest activations of every item alone, (I, L): more than its code keeps."""
    sparse = require_extra("scipy.sparse", extra="train", purpose="reading items")
    sae = fitted.sae
    code = topk_encode(
        fitted.cfae.encode_items(),
        sae.encoder,
        sae.encoder_bias,
        sae.bias,
        min(width, sae.n_latents),
        standardize=sae.standardize,
    ).code
    kept = code.indices >= 0
    at = (np.nonzero(kept)[0], code.indices[kept])
    return sparse.csr_array((code.values[kept], at), shape=(len(code.indices), sae.n_latents))


def find_latents(fitted: Fitted, attribute: np.ndarray, *, top: int = 5) -> list[Found]:
    """The latents that best tell a binary (bool) or real attribute of items (I,), best first.

    Binary: by the AUC of the item codes, from 1/2 (a coin) to 1; real: by |rank correlation|.
    inverse: the latent fires where the attribute is absent, or low. NaN items are left out.

    Raises:
        ValueError: the attribute is not (I,), or the same for all items.
    """
    from cfsae_fast.recommender.labelling import item_codes

    given = np.asarray(attribute)
    if given.shape != (len(fitted.item_ids),):
        raise ValueError(f"attribute must be one per item ({len(fitted.item_ids)},), "
                         f"got shape {given.shape}")  # fmt: skip
    known = np.ones(len(given), bool) if given.dtype == bool else ~np.isnan(given.astype(float))
    values = given[known]
    if not len(values) or (values == values[0]).all():
        raise ValueError("attribute must differ between items, got one value for all")
    code = item_codes(fitted)
    dense = _column_reader(code, fitted.sae.n_latents, known)
    ranks = _ranks(values.astype(np.float64))
    scored = [_score(latent, column, ranks, values) for latent, column in dense]
    return sorted(scored, key=lambda one: (-one.score, one.latent))[:top]


def _column_reader(code: Code, n_latents: int, known: np.ndarray):
    """(latent, its activation on the known items) of latents that fire for some of them."""
    rows, slots = np.nonzero((code.indices >= 0) & known[:, None])
    latents, values = code.indices[rows, slots], code.values[rows, slots]
    order, place = np.argsort(latents, kind="stable"), np.cumsum(known) - 1
    ends = np.cumsum(np.bincount(latents, minlength=n_latents))
    for latent in np.unique(latents).tolist():
        here = order[ends[latent - 1] if latent else 0 : ends[latent]]
        column = np.zeros(int(known.sum()))
        column[place[rows[here]]] = values[here]
        yield latent, column


def _score(latent: int, column: np.ndarray, ranks: np.ndarray, values: np.ndarray) -> Found:
    if values.dtype == bool:
        area = detection.auc(column, values, ~values)
        sign = 1 if area >= 0.5 else -1
        threshold = sign * detection.best_threshold(sign * column, values, ~values)
        return Found(latent, max(area, 1 - area), threshold, area < 0.5)
    own = _ranks(column)
    spread = own.std() * ranks.std()
    together = ((own - own.mean()) * (ranks - ranks.mean())).mean()
    correlation = float(together / spread) if spread else 0.0
    return Found(latent, abs(correlation), float("nan"), correlation < 0)


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((2 * last - counts + 1) / 2)[inverse]
