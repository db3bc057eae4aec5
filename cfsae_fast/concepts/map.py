"""Floor 2: ConceptMap, which latents a concept name means: lookup, search, arrays for saving.

Station: between a user's word and steer. numpy only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np

from cfsae_fast.errors import ModelFormatError, UnknownConceptError, did_you_mean

_ARRAYS = {"offsets": "i", "latents": "i", "weights": "f", "scores": "f", "counts": "i"}
RELIABLE, WEAK = 0.75, 0.6  # confidence from which a knob is called so
NO_KNOB = "no reliable knob"

_DTYPES = {
    "offsets": np.int64,
    "latents": np.int32,
    "weights": np.float32,
    "scores": np.float32,
    "counts": np.int64,
    "confidence": np.float32,
}


class Concept(NamedTuple):
    """A concept one can steer with: its latents (m,) and weights (m,) of sum 1, strongest first.

    score: how well the first latent stands for it, comparable within one map only.
    n_items: items that carry it. confidence: how often the knob lifts an item of the concept that
    it was not made from above an item without it (1/2: a coin; NaN: not tested, as items are few).
    """

    name: str
    latents: np.ndarray
    weights: np.ndarray
    score: float
    n_items: int
    confidence: float = float("nan")

    @property
    def verdict(self) -> str:
        """In words: "reliable", "weak", "no reliable knob", or "not tested"."""
        if np.isnan(self.confidence):
            return "not tested"
        if self.confidence >= RELIABLE:
            return "reliable"
        return "weak" if self.confidence >= WEAK else NO_KNOB


@dataclass(frozen=True, eq=False)
class ConceptMap:
    """Concepts and their latents, ragged: concept t has latents[offsets[t]:offsets[t + 1]].

    names (T,); offsets (T + 1,) int64; latents (m,) int32 in [0, n_latents); weights (m,) float32
    > 0, of sum 1 per concept; scores (T,) float32; counts (T,) int64 items that carry it; reasons:
    position -> why a concept has no latents. top: how many of a concept's latents, the strongest,
    a boost mixes in (None: all); the others are there for `reach`. confidence (T,) float32: see
    Concept (None: nothing was tested). carriers: offsets (T + 1,) int64 and item positions int32 of
    who carries which concept, or None where that was not kept. Iterating and `len` see the
    concepts that have some.

    Raises:
        ValueError: the arrays contradict each other.
    """

    names: tuple[str, ...]
    offsets: np.ndarray
    latents: np.ndarray
    weights: np.ndarray
    scores: np.ndarray
    counts: np.ndarray
    reasons: Mapping[int, str]
    method: str
    n_latents: int
    top: int | None = None
    confidence: np.ndarray | None = None
    carriers: tuple[np.ndarray, np.ndarray] | None = None
    _keys: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.confidence is None:
            object.__setattr__(self, "confidence", np.full(len(self.names), np.nan))
        for name, dtype in _DTYPES.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name)).astype(dtype))
        _check(self)
        object.__setattr__(self, "_keys", self._index())

    def get(self, name: str) -> Concept:
        """The concept called `name`, whatever its case, spaces, hyphens and underscores.

        Where several names differ in these alone, the exact one wins, then the one on most items.

        Raises:
            UnknownConceptError: no such concept, or it has no latents; names the nearest ones.
        """
        at = self._find(name)
        if at is None:
            hint = did_you_mean(_key(str(name)), [concept.name for concept in self])
            raise UnknownConceptError(f"concept {name!r} is unknown{hint}")
        if at in self.reasons:
            raise UnknownConceptError(
                f"concept {self.names[at]!r} cannot be steered: {self.reasons[at]}"
            )
        return self._concept(at)

    def target(self, concept: str) -> tuple[np.ndarray, np.ndarray]:
        """What a boost mixes in: latents (m,) int32 and weights (m,) float32 of sum 1, m <= top.

        Errors as `get`.
        """
        found = self.get(concept)
        return found.latents, found.weights

    def reach(self, concept: str) -> tuple[np.ndarray, np.ndarray]:
        """All latents that lean to the concept, as `target`: what suppressing it has to silence."""
        self.get(concept)
        span = self._span(self._find(concept))
        return self.latents[span], self.weights[span]

    def carried_by(self, name: str, n_items: int) -> np.ndarray:
        """(n_items,) bool: the items that carry a concept; nobody where `carriers` is None."""
        mask, at = np.zeros(n_items, dtype=bool), self._find(self.get(name).name)
        if self.carriers is not None:
            offsets, items = self.carriers
            mask[items[offsets[at] : offsets[at + 1]]] = True
        return mask

    def search(self, text: str, *, limit: int | None = 20) -> list[Concept]:
        """Concepts whose name holds `text`, best match first; else those spelled like it.

        Best: equal, then beginning with it, then a word beginning with it, then the rest; among
        equals those on more items first.
        """
        wanted = _key(text)
        if not wanted:
            return self.browse()[:limit]
        ranked = []
        for concept in self.browse():
            key = _key(concept.name)
            if wanted in key:
                by_word = key.startswith(wanted) * 1 + (f" {wanted}" in f" {key}")
                ranked.append((-(3 * (key == wanted) + by_word), len(ranked), concept))
        if ranked:
            return [concept for _, _, concept in sorted(ranked, key=lambda r: r[:2])][:limit]
        keys = {_key(concept.name): concept for concept in reversed(self.browse())}
        near = get_close_matches(wanted, list(keys), n=limit or len(keys), cutoff=0.6)
        return [keys[key] for key in near]

    def browse(self, search: str | None = None) -> list[Concept]:
        """All concepts, those on most items first; or what `search` finds, without limit."""
        if search is not None:
            return self.search(search, limit=None)
        return sorted(self, key=lambda concept: (-concept.n_items, concept.name))

    @property
    def absent(self) -> dict[str, str]:
        """Concepts that cannot be steered, and why."""
        return {self.names[at]: reason for at, reason in sorted(self.reasons.items())}

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays for safetensors, and what goes into JSON beside them."""
        meta = {
            "names": list(self.names),
            "reasons": {str(at): reason for at, reason in self.reasons.items()},
            "method": self.method,
            "n_latents": self.n_latents,
            "top": self.top,
        }
        arrays = {name: getattr(self, name) for name in _DTYPES}
        if self.carriers is not None:
            arrays["carrier_offsets"], arrays["carriers"] = self.carriers
        return arrays, meta

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> ConceptMap:
        """Inverse of `to_arrays`.

        Raises:
            ModelFormatError: something is missing or damaged.
        """
        try:
            for name, kind in _ARRAYS.items():
                if np.asarray(arrays[name]).dtype.kind != kind:
                    raise ValueError(f"{name} must have a dtype of kind {kind!r}")
            return cls(
                **{name: arrays[name] for name in _ARRAYS},
                confidence=arrays.get("confidence"),  # maps made before it have none
                carriers=_carriers(arrays),
                names=tuple(meta["names"]),
                reasons={int(at): str(reason) for at, reason in meta["reasons"].items()},
                method=str(meta["method"]),
                n_latents=int(meta["n_latents"]),
                top=None if meta.get("top") is None else int(meta["top"]),
            )
        except KeyError as error:
            raise ModelFormatError(f"the concept map must hold {error}, found none") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise ModelFormatError(f"the concept map is damaged: {error}") from error

    def __len__(self) -> int:
        return len(self.names) - len(self.reasons)

    def __iter__(self) -> Iterator[Concept]:
        return (self._concept(at) for at in range(len(self.names)) if at not in self.reasons)

    def __contains__(self, name: object) -> bool:
        at = self._find(name)
        return at is not None and at not in self.reasons

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConceptMap):
            return NotImplemented
        ours, theirs = self.to_arrays(), other.to_arrays()
        return (ours[1], set(ours[0])) == (theirs[1], set(theirs[0])) and all(
            np.array_equal(ours[0][name], theirs[0][name], equal_nan=True) for name in ours[0]
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"ConceptMap({len(self)} concepts on {self.n_latents} latents by {self.method}, "
            f"{len(self.reasons)} absent)"
        )

    def _concept(self, at: int) -> Concept:
        latents, weights = self.latents[self._span(at)], self.weights[self._span(at)]
        weights = weights[: self.top]
        return Concept(
            self.names[at],
            latents[: self.top],
            weights / weights.sum(),
            float(self.scores[at]),
            int(self.counts[at]),
            float(self.confidence[at]),
        )

    def _span(self, at: int) -> slice:
        return slice(int(self.offsets[at]), int(self.offsets[at + 1]))

    def _find(self, name: object) -> int | None:
        if not isinstance(name, str):
            return None
        return self._keys.get(f"={name}", self._keys.get(_key(name)))

    def _index(self) -> dict[str, int]:
        """Exact names, marked with '=', and keys; a key means its concept on most items."""
        order = sorted(
            range(len(self.names)), key=lambda at: (at not in self.reasons, self.counts[at], -at)
        )
        keys = {_key(self.names[at]): at for at in order}
        return {**keys, **{f"={name}": at for at, name in enumerate(self.names)}}


