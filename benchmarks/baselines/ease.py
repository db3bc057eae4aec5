"""EASE (Steck, WWW 2019): the closed-form item-item model, the yardstick of linear models."""

from __future__ import annotations

import numpy as np
import scipy.sparse


def fit(interactions: scipy.sparse.csr_matrix, regularization: float) -> np.ndarray:
    """B (I, I) with zero diagonal minimising ||X - X B||^2 + regularization ||B||^2."""
    gram = (interactions.T @ interactions).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += regularization
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    weights[np.diag_indices_from(weights)] = 0
    return weights.astype(np.float32)


def recommend(weights: np.ndarray, histories: scipy.sparse.csr_matrix, n: int) -> np.ndarray:
    """Top-n item positions (B, n) for histories (B, I); what is in the history is left out."""
    scores = histories @ weights
    scores[histories.nonzero()] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :n].astype(np.int32)
