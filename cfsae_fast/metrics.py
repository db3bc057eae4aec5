"""Floor 1: how good a recommendation list and a sparse code are, as pure functions of arrays.

Station: reads what comes out of top-N (ids) and of SAE.encode / SAE.decode (code, embedding').

A user or row for which a metric is undefined gets NaN and is left out of `estimate`, never a 0.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np


class Rows(Protocol):
    """Held-out items per user, as `ops.Rows` has them; values are not read."""

    offsets: np.ndarray
    items: np.ndarray


class Code(Protocol):
    """Sparse codes, as `ops.Code` has them."""

    indices: np.ndarray
    values: np.ndarray


class Estimate(NamedTuple):
    """Mean over n users, and its standard error: sample std (ddof 1) / sqrt(n)."""

    mean: float
    se: float
    n: int


def estimate(values: np.ndarray) -> Estimate:
    """Mean and standard error of per-user values (B,); NaN entries are users left out.

    Nobody left: mean and se are NaN. One user left: se is NaN.
    """
    moments = _Moments(())
    values = np.asarray(values, dtype=np.float64)
    moments.update(values[~np.isnan(values)])
    return moments.estimate()


def recall_at(ids: np.ndarray, targets: Rows, n: int) -> np.ndarray:
    """|top-n of a user in the user's targets| / min(n, |targets|), the recall of Mult-VAE.

    ids (B, N) int, best first, padded with -1; targets: B rows of held-out items, repeats counted
    once -> (B,) float64 in [0, 1], NaN for a user without targets.

    Raises:
        ValueError: n is not in [1, N], B differs, or a list names an item twice.

    Source: Liang et al. 2018 (arXiv 1802.05814), section 4.2.
    """
    hits, sizes = _hits(ids, targets, n)
    return _ratio(hits.sum(axis=1), np.minimum(sizes, n))


def ndcg_at(ids: np.ndarray, targets: Rows, n: int) -> np.ndarray:
    """Normalised discounted cumulative gain with binary gain and discount 1 / log2(rank + 1).

    The ideal list has min(n, |targets|) hits at its top. Arguments, result and errors as
    `recall_at`. Source: Jarvelin and Kekalainen 2002; Liang et al. 2018, section 4.2.
    """
    hits, sizes = _hits(ids, targets, n)
    discount = 1.0 / np.log2(np.arange(2, n + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])
    return _ratio(hits @ discount, ideal[np.minimum(sizes, n)])


def coverage_at(ids: np.ndarray, n_items: int, n: int) -> float:
    """Share of the catalogue that stands in at least one user's top-n: (B, N) -> [0, 1].

    Raises:
        ValueError: n is not in [1, N], or an id is not below n_items.
    """
    top = _top(ids, n)
    if n_items < 1:
        raise ValueError(f"n_items must be at least 1, got {n_items}")
    _check_below(top, n_items)
    return len(np.unique(top[top >= 0])) / n_items


def share_at(ids: np.ndarray, item_mask: np.ndarray, n: int) -> np.ndarray:
    """Share of each user's top-n that carries a concept: what steering is to raise or lower.

    ids (B, N) padded with -1; item_mask (I,) bool, True where the item carries the concept
    -> (B,) float64. Padding counts in neither part of the share; an empty list gives NaN.

    Raises:
        ValueError: n is not in [1, N], or an id is not below I.
    """
    top, mask = _top(ids, n), np.asarray(item_mask, dtype=bool)
    if mask.ndim != 1:
        raise ValueError(f"item_mask must have shape (I,), got {mask.shape}")
    _check_below(top, len(mask))
    real = top >= 0
    if not len(mask):
        return np.full(len(top), np.nan)
    return _ratio((mask[np.where(real, top, 0)] & real).sum(axis=1), real.sum(axis=1))


def cosine(embedding: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """Cosine of each row with its reconstruction: (B, d), (B, d) -> (B,); NaN for a zero row."""
    u, v = _pair(embedding, reconstruction)
    norms = np.sqrt((u * u).sum(axis=1)) * np.sqrt((v * v).sum(axis=1))
    return _ratio((u * v).sum(axis=1), norms)


def explained_variance(embedding: np.ndarray, reconstruction: np.ndarray) -> float:
    """1 - sum ||u - u'||^2 / sum ||u - mean(u)||^2 over the rows of (B, d); NaN if u is constant.

    The mean is taken per coordinate over the batch; 0 is what predicting it alone would reach.
    """
    u, v = _pair(embedding, reconstruction)
    spread = ((u - u.mean(axis=0)) ** 2).sum() if len(u) else 0.0
    return _explained(((u - v) ** 2).sum(), spread)


def l0(code: Code) -> np.ndarray:
    """Number of latents that each row's code uses: (B,) int64."""
    return _used(code).sum(axis=1)


def fired(code: Code, n_latents: int) -> np.ndarray:
    """In how many rows each latent is used: (L,) int64; sum over batches before `dead_share`.

    Raises:
        ValueError: a latent of the code is not below n_latents.
    """
    latents = np.asarray(code.indices)[_used(code)]
    if len(latents) and latents.max() >= n_latents:
        raise ValueError(
            f"code must name latents below n_latents={n_latents}, got {int(latents.max())}"
        )
    return np.bincount(latents, minlength=n_latents)


def dead_share(fired_counts: np.ndarray) -> float:
    """Share of ALL latents that never fired: counts (L,) as `fired` gives them -> [0, 1].

    Raises:
        ValueError: counts are not a non-empty vector.
    """
    counts = np.asarray(fired_counts)
    if counts.ndim != 1 or not len(counts):
        raise ValueError(f"fired_counts must have shape (L,) with L >= 1, got {counts.shape}")
    return float(np.mean(counts == 0))


