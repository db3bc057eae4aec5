"""Floor 5: why an item has its score: shares of latents, of the rest, and of the history's items.

Station: code -> scores, read backwards. With a linear decoder (ELSA, factor models) the score of
item i is e' . a_i and the embedding splits as

    e' = mean 1 + std (z' @ dictionary + b) + residual

so the score splits into one share per latent, one for mean and bias, one for the residual: exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cfsae_fast.ids import Id
from cfsae_fast.inference import CFAENetwork, SAENetwork
from cfsae_fast.ops import Encoded
from cfsae_fast.recommender.fitted import Fitted


class LatentShare(NamedTuple):
    """What one latent gives to a score. name: its concept, or None where none is reliable."""

    latent: int
    name: str | None
    activation: float
    share: float


class HistoryShare(NamedTuple):
    """What one item of the history gives to the unsteered score (ELSA: a_j . a_i)."""

    item: Id
    title: str | None
    share: float


class Explanation(NamedTuple):
    """A score and the parts that sum to it.

    score = sum of latents' shares + base (mean and bias of the embedding) + residual (what the SAE
    cannot say). latents: largest share first. history: shares of the unsteered score, exact for
    linear encoders; None elsewhere, and where the history is empty and the mean user stands in.
    """

    item: Id
    title: str | None
    score: float
    latents: list[LatentShare]
    base: float
    residual: float
    history: list[HistoryShare] | None


class Split(NamedTuple):
    """Shares of one score, float64: (m,) latents, their activations and shares; base; residual."""

    latents: np.ndarray
    activations: np.ndarray
    shares: np.ndarray
    base: float
    residual: float

    @property
    def score(self) -> float:
        return float(self.shares.sum()) + self.base + self.residual


def split_score(
    sae: SAENetwork,
    item: np.ndarray,
    item_bias: float,
    embedding: np.ndarray,
    encoded: Encoded,
    steered: Encoded,
    *,
    residual: bool,
) -> Split:
    """Split the score of one item for one user exactly.

    Args:
        item: (d,) the item's row of the linear decoder. item_bias: its bias, 0 without one.
        embedding: (d,) before the SAE. encoded, steered: (1, k) codes before and after the knobs.
        residual: whether the residual is kept (mode "residual") or dropped ("reconstruct").
    """
    item, embedding = item.astype(np.float64), embedding.astype(np.float64)
    mean, std = (
        (0.0, 1.0)
        if encoded.stats is None
        else (float(encoded.stats.mean[0]), float(encoded.stats.std[0]))
    )
    latents, activations = _present(steered)
    shares = std * activations * (sae.dictionary[latents].astype(np.float64) @ item)
    base = mean * item.sum() + std * float(sae.bias.astype(np.float64) @ item) + item_bias
    if not residual:
        return Split(latents, activations, shares, base, 0.0)
    before, values = _present(encoded)
    said = values @ sae.dictionary[before].astype(np.float64) + sae.bias
    rest = embedding - (mean + std * said)
    return Split(latents, activations, shares, base, float(rest @ item))


def history_shares(cfae: CFAENetwork, items: np.ndarray, item: int) -> np.ndarray | None:
    """(h,) what each history item gives to the unsteered score; None where it is no such sum."""
    if not cfae.is_linear or not len(items):
        return None
    target = cfae.items[item].astype(np.float64)
    return cfae.item_weight[items].astype(np.float64) @ target


def _present(encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    kept = encoded.code.indices[0] >= 0
    return encoded.code.indices[0][kept], encoded.code.values[0][kept].astype(np.float64)


def explanation(
    fitted: Fitted, item: int, split: Split, history: np.ndarray, *, top: int | None
) -> Explanation:
    """A `Split` in external words; `top` keeps the largest shares by absolute value."""
    latents = [
        LatentShare(int(latent), fitted.latent_names.get(int(latent)), float(z), float(share))
        for latent, z, share in zip(split.latents, split.activations, split.shares, strict=True)
    ]
    shares = history_shares(fitted.cfae, history, item)
    given = None
    if shares is not None and fitted.user_factors is None:
        given = _largest(
            [
                HistoryShare(fitted.item_ids[int(at)], fitted.title(int(at)), float(share))
                for at, share in zip(history, shares, strict=True)
            ],
            top,
        )
    return Explanation(
        fitted.item_ids[item],
        fitted.title(item),
        split.score,
        _largest(latents, top),
        split.base,
        split.residual,
        given,
    )


def _largest(shares: list, top: int | None) -> list:
    return sorted(shares, key=lambda one: -abs(one.share))[:top]
