"""Floor 6: ways to steer, ours and those it must beat, behind one signature.

Station: steer -> top-N, for all users of `Wishes` at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array

from cfsae_fast import concepts
from cfsae_fast.concepts import ConceptMap
from cfsae_fast.evaluation.teaser import Teaser
from cfsae_fast.evaluation.tradeoff import Steerer
from cfsae_fast.evaluation.wishes import Wishes
from cfsae_fast.ops import Rows
from cfsae_fast.recommender import Fitted, pipeline, probing
from cfsae_fast.recommender.inputs import Request
from cfsae_fast.recommender.labelling import item_codes
from cfsae_fast.steering import boost

# Of all ways but those told of the items: a hypervolume grows with the number of strengths.
STRENGTHS = (
    0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0,
)  # fmt: skip
RERANK = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)
CHUNK = 1024  # users whose scores of all items are held at a time
TURNS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
# The published ways but TEASER (METHOD.md 6.2): how a tag chooses its latents, and how many.
PUBLISHED = {
    "paper (top-1, reconstruct)": ("best_characterizes", 1),
    "paper (top-5, reconstruct)": ("best_characterizes", 5),
    "paper (top-10, reconstruct)": ("best_characterizes", 10),
    "paper (most unique, reconstruct)": ("most_unique", 1),
}


def knob(
    fitted: Fitted, wishes: Wishes, *, mode: str, name: str, n: int = 20,
    strengths: tuple[float, ...] = STRENGTHS,
) -> Steerer:  # fmt: skip
    """The model's own knobs: boost(concept, alpha); a concept without latents stays unsteered."""
    known = pipeline.concepts_of(fitted)
    wished = [wishes.names[at] for at in wishes.tag]

    def steered(alpha: float, seen: Rows) -> np.ndarray:
        turns = [[boost(one, alpha)] if alpha and one in known else [] for one in wished]
        return _listed(fitted, wishes.inputs, turns, mode, n, seen)

    return Steerer(name, strengths, steered)


def toward(fitted: Fitted, wishes: Wishes, *, name: str = "toward", n: int = 20) -> Steerer:
    """`probing.toward` with the model's map and every user's own pull."""
    known = pipeline.concepts_of(fitted)
    pulls = probing.pulls(fitted, fitted.cfae.encode(wishes.inputs)).tolist()
    wished = [wishes.names[at] for at in wishes.tag]

    def steered(strength: float, seen: Rows) -> np.ndarray:
        turns = [
            probing.toward(fitted, known, one, strength, pull=pull) if one in known else []
            for one, pull in zip(wished, pulls, strict=True)
        ]
        return _listed(fitted, wishes.inputs, turns, "residual", n, seen)

    return Steerer(name, STRENGTHS, steered)


def published(fitted: Fitted, wishes: Wishes, *, n: int = 20) -> list[Steerer]:
    """The ways PUBLISHED: alpha / N on each of a tag's N latents (METHOD.md 6.1), and the code
    alone decoded.

    None is said to see the truth: the tags choose latents, as they do for our own maps and for the
    directions, from `wishes.known` alone, and never score an item.
    """
    codes, found = item_codes(fitted), []
    for name, (method, top) in PUBLISHED.items():
        chosen = concepts.build(
            codes, wishes.known, wishes.names, fitted.sae.n_latents, method=method, top=top
        )
        model = fitted.with_concepts(_alike(chosen), {})
        found.append(knob(model, wishes, mode="reconstruct", name=name, n=n))
    return found


def random_latent(
    fitted: Fitted, wishes: Wishes, *, mode: str = "residual", n: int = 20, seed: int = 42
) -> Steerer:
    """boost of one latent per concept, drawn from those that fire for some training user."""
    code = fitted.sae.encode(fitted.cfae.encode(fitted.histories)).code.indices
    alive = np.unique(code[code >= 0])
    drawn = np.random.default_rng([seed, 0x4A]).choice(alive, size=len(wishes.names))

    def steered(alpha: float, seen: Rows) -> np.ndarray:
        turns = [[boost(int(drawn[at]), alpha)] if alpha else [] for at in wishes.tag]
        return _listed(fitted, wishes.inputs, turns, mode, n, seen)

    return Steerer("random latent", STRENGTHS, steered)


