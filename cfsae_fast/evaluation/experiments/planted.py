"""Floor 6: are planted concepts found again? Latents against the tastes that made the histories.

Station: history -> code, on generated catalogues, where the truth is known. Beside it stands what
anybody could know of a taste from the same history: a finite history is a sample of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import nnls
from scipy.sparse import csr_array

from cfsae_fast.data import generated
from cfsae_fast.data.loading import generated_options
from cfsae_fast.evaluation.protocol import Protocol
from cfsae_fast.ops import Rows
from cfsae_fast.recommender import Fitted

MOST_CONCEPTS = 24  # whose triples `posterior` enumerates
DRAWS = 12  # lengths of history before repeats merged, over which `posterior` sums
RIDGE = 1e-3  # times the mean eigenvalue of the moments


def judge(fitted: Fitted, cut: Protocol, source: str) -> dict[str, Any]:
    """Correlation over test users of latents with planted preferences; means over concepts.

    best_latent: each concept's one latent, chosen on training users. with_splits: all latents that
    go with it more than with any other concept, weighted by NNLS on training users. limits: ridge
    regression from the history's shares of concepts, and from the dense embedding; and the mean of
    the posterior, which knows how histories are drawn, so that nothing can do better on average.
    """
    options = generated_options(source)
    users = cut.dataset.interactions
    truth = generated.preferences(
        options["users"], options["concepts"], seed=options["seed"]
    )[np.asarray(users.user_ids.values, dtype=np.int64)]  # fmt: skip
    parts = [(users.select_users(at).rows(), truth[at]) for at in (cut.split.train, cut.split.test)]
    (train, told), (test, wanted) = parts
    codes = [_dense(fitted, rows) for rows in (train, test)]
    alike = correlations(codes[0], told)
    best = alike.argmax(axis=0)
    one = _matched(codes[1][:, best], wanted)
    split = _matched(_with_splits(codes, alike, told), wanted)
    things = generated.catalogue(options["items"], options["concepts"], seed=options["seed"])
    return {
        "best_latent": float(one.mean()),
        "best_latent_least": float(one.min()),
        "distinct_latents": len(np.unique(best)),
        "concepts": len(best),
        "with_splits": float(split.mean()),
        "limits": _limits(fitted, things, options, parts),
    }


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of columns, (n, p) and (n, q) -> (p, q); 0 for constant ones."""
    sides = []
    for one in (a, b):
        one = one - one.mean(axis=0)
        sides.append(one / np.maximum(np.linalg.norm(one, axis=0), 1e-12))
    return sides[0].T @ sides[1]


def posterior(
    histories: np.ndarray, odds: np.ndarray, *, popular: float, slots: np.ndarray, mean: float
) -> np.ndarray:
    """Expected preferences (B, C) of histories (B, I) bool, by Bayes over all tastes and lengths.

    odds (C + 1, I): of a draw from each concept, and from the whole catalogue, which gives a share
    `popular` of the draws; slots: how tastes are mixed; mean: draws per history. An item is in a
    history of n draws with probability 1 - (1 - p)^n, each on its own.
    """
    n_concepts = len(odds) - 1
    tastes = np.stack(np.meshgrid(*[np.arange(n_concepts)] * len(slots), indexing="ij"), axis=-1)
    tastes = tastes.reshape(-1, len(slots))
    prefers = np.zeros((len(tastes), n_concepts))
    for slot, share in enumerate(slots):
        np.add.at(prefers, (np.arange(len(tastes)), tastes[:, slot]), share)
    p = (1 - popular) * prefers @ odds[:-1] + popular * odds[-1]
    missed = np.log1p(-np.minimum(p, 1 - 1e-12))
    lengths = np.geomspace(generated.SHORTEST_HISTORY, 6 * mean, DRAWS)
    each = np.full((DRAWS, len(histories), len(tastes)), -np.inf, dtype=np.float32)
    for at, n in enumerate(lengths):
        present = np.log(np.maximum(-np.expm1(n * missed), 1e-30)) - n * missed
        each[at] = histories @ present.T.astype(np.float32) + n * missed.sum(axis=1)
        each[at] += np.log(n) - n / (mean - 4)  # geometric lengths, on a geometric grid
    each -= each.max(axis=(0, 2), keepdims=True)
    weight = np.exp(each).sum(axis=0)
    return (weight / weight.sum(axis=1, keepdims=True)) @ prefers


def _with_splits(codes: list[np.ndarray], alike: np.ndarray, told: np.ndarray) -> np.ndarray:
    """(B, C) what each concept's own latents say of it: a latent serves one concept at most."""
    owner, out = alike.argmax(axis=1), np.zeros((len(codes[1]), told.shape[1]))
    for concept in range(told.shape[1]):
        own = np.flatnonzero((owner == concept) & (alike[:, concept] > 0))
        if len(own):
            with_one = [np.column_stack([code[:, own], np.ones(len(code))]) for code in codes]
            out[:, concept] = with_one[1] @ nnls(with_one[0], told[:, concept])[0]
    return out


def _limits(
    fitted: Fitted, things: generated.Catalogue, options: dict[str, Any], parts: list
) -> dict[str, float]:
    (train, told), (test, wanted) = parts
    carried = things.tags().matrix(things.n_items)
    tables = [_csr(rows, things.n_items) for rows in (train, test)]
    shares = [(t @ carried.T).toarray() / t.sum(axis=1)[:, None] for t in tables]
    dense = [_standardised(fitted.cfae.encode(rows)) for rows in (train, test)]
    found = {
        "shares": float(_matched(_ridge(shares, told), wanted).mean()),
        "embedding": float(_matched(_ridge(dense, told), wanted).mean()),
    }
    if things.n_concepts <= MOST_CONCEPTS:
        known = posterior(
            tables[1].toarray().astype(np.float32), things.odds(),
            popular=generated.POPULAR_SHARE, slots=generated.slot_shares(),
            mean=options["mean_history"],
        )  # fmt: skip
        found["posterior"] = float(_matched(known, wanted).mean())
    return found


def _ridge(sides: list[np.ndarray], told: np.ndarray) -> np.ndarray:
    mean = sides[0].mean(axis=0)
    x = sides[0] - mean
    moments = x.T @ x
    moments[np.diag_indices_from(moments)] += RIDGE * np.trace(moments) / len(moments)
    return (sides[1] - mean) @ np.linalg.solve(moments, x.T @ (told - told.mean(axis=0)))


def _matched(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.diagonal(correlations(a, b))


def _dense(fitted: Fitted, rows: Rows) -> np.ndarray:
    """(B, L) codes with their zeros."""
    code = fitted.sae.encode(fitted.cfae.encode(rows)).code
    out = np.zeros((len(code.indices), fitted.sae.n_latents))
    row, slot = np.nonzero(code.indices >= 0)
    out[row, code.indices[row, slot]] = code.values[row, slot]
    return out


def _standardised(embedding: np.ndarray) -> np.ndarray:
    centred = embedding - embedding.mean(axis=1, keepdims=True)
    return centred / embedding.std(axis=1, keepdims=True)


def _csr(rows: Rows, n_items: int) -> csr_array:
    shape = (len(rows.offsets) - 1, n_items)
    return csr_array((np.ones(len(rows.items)), rows.items, rows.offsets), shape=shape)
