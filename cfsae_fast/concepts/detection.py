"""Floor 2: does a concept's reading find items whose tag it never saw? AUC, halves, and their null.

Station: stage 3, judged: tags are cut in two, one half makes the map, the other half tests it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cfsae_fast.errors import require_extra

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def halves(tags: Any, *, seed: int = 42) -> tuple[csr_array, csr_array]:
    """Two disjoint halves of each tag's items: (n_tags, I) -> two such; the odd item to the first.

    A function of the matrix' shape, of which item carries which tag, and of `seed`.
    """
    sparse = require_extra("scipy.sparse", extra="train", purpose="cutting tags in halves")
    tags = sparse.csr_array(tags)
    generator = np.random.default_rng([seed, 0x7A65])
    first = np.zeros(tags.nnz, dtype=bool)
    for low, high in zip(tags.indptr, tags.indptr[1:], strict=False):
        first[low + generator.permutation(high - low)[: (high - low + 1) // 2]] = True
    return _entries(tags, first), _entries(tags, ~first)


def auc(scores: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """How often a positive scores above a negative, ties counting half; NaN where one is missing.

    scores (n,); positive, negative: (n,) bool, or positions. Mann and Whitney 1947.
    """
    high, low = scores[positive], np.sort(scores[negative])
    if not len(high) or not len(low):
        return float("nan")
    below = np.searchsorted(low, high, side="left")
    not_above = np.searchsorted(low, high, side="right")
    return float((below + not_above).sum() / 2 / len(low) / len(high))


def auc_error(area: np.ndarray, n_positive: np.ndarray, n_negative: np.ndarray) -> np.ndarray:
    """Standard error of an AUC, by Hanley and McNeil 1982, eq. 1."""
    area = np.asarray(area, dtype=np.float64)
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = (
        area * (1 - area) + (n_positive - 1) * (q1 - area**2) + (n_negative - 1) * (q2 - area**2)
    )
    return np.sqrt(np.maximum(spread, 0) / (n_positive * n_negative))


def balanced_accuracy(
    scores: np.ndarray, positive: np.ndarray, negative: np.ndarray, threshold: float
) -> float:
    """Mean of the shares of positives above, and negatives at or below `threshold`."""
    return float(
        ((scores[positive] > threshold).mean() + (scores[negative] <= threshold).mean()) / 2
    )


def best_threshold(scores: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """The threshold of the best balanced accuracy; the lowest of several."""
    high, low = np.sort(scores[positive]), np.sort(scores[negative])
    cuts = np.unique(np.concatenate([[-np.inf], high, low]))
    above = 1 - np.searchsorted(high, cuts, side="right") / max(len(high), 1)
    below = np.searchsorted(low, cuts, side="right") / max(len(low), 1)
    return float(cuts[np.argmax(above + below)])


def shuffled(tags: Any, *, seed: int = 42) -> csr_array:
    """The same tags on randomly renamed items: what a reading of nothing would look like."""
    sparse = require_extra("scipy.sparse", extra="train", purpose="shuffling tags")
    tags = sparse.csr_array(tags)
    return tags[:, np.random.default_rng([seed, 0x4E55]).permutation(tags.shape[1])].tocsr()


def calibration_error(stated: np.ndarray, actual: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: |mean stated - mean actual| per bin of `stated`, by bin size.

    Bins are equally wide over [0, 1]; pairs with a NaN are left out. Naeini et al. 2015.
    """
    known = ~(np.isnan(stated) | np.isnan(actual))
    stated, actual = stated[known], actual[known]
    if not len(stated):
        return float("nan")
    at = np.minimum((stated * bins).astype(int), bins - 1)
    gaps = np.bincount(at, weights=stated - actual, minlength=bins)
    return float(np.abs(gaps).sum() / len(stated))


def _entries(tags: csr_array, kept: np.ndarray) -> csr_array:
    counts = np.concatenate([[0], np.cumsum(kept)])
    return type(tags)((tags.data[kept], tags.indices[kept], counts[tags.indptr]), shape=tags.shape)