def mean_item(fitted: Fitted, wishes: Wishes, *, n: int = 20) -> Steerer:
    """Towards the mean embedding of the known items: (1 - t) u + t |u| m / |m|."""
    items = fitted.cfae.encode_items()
    known = (wishes.known > 0).astype(np.float64)
    return _direction("mean item embedding", fitted, wishes, known @ items, n)


def probe(fitted: Fitted, wishes: Wishes, *, n: int = 20) -> Steerer:
    """Towards the weights of a ridge regression from item embeddings to the known tag."""
    weights = probing.directions(fitted.cfae.encode_items(), wishes.known)
    return _direction("linear probe direction", fitted, wishes, weights, n)


def rerank(fitted: Fitted, wishes: Wishes, *, n: int = 20) -> Steerer:
    """score + t * (the row's standard deviation of scores) where the known tag is."""
    known, embedding = (wishes.known > 0).toarray(), fitted.cfae.encode(wishes.inputs)

    def scores(t: float, users: slice) -> np.ndarray:
        plain = fitted.cfae.decode(embedding[users]).astype(np.float64)
        return plain + t * plain.std(axis=1, keepdims=True) * known[wishes.tag[users]]

    return Steerer("tag re-ranking", RERANK, _by_score(scores, n), True)


def teaser(model: Teaser, wishes: Wishes, histories: csr_array, *, n: int = 20) -> Steerer:
    """TEASER's profile with the wished tag turned; histories: (B, I) CSR of the inputs."""
    score = _by_score(lambda t, at: model.scores(histories[at], wishes.tag[at], t), n)
    return Steerer("TEASER", TURNS, score, True)


def _alike(found: ConceptMap) -> ConceptMap:
    """The map with equal weights, where it had scores."""
    sizes = np.diff(found.offsets)
    return replace(found, weights=np.repeat(1 / np.maximum(sizes, 1), sizes))


def _direction(
    name: str, fitted: Fitted, wishes: Wishes, directions: np.ndarray, n: int
) -> Steerer:
    embedding = fitted.cfae.encode(wishes.inputs).astype(np.float64)
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    unit = (directions / np.maximum(lengths, 1e-12))[wishes.tag]
    target = np.linalg.norm(embedding, axis=1, keepdims=True) * unit

    def steered(t: float, seen: Rows) -> np.ndarray:
        moved = ((1 - t) * embedding + t * target).astype(np.float32)
        return pipeline.top(fitted, moved, n, seen=seen).ids

    return Steerer(name, STRENGTHS, steered)


def _listed(fitted: Fitted, inputs: Rows, turns: list, mode: str, n: int, seen: Rows) -> np.ndarray:
    embedding = pipeline.embed(fitted, Request(inputs, None, False))
    moved = pipeline.steer(fitted, embedding, turns, mode=mode)
    return pipeline.top(fitted, moved, n, seen=seen).ids


def _by_score(
    scores: Callable[[float, slice], np.ndarray], n: int
) -> Callable[[float, Rows], np.ndarray]:
    """Lists by scores(strength, users) of all items, CHUNK users at a time."""

    def ranked(t: float, seen: Rows) -> np.ndarray:
        count = len(seen.offsets) - 1
        blocks = [slice(low, min(low + CHUNK, count)) for low in range(0, count, CHUNK)]
        return np.concatenate([block(t, seen, users) for users in blocks])

    def block(t: float, seen: Rows, users: slice) -> np.ndarray:
        masked, own = scores(t, users), seen.take(np.arange(users.start, users.stop))
        masked[np.repeat(np.arange(len(masked)), np.diff(own.offsets)), own.items] = -np.inf
        best = np.argpartition(-masked, n, axis=1)[:, :n]
        order = np.argsort(-np.take_along_axis(masked, best, axis=1), axis=1, kind="stable")
        return np.take_along_axis(best, order, axis=1)

    return ranked
