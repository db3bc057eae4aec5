"""Floor 2: which latents stand for a concept, and which tag names a latent.

Station: stage 3, scores -> ConceptMap. The first four methods are those of the paper's code
(METHOD.md 5.5, in its order); lift is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cfsae_fast.concepts import scores
from cfsae_fast.concepts.map import ConceptMap
from cfsae_fast.ops.containers import Code

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class _Method(NamedTuple):
    """score: (n_tags, L); names_latents: each latent chooses its tag, instead of each tag its
    latents; absent: why a concept that has items may still have no latent."""

    score: Callable[[scores.Joined], csr_array]
    names_latents: bool
    absent: str


_SILENT = "its items activate no latent"
_CHOSEN = {
    "distinctive_tag": _Method(scores.by_tag, True, "no latent has it as its most distinctive tag"),
    "characteristic_tag": _Method(
        scores.by_latent, True, "no latent has it as its most characteristic tag"
    ),
    "best_characterizes": _Method(scores.by_tag, False, _SILENT),
    "most_unique": _Method(scores.by_latent, False, _SILENT),
    "lift": _Method(scores.lift, False, "no latent fires more on its items than elsewhere"),
}
METHODS = tuple(_CHOSEN)
NAMINGS = ("distinctive_tag", "characteristic_tag", "lift")

DEFAULT_METHOD = "lift"
DEFAULT_TOP = 5
# Latents kept beyond `top`, for suppress. anime-5k, 39 genres on at least 50 items, ELSA d 256,
# TopK k 32: with 5 latents suppress left over a quarter of the share of 4 genres in 5, with 128 of
# 1 in 39; 400 did no better.
REACH = 128


def build(
    codes: Code,
    tags: Any,
    names: Sequence[str],
    n_latents: int,
    *,
    method: str = DEFAULT_METHOD,
    top: int = DEFAULT_TOP,
    min_items: int = 1,
    popularity: np.ndarray | None = None,
) -> ConceptMap:
    """Map each tag to at most `top` latents, weighted by their scores (and REACH for suppress).

    codes (I, k): every item alone through encoder and SAE. tags: scipy sparse (n_tags, I) of
    counts or weights; names: one per tag; popularity (I,): read by lift. top=1 gives the paper's
    maps. A latent that no item activates is never chosen; a tag without latents, or on fewer than
    `min_items` items, is kept as absent, with the reason.

    Raises:
        ValueError: unknown method, or shapes, names or entries that do not fit.
        MissingExtraError: scipy is not installed.
    """
    chosen = _method(method, METHODS)
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    joined = _joined(codes, tags, names, n_latents, popularity)
    scored = chosen.score(joined)
    if chosen.names_latents:
        scored = _best(scored.T.tocsr(), 1).T.tocsr()
    counts = np.diff(joined.tags.indptr).astype(np.int64)
    found = _best(_rows_where(scored, counts >= min_items), max(top, REACH))
    sums = np.asarray(found.sum(axis=1)).ravel()
    sizes = np.diff(found.indptr)
    return ConceptMap(
        names=tuple(names),
        offsets=found.indptr.astype(np.int64),
        latents=found.indices.astype(np.int32),
        weights=(found.data / np.repeat(sums, sizes)).astype(np.float32),
        scores=_first(found).astype(np.float32),
        counts=counts,
        reasons=_reasons(joined, counts, sizes, min_items, chosen.absent),
        method=method,
        n_latents=n_latents,
        top=top,
    )


def latent_names(
    codes: Code, tags: Any, names: Sequence[str], n_latents: int, *, method: str = "distinctive_tag"
) -> dict[int, str]:
    """The tag that names each latent; latents that no tagged item activates have none.

    method "distinctive_tag": the tag whose activation this latent takes the largest share of;
    "characteristic_tag": the tag with the largest part in the latent's activation; "lift".
    Arguments and errors as `build`.
    """
    chosen = _method(method, NAMINGS)
    scored = chosen.score(_joined(codes, tags, names, n_latents))
    best = _best(scored.T.tocsr(), 1)
    latents = np.flatnonzero(np.diff(best.indptr))
    pairs = zip(latents.tolist(), best.indices.tolist(), strict=True)
    return {latent: names[tag] for latent, tag in pairs}


def _method(method: str, known: tuple[str, ...]) -> _Method:
    if method not in known:
        raise ValueError(f"method must be one of {known}, got {method!r}")
    return _CHOSEN[method]


def _joined(
    codes: Code,
    tags: Any,
    names: Sequence[str],
    n_latents: int,
    popularity: np.ndarray | None = None,
) -> scores.Joined:
    joined = scores.join(codes, tags, n_latents, popularity)
    if len(names) != joined.tags.shape[0]:
        raise ValueError(f"names must be one per tag ({joined.tags.shape[0]}), got {len(names)}")
    return joined


def _best(scored: csr_array, top: int) -> csr_array:
    """The `top` largest entries of each row, best first, ties to the smaller column."""
    columns, values = [], []
    for first, last in zip(scored.indptr, scored.indptr[1:], strict=False):
        order = np.argsort(-scored.data[first:last], kind="stable")[:top]
        columns.append(scored.indices[first:last][order])
        values.append(scored.data[first:last][order])
    indptr = np.cumsum([0, *map(len, columns)])
    flat = [np.concatenate(parts) if parts else np.empty(0) for parts in (values, columns)]
    return type(scored)((flat[0], flat[1].astype(np.int64), indptr), shape=scored.shape)


def _rows_where(scored: csr_array, kept: np.ndarray) -> csr_array:
    sizes = np.diff(scored.indptr)
    inside = np.repeat(kept, sizes)
    indptr = np.cumsum(np.append(0, sizes * kept))
    return type(scored)((scored.data[inside], scored.indices[inside], indptr), shape=scored.shape)


def _first(found: csr_array) -> np.ndarray:
    """First stored value of each row, 0 where there is none."""
    values = np.zeros(found.shape[0])
    filled = np.diff(found.indptr) > 0
    values[filled] = found.data[found.indptr[:-1][filled]]
    return values


def _reasons(
    joined: scores.Joined, counts: np.ndarray, sizes: np.ndarray, min_items: int, absent: str
) -> dict[int, str]:
    active = np.diff((joined.tags @ joined.codes).indptr)
    reasons = {}
    for tag in np.flatnonzero(sizes == 0).tolist():
        if counts[tag] == 0:
            reasons[tag] = "no item carries it"
        elif counts[tag] < min_items:
            reasons[tag] = f"only {counts[tag]} items carry it, min_items is {min_items}"
        else:
            reasons[tag] = absent if active[tag] else _SILENT
    return reasons
