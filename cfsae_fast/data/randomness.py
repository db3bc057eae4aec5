"""Floor 2: random numbers that belong to a user and an item, not to a place in a sequence.

Station: splits and hold-outs. Every draw is a hash of (seed, purpose, external ids), so it does
not change when other users come or go or calls are reordered. Mixing: splitmix64 (Steele,
Lea, Flood 2014), which passes BigCrush.
"""

from __future__ import annotations

import numpy as np

from cfsae_fast.ids import Ids

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_KINDS = {"i": np.uint64(1), "U": np.uint64(2)}


def mix(*parts: np.ndarray | np.uint64) -> np.ndarray:
    """A uniform uint64 per broadcast element of `parts`; their order matters."""
    state = np.zeros(1, dtype=np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        for part in parts:
            state = _finish(state * _GOLDEN + _finish(np.asarray(part, np.uint64) + _GOLDEN))
    return state


def salt(seed: int, purpose: str) -> np.uint64:
    """The key of one purpose under one seed.

    Raises:
        ValueError: seed is not an integer in [0, 2**63).
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be an integer in [0, 2**63), got {seed!r}")
    return mix(np.uint64(seed), hash_texts(np.asarray([purpose]))[0])[0]


def hash_ids(ids: Ids) -> np.ndarray:
    """A uint64 per external id, whatever other ids there are: (n,)."""
    kind = ids.values.dtype.kind
    if kind == "U":
        return mix(_KINDS["U"], hash_texts(ids.values))
    return mix(_KINDS["i"], ids.values.view(np.uint64))


def hash_texts(texts: np.ndarray) -> np.ndarray:
    """A uint64 per string of a numpy str array (n,)."""
    texts = np.ascontiguousarray(texts, dtype=np.str_)
    state = np.full(len(texts), 0x6A09E667F3BCC908, dtype=np.uint64)
    if texts.dtype.itemsize == 0 or not len(texts):
        return state
    letters = texts.view(np.uint32).reshape(len(texts), -1)
    with np.errstate(over="ignore"):
        for at in range(letters.shape[1]):
            letter = letters[:, at].astype(np.uint64)
            # padding is skipped: a hash must not depend on the longest id of its array
            state = np.where(letter == 0, state, _finish(state * _GOLDEN + letter))
    return state


def _finish(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))
