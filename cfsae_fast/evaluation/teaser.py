"""Floor 6: TEASER, a linear autoencoder whose bottleneck is the item-tag matrix itself.

Station: a baseline for steering: history -> tag profile -> scores, with tags turned directly.
Its decoder is fixed to the tags T (I, n_tags); the encoder W (I, n_tags) is learned:

    J(W) = ||X - X W T'||^2 + spread ||W T'||^2 + weight ||W||^2      (squared Frobenius norms)

Unlike the published objective (METHOD.md 2.3) the diagonal of W T' is not set free; what an item
says of itself is never scored, as seen items are masked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, cg

SPREAD, WEIGHT = 100.0, 10.0  # in interactions; not searched for
# Of the smaller side of X, above which `fit` descends: eigenvectors of ML-25M's 40,857 items would
# take 13 GB and a day.
LARGEST = 12_000
DESCENT = 1e-6  # tolerance there


@dataclass(frozen=True)
class Teaser:
    """encoder W (I, n_tags), decoder T (I, n_tags)."""

    encoder: np.ndarray
    decoder: np.ndarray

    def scores(self, histories: csr_array, tag: np.ndarray, strength: float) -> np.ndarray:
        """(profile + strength e_tag) T': (B, I) histories, a tag per row -> (B, I)."""
        profile = histories @ self.encoder
        profile[np.arange(len(profile)), tag] += strength
        return profile @ self.decoder.T


def fit(
    histories: csr_array, tags: np.ndarray, *, spread: float = SPREAD, weight: float = WEIGHT
) -> Teaser:
    """The minimum of J in closed form; by descent where both sides of X are above LARGEST.
    histories (U, I), tags (n_tags, I).

    With X'X = P diag(a) P' (from the smaller of X X' and X'X) and T'T = Q diag(b) Q', the minimum
    is W = P [ (P'X'X T Q) / ((a + spread) b + weight) ] Q': outside the span of P, X'X T is 0.
    """
    if min(histories.shape) > LARGEST:
        one = {"spread": spread, "weight": weight, "tolerance": DESCENT}
        return fit_by_gradient(histories, tags, **one)
    x, decoder = histories.astype(np.float64), np.ascontiguousarray(tags.T, dtype=np.float64)
    basis, a = _right_singular(x)
    b, q = np.linalg.eigh(decoder.T @ decoder)
    b = np.maximum(b, 0)
    pulled = basis.T @ (x.T @ (x @ decoder)) @ q
    encoder = basis @ (pulled / ((a[:, None] + spread) * b + weight)) @ q.T
    return Teaser(encoder, decoder)


def fit_by_gradient(
    histories: csr_array,
    tags: np.ndarray,
    *,
    spread: float = SPREAD,
    weight: float = WEIGHT,
    tolerance: float = 1e-10,
) -> Teaser:
    """The same minimum by conjugate gradients on J, without any decomposition."""
    x, decoder = histories.astype(np.float64), np.ascontiguousarray(tags.T, dtype=np.float64)
    gram, shape = decoder.T @ decoder, decoder.shape

    def half_gradient(flat: np.ndarray) -> np.ndarray:
        w = flat.reshape(shape)
        wide = w @ gram
        return (x.T @ (x @ wide) + spread * wide + weight * w).ravel()

    operator = LinearOperator((decoder.size, decoder.size), matvec=half_gradient)
    wanted = (x.T @ (x @ decoder)).ravel()
    flat, failed = cg(operator, wanted, rtol=tolerance, maxiter=20 * len(decoder))
    if failed:
        raise FloatingPointError(f"conjugate gradients must converge, got status {failed}")
    return Teaser(flat.reshape(shape), decoder)


def objective(teaser: Teaser, histories: csr_array, spread: float, weight: float) -> float:
    """J of an encoder, with dense products: for tests."""
    x, wide = histories.toarray(), teaser.encoder @ teaser.decoder.T
    return float(
        ((x - x @ wide) ** 2).sum() + spread * (wide**2).sum() + weight * (teaser.encoder**2).sum()
    )


def _right_singular(x: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal P (I, r) and a (r,) > 0 with X'X = P diag(a) P'."""
    if x.shape[0] < x.shape[1]:
        a, left = np.linalg.eigh((x @ x.T).toarray())
        kept = a > a[-1] * 1e-10
        a, left = a[kept], left[:, kept]
        return (x.T @ left) / np.sqrt(a), a
    a, basis = np.linalg.eigh((x.T @ x).toarray())
    kept = a > a[-1] * 1e-10
    return basis[:, kept], a[kept]
