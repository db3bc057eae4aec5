"""EASE (Steck, WWW 2019): the closed-form item-item model, the yardstick of linear models.

B has zero diagonal and minimises ||X - X B||^2 + regularization ||B||^2: B_ij = -P_ij / P_jj with
P = (X'X + regularization)^-1. With fewer users than items P is not formed: by Woodbury's identity
P = (1 - X' M X) / regularization, M = (X X' + regularization)^-1 of (U, U).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse


class Ease(NamedTuple):
    """rows (U, I) of training; solved = M X (U, I); diagonal (I,) of regularization * P."""

    rows: scipy.sparse.csr_matrix
    solved: np.ndarray
    diagonal: np.ndarray


def fit(interactions: scipy.sparse.csr_matrix, regularization: float) -> Ease:
    """EASE on binary rows (U, I); exact, in O(U^2 I)."""
    rows = scipy.sparse.csr_matrix(interactions, dtype=np.float64)
    gram = (rows @ rows.T).toarray()
    gram[np.diag_indices_from(gram)] += regularization
    factor = scipy.linalg.cho_factor(gram, overwrite_a=True, check_finite=False)
    solved = scipy.linalg.cho_solve(factor, rows.toarray(), overwrite_b=True, check_finite=False)
    return Ease(rows, solved, 1.0 - np.asarray(rows.multiply(solved).sum(axis=0)).ravel())


def scores(model: Ease, histories: scipy.sparse.csr_matrix) -> np.ndarray:
    """histories @ B for histories (B, I), right for the items that are not in the history."""
    said = (histories @ model.rows.T) @ model.solved
    return (said - histories.toarray()) / model.diagonal


def recommend(model: Ease, histories: scipy.sparse.csr_matrix, n: int) -> np.ndarray:
    """Top-n item positions (B, n) for histories (B, I); what is in the history is left out."""
    found = scores(model, histories)
    found[histories.nonzero()] = -np.inf
    return np.argsort(-found, axis=1, kind="stable")[:, :n].astype(np.int32)