class CodeQuality(NamedTuple):
    """What an SAE keeps of its inputs, over everything a `CodeMeter` has seen."""

    cosine: Estimate
    explained_variance: float
    l0: Estimate
    dead_share: float


class CodeMeter:
    """Gathers the SAE metrics over batches; the result does not depend on how rows were batched.

    Use: `meter = CodeMeter(8192)`, per batch `meter.update(u, u_prime, code)`, `meter.result()`.
    `fired` (L,) counts each latent's rows so far.
    """

    def __init__(self, n_latents: int) -> None:
        if n_latents < 1:
            raise ValueError(f"n_latents must be at least 1, got {n_latents}")
        self.fired = np.zeros(n_latents, dtype=np.int64)
        self._cosine, self._l0 = _Moments(()), _Moments(())
        self._inputs: _Moments | None = None
        self._error = 0.0

    def update(self, embedding: np.ndarray, reconstruction: np.ndarray, code: Code) -> None:
        """Add a batch: embeddings (B, d), reconstructions (B, d), codes (B, k).

        Raises:
            ValueError: shapes differ from each other or from earlier batches.
        """
        u, v = _pair(embedding, reconstruction)
        if len(code.indices) != len(u):
            raise ValueError(f"code must have {len(u)} rows, got {len(code.indices)}")
        inputs = self._inputs or _Moments((u.shape[1],))
        if inputs.mean.shape != (u.shape[1],):
            raise ValueError(f"embedding must have d={len(inputs.mean)}, got {u.shape[1]}")
        self.fired += fired(code, len(self.fired))
        cosines = cosine(u, v)
        self._cosine.update(cosines[~np.isnan(cosines)])
        self._l0.update(l0(code).astype(np.float64))
        inputs.update(u)
        self._inputs = inputs
        self._error += float(((u - v) ** 2).sum())

    def result(self) -> CodeQuality:
        """The metrics over all batches so far."""
        spread = float(self._inputs.squares.sum()) if self._inputs is not None else 0.0
        return CodeQuality(
            cosine=self._cosine.estimate(),
            explained_variance=_explained(self._error, spread),
            l0=self._l0.estimate(),
            dead_share=dead_share(self.fired),
        )


class _Moments:
    """Running count, mean and sum of squared deviations, merged batch by batch (Chan 1979):
    no difference of large sums, so a large common mean costs no digits."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count, self.mean, self.squares = 0, np.zeros(shape), np.zeros(shape)

    def update(self, batch: np.ndarray) -> None:
        if not len(batch):
            return
        mean, count = batch.mean(axis=0), len(batch)
        total, delta = self.count + count, mean - self.mean
        self.squares = (
            self.squares
            + ((batch - mean) ** 2).sum(axis=0)
            + delta**2 * (self.count * count / total)
        )
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def estimate(self) -> Estimate:
        n = self.count
        mean = float(self.mean) if n else float("nan")
        se = float(np.sqrt(self.squares / (n - 1) / n)) if n > 1 else float("nan")
        return Estimate(mean, se, n)


def _hits(ids: np.ndarray, targets: Rows, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether each of a user's top-n is a target (B, n) bool; distinct targets per user (B,)."""
    top = _top(ids, n)
    offsets, items = np.asarray(targets.offsets), np.asarray(targets.items)
    if len(offsets) - 1 != len(top):
        raise ValueError(f"targets must have {len(top)} rows as ids has, got {len(offsets) - 1}")
    if len(items) and items.min() < 0:
        raise ValueError(f"targets must name item positions >= 0, got {int(items.min())}")
    ordered = np.sort(top, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise ValueError("ids must not repeat an item within a user's top-n, got a repeated one")
    width = 1 + max(int(top.max(initial=0)), int(items.max(initial=0)))
    rows = np.repeat(np.arange(len(top)), np.diff(offsets))
    wanted = rows * width + items
    if (wanted[1:] <= wanted[:-1]).any():  # millions of keys, most often in order as they come
        wanted = np.sort(wanted)
        wanted = wanted[np.diff(wanted, prepend=-1) > 0]
    keys = np.arange(len(top))[:, None] * width + top
    at = np.searchsorted(wanted, keys)
    found = (np.append(wanted, -1)[at] == keys) & (top >= 0)
    return found, np.bincount(wanted // width, minlength=len(top))


def _top(ids: np.ndarray, n: int) -> np.ndarray:
    ids = np.asarray(ids)
    if ids.ndim != 2:
        raise ValueError(f"ids must have shape (B, N), got {ids.shape}")
    if ids.dtype.kind not in "iu":
        raise TypeError(f"ids must be item positions of an integer dtype, got {ids.dtype}")
    if not 1 <= n <= ids.shape[1]:
        raise ValueError(f"n must be in [1, N={ids.shape[1]}], got {n}; recommend n items first")
    return ids[:, :n].astype(np.int64)


def _check_below(top: np.ndarray, n_items: int) -> None:
    if top.size and top.max() >= n_items:
        raise ValueError(f"ids must be below n_items={n_items}, got {int(top.max())}")


def _pair(embedding: np.ndarray, reconstruction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    u = np.asarray(embedding, dtype=np.float64)
    v = np.asarray(reconstruction, dtype=np.float64)
    if u.ndim != 2 or u.shape != v.shape:
        raise ValueError(f"reconstruction must have shape (B, d) = {u.shape}, got {v.shape}")
    return u, v


def _used(code: Code) -> np.ndarray:
    return (np.asarray(code.indices) >= 0) & (np.asarray(code.values) != 0)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    out = np.full(len(whole), np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def _explained(error: float, spread: float) -> float:
    return float(1.0 - error / spread) if spread > 0 else float("nan")
