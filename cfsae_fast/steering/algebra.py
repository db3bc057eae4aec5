"""Floor 2: the formula of steering, and how wishes become knobs on latents.

Station: code -> steer -> code'. `apply` is the formula's one statement; the engine, the torch
reference and the exported graphs are tested against it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np

from cfsae_fast.errors import UnknownConceptError
from cfsae_fast.ops.containers import KnobKind, Knobs
from cfsae_fast.steering.parsing import as_turns
from cfsae_fast.steering.words import (
    Add,
    Boost,
    Concept,
    Mix,
    Only,
    Scale,
    Suppress,
    Toward,
    Turns,
)

# How far below zero suppress(strength=1) takes a concept, in units of the code's sum. anime-5k, as
# in concepts.mapping.REACH: 2 leaves 4 % of a genre's share and 56 % of the other items of a
# top-20, 6 leaves 2 % and 29 %; hetrec2011-lastfm-2k: 4 % and 54 %, 3 % and 28 %.
SUPPRESS_PUSH = 2.0
# How far toward(strength=1/2) goes, in lengths of an atom times the code's sum: about as far as the
# embedding is long (d 256, k 32).
TOWARD_REACH = 0.35
_FULL = 0.98  # what strength 1 stands for: 49 times as far as 1/2, nearly all direction

_ROUNDING = 1e-6  # by how much alphas written in decimal may miss a total of 1


class Targets(Protocol):
    """Where concepts are looked up: `concepts.ConceptMap`."""

    def target(self, concept: str) -> tuple[np.ndarray, np.ndarray]:
        """Latents (m,) and weights (m,) >= 0 of sum 1, or UnknownConceptError."""

    def reach(self, concept: str) -> tuple[np.ndarray, np.ndarray]:
        """The same, with every latent that leans to the concept."""


# A concept's latents (m,), weights (m,), and the length of its weighted sum of atoms, for `toward`.
Direction = Callable[[Concept], tuple[np.ndarray, np.ndarray, float]]


class _KnobArrays(NamedTuple):
    latents: np.ndarray
    weights: np.ndarray
    kinds: np.ndarray
    relative: np.ndarray
    pulled: np.ndarray


class KnobRow(_KnobArrays):
    """One user's knobs: latents (m,) int32, weights (m,) float64, kinds (m,) uint8 of KnobKind.

    relative (m,) bool: this ADD weight is in units of the sum of the row's code before steering.
    pulled (m,) bool: this relative weight is in units of the user's pull as well (toward).
    """

    @cached_property
    def is_relative(self) -> bool:
        """Whether any of the knobs is."""
        return bool(self.relative.any())

    @cached_property
    def is_pulled(self) -> bool:
        """Whether any of the knobs goes by the user's pull."""
        return bool(self.pulled.any())

    @cached_property
    def shared(self) -> Knobs:
        """The knobs of a batch whose rows all wish this."""
        offsets = np.array([0, len(self.latents)])
        return Knobs(offsets, self.latents, self.weights.astype(np.float32), self.kinds)

    def at(self, activation: float, pull: float = 1.0) -> KnobRow:
        """The same knobs for a row whose code sums to `activation`, of a user who is moved `pull`
        times as far as usual; nothing is relative or pulled then."""
        weights = np.where(self.pulled, self.weights * pull, self.weights)
        weights = np.where(self.relative, weights * activation, weights)
        return self._replace(
            weights=weights,
            relative=np.zeros_like(self.relative),
            pulled=np.zeros_like(self.pulled),
        )


def apply(code: np.ndarray, knobs: KnobRow) -> np.ndarray:
    """The code after its knobs, dense: (L,) -> (L,) float64. With z the code and s = sum(z):

        scale   z_n <- m_n z_n                          m_n >= 0
        mix     z   <- (1 - a) z + s sum_n w_n e_n      w_n >= 0, a = sum w_n <= 1, s after scale
        add     z_n <- z_n + a_n                        repeats add up

    in this order. Mix keeps sum(z), and leaves a code of zeros as it is. Pulled knobs are those of
    a usual user (pull 1); `KnobRow.at` gives another's.
    Source: METHOD 6.1 (arXiv 2601.11182) for mix with one alpha; scale and add are ours.
    """
    s_before = np.sum(code, dtype=np.float64)
    latents, weights, kinds, *_ = knobs.at(float(s_before))
    z = np.array(code, dtype=np.float64)
    scale, mix, add = (kinds == kind for kind in (KnobKind.SCALE, KnobKind.MIX, KnobKind.ADD))
    z[latents[scale]] *= weights[scale]
    s = z.sum()
    if s != 0:
        z *= 1.0 - weights[mix].sum()
        np.add.at(z, latents[mix], s * weights[mix])
    np.add.at(z, latents[add], weights[add])
    return z


