"""Floor 2: how strongly each latent stands for each tag: tf-idf in two views, and lift.

Station: stage 3, between item codes and the ConceptMap. Everything is (n_tags, L) and sparse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cfsae_fast.errors import require_extra
from cfsae_fast.ops.containers import Code

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# An item without any evidence about the concept, added this often to it before lift is taken:
# what a handful of items happen to share says little about a concept.
LIFT_PRIOR_ITEMS = 5.0


class Joined(NamedTuple):
    """Item codes (I, L) and tags (n_tags, I), both CSR float64 without stored zeros.

    popularity (I,): how often each item was taken, or None where that is not known; read by lift.
    """

    codes: csr_array
    tags: csr_array
    popularity: np.ndarray | None = None


def join(codes: Code, tags: Any, n_latents: int, popularity: np.ndarray | None = None) -> Joined:
    """Codes of the items (I, k) and the tag-item matrix (n_tags, I), checked and made sparse.

    Raises:
        ValueError: shapes do not fit, or a code or tag entry is negative, NaN or infinite.
        MissingExtraError: scipy is not installed.
    """
    sparse = require_extra("scipy.sparse", extra="train", purpose="building a ConceptMap")
    indices, values = np.asarray(codes.indices), np.asarray(codes.values, dtype=np.float64)
    if indices.ndim != 2 or indices.shape != values.shape:
        raise ValueError(f"codes must have shapes (I, k), got {indices.shape} and {values.shape}")
    if indices.size and not -1 <= indices.min() <= indices.max() < n_latents:
        raise ValueError(f"codes must name latents in [-1, n_latents={n_latents})")
    tags = sparse.csr_array(tags, dtype=np.float64, copy=True)
    if tags.shape[1] != len(indices):
        raise ValueError(f"tags must have one column per item ({len(indices)}), got {tags.shape}")
    used = indices >= 0
    for name, entries in (("codes", values[used]), ("tags", tags.data)):
        if not (np.isfinite(entries).all() and (entries >= 0).all()):
            raise ValueError(f"{name} must be finite and not negative, got an entry that is not")
    if popularity is not None:
        popularity = np.asarray(popularity, dtype=np.float64)
        if popularity.shape != (len(indices),) or not (
            np.isfinite(popularity).all() and (popularity >= 0).all()
        ):
            raise ValueError(f"popularity must be {len(indices)} finite numbers of at least 0")
    at = (np.nonzero(used)[0], indices[used])
    matrix = sparse.csr_array((values[used], at), shape=(len(indices), n_latents))
    return Joined(_without_zeros(matrix), _without_zeros(tags), popularity)


def activity(joined: Joined) -> csr_array:
    """G = P S, (n_tags, L): activation of each latent under each tag.

    P is the share of all assignments that give tag t to item i, S the item codes (METHOD.md 5.4).
    """
    total = joined.tags.sum()
    return _without_zeros((joined.tags / (total if total > 0 else 1.0)) @ joined.codes)


def tf_idf(counts: csr_array) -> csr_array:
    """tf-idf of (terms, documents): tf = share of its document, idf = ln((N + 1) / (df + 1)) + 1.

    N documents, df of them hold the term. An empty document stays empty.
    """
    table = counts.tocoo()
    rows, columns = table.row, table.col
    per_document = np.bincount(columns, weights=table.data, minlength=counts.shape[1])
    holding = np.bincount(rows, minlength=counts.shape[0])
    idf = np.log((counts.shape[1] + 1) / (holding + 1)) + 1
    weighted = table.copy()
    weighted.data = table.data / per_document[columns] * idf[rows]
    return weighted.tocsr()


def by_tag(joined: Joined) -> csr_array:
    """V1 of METHOD.md 5.4, as (n_tags, L): latents are terms, tags are documents."""
    return tf_idf(activity(joined).T.tocsr()).T.tocsr()


def by_latent(joined: Joined) -> csr_array:
    """V2 of METHOD.md 5.4, (n_tags, L): tags are terms, latents are documents."""
    return tf_idf(activity(joined))


def lift(joined: Joined) -> csr_array:
    """How much more a latent fires on the tag's items than on the catalogue, (n_tags, L).

    With m the mean activation on the tag's items (LIFT_PRIOR_ITEMS average items added) and q the
    mean over the catalogue: m ln(m / q) where m > q, else nothing. A latent that is always on has
    m = q and stands for no tag, which tf-idf's idf is too weak to see (METHOD.md 5.5, pathology).
    Items count by the root of their popularity, as a list is made of those that are taken, not of
    the catalogue's tail, whose codes are noise: on hetrec2011-lastfm-2k suppress then leaves 4 % of
    a tag's share in the top-20, where equal items left 27 % at three times the push.
    """
    weights = _weights(joined)
    carried = joined.tags.copy()
    carried.data = weights[carried.indices]
    sums = _without_zeros(carried @ joined.codes).tocoo()
    rows, columns = sums.row, sums.col
    average = (weights @ joined.codes) / max(weights.sum(), 1.0)
    n_items = np.asarray(carried.sum(axis=1)).ravel()
    prior = LIFT_PRIOR_ITEMS
    q = average[columns]
    m = (sums.data + prior * q) / (n_items[rows] + prior)
    scored = sums.copy()
    scored.data = np.maximum(m * np.log(m / q), 0.0)
    return _without_zeros(scored.tocsr())


def _weights(joined: Joined) -> np.ndarray:
    """Weight (I,) of each item, 1 on average."""
    n_items = joined.codes.shape[0]
    if joined.popularity is None or not joined.popularity.any():
        return np.ones(n_items)
    root = np.sqrt(joined.popularity)
    return root / root.mean()


def _without_zeros(matrix: csr_array) -> csr_array:
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix
