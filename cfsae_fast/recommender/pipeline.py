"""Floor 5: the steps of one live request, on numpy and the engine alone.

Station: CFAE.encode -> SAE.encode -> steer -> SAE.decode -> CFAE.decode -> top-N, in turn.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from cfsae_fast import ops, steering
from cfsae_fast.concepts import ConceptMap
from cfsae_fast.ops import Encoded, Knobs, Recommended, Rows
from cfsae_fast.recommender import probing
from cfsae_fast.recommender.fitted import Fitted
from cfsae_fast.recommender.inputs import Request

MODES = ("residual", "reconstruct")


def check_mode(mode: str) -> None:
    """Raises: ValueError: not a mode of decoding."""
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, got {mode!r}")


def concepts_of(fitted: Fitted) -> ConceptMap:
    """Raises: ValueError: the model has no concepts."""
    if fitted.concepts is None:
        raise ValueError("the model has no concepts; fit it with tags or call label(tags)")
    return fitted.concepts


def embed(fitted: Fitted, request: Request, threads: int = 0) -> np.ndarray:
    """Embedding (B, d): brought factors where there are any, else encoded; cold where empty."""
    if _brought(fitted, request):
        return np.ascontiguousarray(fitted.user_factors[request.users])
    embedding = fitted.cfae.encode(request.rows, threads=threads)
    offsets = request.rows.offsets
    if len(offsets) == 2:  # one user: numbers, where arrays would take 20 times as long
        if offsets[0] == offsets[1]:
            embedding[0] = fitted.cold
        return embedding
    empty = offsets[1:] == offsets[:-1]
    if empty.any():
        embedding[empty] = fitted.cold
    return embedding


def knobs_of(
    fitted: Fitted, turns: list[Any], encoded: Encoded | None, embedding: np.ndarray | None
) -> Knobs | None:
    """The knobs of each row's turns, or None where no row turns any; encoded and embedding may be
    None where none is relative to the code."""
    if not any(turns):
        return None
    activation = None if encoded is None else partial(encoded.code.values.sum, axis=1)
    pull = None if embedding is None else partial(probing.pulls, fitted, embedding)
    return steering.knobs_for(turns, fitted.concepts, activation, pull, resolved=fitted.resolved)


def steer(
    fitted: Fitted, embedding: np.ndarray, turns: list[Any], *, mode: str, threads: int = 0
) -> np.ndarray:
    """embedding' (B, d). In residual mode a row without knobs comes back bit for bit."""
    check_mode(mode)
    if mode == "residual" and not any(turns):
        return embedding
    encoded = fitted.sae.encode(embedding, threads=threads)
    return _turned(fitted, embedding, encoded, turns, mode, threads)[0]


def _brought(fitted: Fitted, request: Request) -> bool:
    """Whether the embeddings are factors that came with the model."""
    return fitted.user_factors is not None and request.users is not None


def _in_one_call(fitted: Fitted, request: Request, turns: list[Any]) -> bool:
    """Whether the folded model may answer, and is the fastest way: not where a wish is measured by
    the code, which must come first then, nor where the steps gain by being taken for all rows."""
    if fitted.folded_model is None or _brought(fitted, request):
        return False
    if fitted.folded.dense_encoding_pays(fitted.sae, request.rows):
        return False
    distinct = {id(one): one for one in turns if one}.values()
    return not any(fitted.resolved(one).is_relative for one in distinct)


def encode(fitted: Fitted, request: Request, embedding: np.ndarray, threads: int = 0) -> Encoded:
    """Codes of `embed(request)`, by the folded tables where there are any."""
    if fitted.folded is None or _brought(fitted, request):
        return fitted.sae.encode(embedding, threads=threads)
    return fitted.folded.encode(fitted.sae, request.rows, embedding, threads=threads)


def answer(
    fitted: Fitted,
    request: Request,
    turns: list[Any],
    n: int,
    *,
    mode: str,
    exclude_seen: bool = True,
    allowed: np.ndarray | None = None,
    threads: int = 0,
) -> Recommended:
    """The whole line: rows and turns to top-N item positions and scores."""
    check_mode(mode)
    if mode == "reconstruct" and _in_one_call(fitted, request, turns):
        knobs = knobs_of(fitted, turns, None, None)
        options = {"exclude_seen": exclude_seen, "allowed": allowed, "threads": threads}
        return fitted.folded_model.answer(request.rows, knobs, n, **options)
    seen = request.rows if exclude_seen else None
    embedding = embed(fitted, request, threads)
    if mode == "residual" and not any(turns):
        return top(fitted, embedding, n, seen, allowed, threads)
    encoded = encode(fitted, request, embedding, threads)
    moved, steered = _turned(fitted, embedding, encoded, turns, mode, threads)
    if fitted.folded is None or mode == "residual":
        return top(fitted, moved, n, seen, allowed, threads)
    options = {"seen": seen, "allowed": allowed, "threads": threads}
    return fitted.folded.recommend(fitted.cfae, steered, moved, n, **options)


def _turned(
    fitted: Fitted,
    embedding: np.ndarray,
    encoded: Encoded,
    turns: list[Any],
    mode: str,
    threads: int,
) -> tuple[np.ndarray, Encoded]:
    """embedding' (B, d), and the code that it is decoded from (reconstruct)."""
    sae, knobs = fitted.sae, knobs_of(fitted, turns, encoded, embedding)
    if knobs is None:
        return sae.decode(encoded, threads=threads), encoded
    moved = ops.steer_decode(
        embedding,
        encoded.code,
        knobs,
        sae.dictionary,
        sae.bias,
        encoded.stats,
        mode=mode,
        threads=threads,
    )
    if mode == "residual":
        return moved, encoded
    code = ops.steer(encoded.code, knobs, n_latents=sae.n_latents, threads=threads)
    return moved, encoded._replace(code=code)


def top(
    fitted: Fitted,
    embedding: np.ndarray,
    n: int,
    seen: Rows | None = None,
    allowed: np.ndarray | None = None,
    threads: int = 0,
) -> Recommended:
    """Top-N item positions and scores of embedding' (B, d)."""
    return fitted.cfae.recommend(embedding, n, seen=seen, allowed=allowed, threads=threads)