def toward_amounts(
    weights: np.ndarray, length: float, strength: float, pull: float = 1.0
) -> np.ndarray:
    """What `toward` adds to latents of `weights` (m,), in units of the code's sum s: (m,).

    With t the strength: pull * TOWARD_REACH * t / (1 - t) * weights / length, where length is that
    of their sum of atoms; so a concept of many latents, whose atoms cancel, goes as far as one of a
    single latent, and embedding and concept are mixed as 1 - t to t.
    """
    share = min(strength, _FULL)
    return pull * TOWARD_REACH / length * share / (1 - share) * weights


def resolve(
    turns: Any, concepts: Targets | None = None, direction: Direction | None = None
) -> KnobRow:
    """One user's knobs from turns (anything `as_turns` takes) and the map that knows the concepts.

    boost(c, alpha)     mix alpha of c's weights
    only(c)             mix what boosts leave, in equal parts if several
    suppress(c, a)      scale all latents that lean to c by 1 - a, and add -a SUPPRESS_PUSH s t_c:
                        beyond zero, because the residual and other latents speak for c too
    toward(c, t)        add `toward_amounts` of the direction's latents, times s and the user's pull
    Turns that change nothing (alpha 0, factor 1) leave no knob.

    Raises:
        UnknownConceptError: a concept has no latents; the message names the nearest.
        ValueError: mixes sum to more than 1, two Scale turns name one latent, or `direction` is
            needed (toward) and None.
    """
    builder = _Builder(concepts, direction)
    turns = as_turns(turns)
    for turn in turns:
        builder.turn(turn)
    builder.share_rest([turn.concept for turn in turns if isinstance(turn, Only)])
    return builder.row()


def knobs_for(
    batch: Sequence[Any],
    concepts: Targets | None,
    activation: np.ndarray | Callable[[], np.ndarray] | None = None,
    pull: np.ndarray | Callable[[], np.ndarray] | None = None,
    *,
    resolved: Callable[[Turns], KnobRow] | None = None,
) -> Knobs:
    """Knobs of a batch in CSR form; entry b of `batch` is row b's wish (or None).

    activation (B,): the sum of each row's code, or what gives it; needed where a wish is relative
    to it (suppress, toward).
    pull (B,): how far each user is moved beside the usual one, or what gives it; for toward.
    resolved: `resolve` for these concepts, where the caller remembers its answers.
    Where every row wishes the same and nothing is relative, the knobs are one shared set:
    offsets (2,).

    Raises:
        UnknownConceptError, ValueError: as `resolve`; or activation or pull does not fit.
    """
    know = resolved or (lambda turns: resolve(turns, concepts))
    if len(batch) == 1:  # a request or a live profile, many times a second
        alone = know(as_turns(batch[0]))
        if not alone.is_relative:
            return alone.shared
    # the same object in many rows, as one wish for all gives it, is read once
    turns_of = {key: as_turns(one) for key, one in {id(one): one for one in batch}.items()}
    distinct = {turns: know(turns) for turns in dict.fromkeys(turns_of.values())}
    rows = {key: distinct[turns] for key, turns in turns_of.items()}
    found = [rows[id(one)] for one in batch]
    relative = any(row.is_relative for row in distinct.values())
    if len(distinct) == 1 and not relative:
        return found[0].shared
    if relative:
        sums = _of_rows("activation", activation, len(found), "relative to it (suppress, toward)")
        pulls = [1.0] * len(found)
        if any(row.is_pulled for row in distinct.values()):
            pulls = _of_rows("pull", pull, len(found), "that go by it (toward)")
        found = [row.at(*each) for row, *each in zip(found, sums, pulls, strict=True)]
    return _csr(found)