def _carriers(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    if "carriers" not in arrays:
        return None
    offsets, items = arrays["carrier_offsets"], arrays["carriers"]
    if (np.diff(offsets) < 0).any() or offsets[0] != 0 or offsets[-1] != len(items):
        raise ValueError("carrier_offsets must rise from 0 to the number of carriers")
    return offsets.astype(np.int64), items.astype(np.int32)


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.casefold()).strip()


def _check(found: ConceptMap) -> None:
    if found.carriers is not None and len(found.carriers[0]) != len(found.names) + 1:
        raise ValueError(f"carriers must be of {len(found.names)} concepts")
    count, n_latents = len(found.names), found.n_latents
    if not all(isinstance(name, str) and name.strip() for name in found.names):
        raise ValueError("names must be text that is not empty, got one that is not")
    if found.top is not None and found.top < 1:
        raise ValueError(f"top must be at least 1 or None, got {found.top}")
    if len(set(found.names)) != count:
        raise ValueError("names must be distinct, got a concept twice")
    shapes = {"offsets": count + 1} | dict.fromkeys(("scores", "counts", "confidence"), count)
    shapes |= dict.fromkeys(("latents", "weights"), len(found.latents))
    for name, length in shapes.items():
        if getattr(found, name).shape != (length,):
            raise ValueError(
                f"{name} must have shape ({length},), got {getattr(found, name).shape}"
            )
    sizes = np.diff(found.offsets)
    if found.offsets[0] != 0 or (sizes < 0).any() or found.offsets[-1] != len(found.latents):
        raise ValueError("offsets must rise from 0 to the number of latents")
    if len(found.latents) and not 0 <= found.latents.min() <= found.latents.max() < n_latents:
        raise ValueError(f"latents must be in [0, n_latents={n_latents})")
    if not (np.isfinite(found.weights).all() and (found.weights >= 0).all()):
        raise ValueError("weights must be finite and not negative")
    owner = np.repeat(np.arange(count), sizes)
    sums = np.bincount(owner, weights=found.weights, minlength=count)
    if not np.allclose(sums[sizes > 0], 1.0, atol=1e-4):
        raise ValueError("weights must sum to 1 for each concept")
    if set(found.reasons) != set(np.flatnonzero(sizes == 0).tolist()):
        raise ValueError("reasons must be given for exactly the concepts without latents")
    if (found.counts < 0).any() or not np.isfinite(found.scores).all():
        raise ValueError("counts must not be negative and scores must be finite")
