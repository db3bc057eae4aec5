"""Floor 2: how far a latent's tags, or a tag's latents, are from the average one's.

Station: stage 3, a look at the two tf-idf views before anything is chosen from them (METHOD 5.6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

PAPER_EPSILON = 1e-9  # added to p in the published divergence


class Divergences(NamedTuple):
    """One number per row with a positive sum; p is that row, m the sum of all rows, each of sum 1.

    rows (n,): positions of those rows. entropy: H(p), in nats. entropy_decrease: (H(m) - H(p)) /
    H(m). kl: KL(p || m) / ln(columns alive), which is at most about 1 whatever their number. js:
    Jensen-Shannon in bits, in [0, 1]. paper_kl: KL(m || p + 1e-9) in nats, the published one, which
    mostly measures how many columns p leaves empty. alive: columns with a positive sum. reference:
    H(m), in nats.
    """

    rows: np.ndarray
    entropy: np.ndarray
    entropy_decrease: np.ndarray
    kl: np.ndarray
    js: np.ndarray
    paper_kl: np.ndarray
    alive: int
    reference: float


def divergences(table: csr_array) -> Divergences:
    """Of every row of a sparse table of numbers >= 0 from the table's average row.

    Source: METHOD.md 5.6 for entropy and paper_kl; Lin 1991 for Jensen-Shannon.
    """
    table = table.tocsr()
    sums = np.asarray(table.sum(axis=1)).ravel()
    whole = np.asarray(table.sum(axis=0)).ravel()
    m = whole / whole.sum() if whole.sum() > 0 else whole
    alive = int((m > 0).sum())
    rows = np.flatnonzero(sums > 0)
    each = [_of_row(table, row, sums[row], m) for row in rows]
    entropy, kl, js, paper = np.array(each).reshape(len(rows), 4).T
    reference = _entropy(m)
    return Divergences(
        rows,
        entropy,
        (reference - entropy) / reference if reference > 0 else np.zeros(len(rows)),
        kl / np.log(alive) if alive > 1 else kl,
        js / np.log(2),
        paper,
        alive,
        reference,
    )


def _of_row(table: csr_array, row: int, total: float, m: np.ndarray) -> tuple[float, ...]:
    span = slice(table.indptr[row], table.indptr[row + 1])
    at, p = table.indices[span][table.data[span] > 0], table.data[span] / total
    p = p[p > 0]
    inside = m[at]
    middle = (p + inside) / 2
    outside = max(1 - inside.sum(), 0.0)  # mass of m where p is 0; its mixture there is m / 2
    js = (_relative(p, middle) + _relative(inside, middle) + outside * np.log(2)) / 2
    dense = np.zeros(len(m))
    dense[at] = p
    return _entropy(p), _relative(p, inside), js, _published(m, dense)


def _published(m: np.ndarray, p: np.ndarray) -> float:
    smoothed = (p + PAPER_EPSILON) / (1 + PAPER_EPSILON * len(p))
    return _relative(m[m > 0], smoothed[m > 0])


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def _relative(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum())