class _Builder:
    """Gathers one row's knobs; two turns on one latent become one knob per kind."""

    def __init__(self, concepts: Targets | None, direction: Direction | None) -> None:
        self.concepts, self.direction = concepts, direction
        self.mix: dict[int, float] = {}
        self.scale: dict[int, float] = {}
        self.add: dict[tuple[int, bool, bool], float] = {}
        self.scaled: set[int] = set()
        self.total = 0.0

    def turn(self, turn: Any) -> None:
        match turn:
            case Boost(concept, None, _):
                raise ValueError(
                    f"boost({concept!r}, share=...) must be asked of recommend() or calibrate(), "
                    "which find its alpha; here give alpha"
                )
            case Boost(concept, alpha):
                self.mixed(*self.target(concept), alpha)
            case Mix(latents, weights, alpha):
                self.mixed(latents, weights, alpha)
            case Suppress(concept, strength):
                latents, weights = self.target(concept, reach=True)
                self.scales(latents, [1.0 - strength] * len(latents))
                self.adds(latents, [-strength * SUPPRESS_PUSH * w for w in weights], True)
            case Toward(concept, strength):
                self.toward(concept, strength)
            case Scale(latents, factors):
                twice = self.scaled.intersection(latents)
                if twice:
                    raise ValueError(f"steer must scale a latent once, got two for {min(twice)}")
                self.scaled.update(latents)
                self.scales(latents, factors)
            case Add(latents, amounts, relative):
                self.adds(latents, amounts, bool(relative))

    def share_rest(self, concepts: list[Concept]) -> None:
        """Give what the mixes left to these concepts, and check the total."""
        if self.total > 1.0 + _ROUNDING:
            raise ValueError(f"steer must boost by at most 1 in total, got {self.total:g}")
        rest = 1.0 - self.total
        if concepts and rest <= _ROUNDING:
            raise ValueError(
                f"only({concepts[0]!r}) must be left a share, got boosts of 1 in total"
            )
        for concept in concepts:
            self.mixed(*self.target(concept), rest / len(concepts))

    def toward(self, concept: Concept, strength: float) -> None:
        if self.direction is None:
            raise ValueError(
                f"toward({concept!r}, ...) must be asked of a recommender, which knows where the "
                "concept lies and each user's embedding; here give Add(latents, amounts)"
            )
        latents, weights, length = self.direction(concept)
        if length:
            amounts = toward_amounts(np.asarray(weights, np.float64), length, strength)
            self.adds(np.asarray(latents).tolist(), amounts.tolist(), True, True)

    def mixed(self, latents: Sequence[int], weights: Sequence[float], alpha: float) -> None:
        self.total += alpha
        for latent, weight in zip(latents, weights, strict=True):
            self.mix[latent] = self.mix.get(latent, 0.0) + alpha * weight

    def scales(self, latents: Sequence[int], factors: Sequence[float]) -> None:
        for latent, factor in zip(latents, factors, strict=True):
            self.scale[latent] = self.scale.get(latent, 1.0) * factor

    def adds(
        self, latents: Sequence[int], amounts: Sequence[float], relative: bool, pulled: bool = False
    ) -> None:
        for latent, amount in zip(latents, amounts, strict=True):
            key = (latent, relative, pulled)
            self.add[key] = self.add.get(key, 0.0) + amount

    def target(self, concept: Concept, *, reach: bool = False) -> tuple[list[int], list[float]]:
        if isinstance(concept, int):
            return [concept], [1.0]
        if self.concepts is None:
            raise UnknownConceptError(
                f"concept {concept!r} is unknown: there are no concepts; give tags, or turn a "
                "latent by its index"
            )
        find = self.concepts.reach if reach else self.concepts.target
        latents, weights = find(concept)
        return np.asarray(latents).tolist(), np.asarray(weights, dtype=np.float64).tolist()

    def row(self) -> KnobRow:
        over = max(1.0, sum(self.mix.values()))  # decimals may sum to 1 + 1e-7
        knobs = [
            *((n, m, KnobKind.SCALE, False, False) for n, m in self.scale.items() if m != 1),
            *((n, w / over, KnobKind.MIX, False, False) for n, w in self.mix.items() if w),
            *((n, a, KnobKind.ADD, *units) for (n, *units), a in self.add.items() if a),
        ]
        columns = zip(*knobs, strict=True) if knobs else [()] * 5
        latents, weights, kinds, relative, pulled = columns
        return KnobRow(
            np.array(latents, dtype=np.int32),
            np.array(weights, dtype=np.float64),
            np.array(kinds, dtype=np.uint8),
            np.array(relative, dtype=bool),
            np.array(pulled, dtype=bool),
        )


def _csr(rows: list[KnobRow]) -> Knobs:
    if len(rows) == 1:
        return rows[0].shared
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row.latents) for row in rows], out=offsets[1:])
    if not rows:
        rows = [resolve(Turns())]
    return Knobs(
        offsets,
        np.concatenate([row.latents for row in rows]),
        np.concatenate([row.weights for row in rows]).astype(np.float32),
        np.concatenate([row.kinds for row in rows]),
    )


def _of_rows(
    name: str, given: np.ndarray | Callable[[], np.ndarray] | None, n_rows: int, turns: str
) -> list[float]:
    """One finite number for each row, of an array or what gives it."""
    if given is None:
        raise ValueError(f"{name} must be given for turns {turns}, got None")
    found = np.asarray(given() if callable(given) else given, dtype=np.float64)
    if found.shape != (n_rows,):
        raise ValueError(f"{name} must have shape ({n_rows},), got {found.shape}")
    if not np.isfinite(found).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return found.tolist()
