"""Random recommenders of every kind, small enough to export in a blink."""

from __future__ import annotations

import numpy as np

from cfsae_fast.concepts import ConceptMap
from cfsae_fast.ids import Ids
from cfsae_fast.inference import CFAENetwork, Layer, SAENetwork
from cfsae_fast.ops import Rows
from cfsae_fast.recommender.fitted import Fitted

CFAES = ("elsa", "multvae", "multdae")
SAES = ("topk", "batchtopk", "basic")
MODES = ("residual", "reconstruct")


def normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return rng.normal(scale=scale, size=shape).astype(np.float32)


def make_cfae(kind: str, rng: np.random.Generator, n_items: int, d: int) -> CFAENetwork:
    if kind == "elsa":
        items = normal(rng, n_items, d)
        items /= np.linalg.norm(items, axis=1, keepdims=True)
        return CFAENetwork("elsa", items, items)
    wide = d + 5
    return CFAENetwork(
        kind=kind,
        item_weight=normal(rng, n_items, wide),
        items=normal(rng, n_items, wide),
        first_bias=normal(rng, wide, scale=0.1),
        first_activation="tanh",
        encoder_layers=(Layer(normal(rng, d, wide), normal(rng, d), "none"),),
        decoder_layers=(Layer(normal(rng, wide, d, scale=0.3), normal(rng, wide), "tanh"),),
        item_bias=normal(rng, n_items),
        normalize_input=True,
    )


def make_sae(kind: str, rng: np.random.Generator, n_latents: int, d: int) -> SAENetwork:
    dictionary = normal(rng, n_latents, d)
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    k = 6
    return SAENetwork(
        kind=kind,
        encoder=dictionary + normal(rng, n_latents, d, scale=0.05),
        encoder_bias=normal(rng, n_latents, scale=0.1),
        dictionary=dictionary,
        bias=normal(rng, d, scale=0.1),
        k=k,
        width={"topk": k, "batchtopk": 4 * k, "basic": n_latents}[kind],
        threshold=0.4 if kind == "batchtopk" else None,
    )


def make_fitted(
    cfae: str = "elsa", sae: str = "topk", *, n_items: int = 90, d: int = 16, n_latents: int = 96
) -> Fitted:
    """Items "i0", "i1", ...; three concepts on two latents each, which toward does not know."""
    rng = np.random.default_rng(7)
    concepts = ConceptMap(
        names=("film noir", "horror", "anime"),
        offsets=np.array([0, 2, 4, 6]),
        latents=np.array([3, 10, 5, 40, 7, 3], dtype=np.int32),
        weights=np.array([0.75, 0.25, 0.5, 0.5, 0.9, 0.1], dtype=np.float32),
        scores=np.ones(3, dtype=np.float32),
        counts=np.array([5, 6, 7]),
        reasons={},
        method="best_characterizes",
        n_latents=n_latents,
    )
    return Fitted(
        cfae=make_cfae(cfae, rng, n_items, d),
        sae=make_sae(sae, rng, n_latents, d),
        user_ids=Ids(["u0"], what="user"),
        item_ids=Ids([f"i{at}" for at in range(n_items)]),
        histories=Rows(np.array([0, 2]), np.array([1, 4], dtype=np.int32)),
        cold=normal(rng, d),
        concepts=concepts,
    )
