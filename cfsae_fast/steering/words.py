"""Floor 2: the words of steering: boost, suppress, only, toward; its primitives mix, scale, add.

Station: steer, before it knows any code: a turn is a wish, immutable and checked when it is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

Concept = str | int  # the name of a concept, or the index of one latent


class Turns(tuple):
    """Several turns for one user, in no particular order; `+` joins more to them."""

    __slots__ = ()

    def __new__(cls, turns: Iterable[Turn] = ()) -> Turns:
        turns = tuple(turns)
        for turn in turns:
            if not isinstance(turn, Turn):
                raise TypeError(f"turns must be boost(...), suppress(...) and such, got {turn!r}")
        return super().__new__(cls, turns)

    def __add__(self, other: object) -> Turns:
        if isinstance(other, Turn):
            other = (other,)
        return Turns((*self, *other)) if isinstance(other, tuple) else NotImplemented

    def __repr__(self) -> str:
        return " + ".join(map(repr, self)) or "Turns()"


class Turn:
    """One wish; `boost("film noir", 0.3) + suppress("horror")` are two."""

    __slots__ = ()

    def __add__(self, other: object) -> Turns:
        return Turns((self,)) + other


@dataclass(frozen=True)
class Boost(Turn):
    """See `boost`."""

    concept: Concept
    alpha: float | None
    share: float | None = None

    def __post_init__(self) -> None:
        if (self.alpha is None) == (self.share is None):
            raise ValueError("boost must have alpha or share, and not both")
        name = "alpha" if self.share is None else "share"
        _set(self, concept=_concept(self.concept), **{name: _share(name, getattr(self, name))})

    def __repr__(self) -> str:
        given = f"alpha={self.alpha}" if self.share is None else f"share={self.share}"
        return f"Boost(concept={self.concept!r}, {given})"


@dataclass(frozen=True)
class Suppress(Turn):
    """See `suppress`."""

    concept: Concept
    strength: float = 1.0

    def __post_init__(self) -> None:
        _set(self, concept=_concept(self.concept), strength=_share("strength", self.strength))


@dataclass(frozen=True)
class Only(Turn):
    """See `only`."""

    concept: Concept

    def __post_init__(self) -> None:
        _set(self, concept=_concept(self.concept))


def boost(concept: Concept, alpha: float | None = None, *, share: float | None = None) -> Boost:
    """Give `concept` the share `alpha` of the code's activation, taking it from everything else.

    share instead of alpha: the least alpha that gives items of the concept this share of the list,
    found anew for every user (`SteerableRecommender.recommend` and `calibrate`).

    alpha in [0, 1]; several boosts of one user may sum to at most 1. A concept is a name of the
    ConceptMap, or an int: that one latent.

    Raises:
        ValueError: alpha or share is NaN or outside [0, 1], or not exactly one is given.
    """
    return Boost(concept, alpha, share)


def suppress(concept: Concept, strength: float = 1.0) -> Suppress:
    """Silence the concept's latents and push away from what they stand for.

    strength in [0, 1]: 1 takes the latents out altogether (`algebra.SUPPRESS_PUSH` says how far
    beyond zero they go), 0 does nothing.

    Raises:
        ValueError: strength is NaN or outside [0, 1].
    """
    return Suppress(concept, strength)


def only(concept: Concept) -> Only:
    """Give `concept` all activation that boosts leave; several concepts share it equally.

    Items without the concept still fill the list where it runs out, or where the part of the user
    that no latent says (mode "residual") outweighs it.
    """
    return Only(concept)


@dataclass(frozen=True)
class Toward(Turn):
    """See `toward`."""

    concept: Concept
    strength: float

    def __post_init__(self) -> None:
        _set(self, concept=_concept(self.concept), strength=_share("strength", self.strength))


def toward(concept: Concept, strength: float) -> Toward:
    """Move every user towards `concept`, the less the more their own history says.

    strength in [0, 1]: a usual user's embedding and the concept are mixed as 1 - strength to
    strength; 0 does nothing, 1 is nearly the concept alone. Of the ways to steer compared in
    docs/findings.md this one leaves most of a user's list for what it gives. Made for mode
    "residual"; a recommender has to resolve it, which knows the concept's direction (from
    `SteerableRecommender.label`) and each user's embedding. An int is that one latent.

    Raises:
        ValueError: strength is NaN or outside [0, 1].
    """
    return Toward(concept, strength)


@dataclass(frozen=True)
class Mix(Turn):
    """z <- (1 - alpha) z + alpha s t, with s = sum(z) and t the weights, scaled to sum 1.

    latents (m,); weights (m,) >= 0, None: equal; alpha in [0, 1].

    Raises:
        ValueError: a weight or alpha is out of range, or lengths differ.
    """

    latents: tuple[int, ...]
    weights: tuple[float, ...] | None = None
    alpha: float = 0.3

    def __post_init__(self) -> None:
        latents = _latents(self.latents)
        weights = _numbers("weights", 1.0 if self.weights is None else self.weights, len(latents))
        if min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(f"weights must be >= 0 and not all 0, got {list(weights)}")
        total = math.fsum(weights)
        weights = tuple(weight / total for weight in weights)
        _set(self, latents=latents, weights=weights, alpha=_share("alpha", self.alpha))


@dataclass(frozen=True)
class Scale(Turn):
    """z_n <- factor_n z_n; 0 silences a latent. factors: one for all, or one per latent, >= 0.

    Raises:
        ValueError: a factor is negative, or a latent stands there twice.
    """

    latents: tuple[int, ...]
    factors: float | tuple[float, ...]

    def __post_init__(self) -> None:
        latents = _latents(self.latents)
        factors = _numbers("factors", self.factors, len(latents))
        if min(factors) < 0:
            raise ValueError(f"factors must be >= 0, got {min(factors)}; Add pushes below zero")
        if len(set(latents)) != len(latents):
            raise ValueError(f"latents must be scaled once each, got {list(latents)}")
        _set(self, latents=latents, factors=factors)


@dataclass(frozen=True)
class Add(Turn):
    """z_n <- z_n + amount_n, any sign. relative: amounts are in units of the row's sum(z).

    amounts: one for all, or one per latent.

    Raises:
        ValueError: an amount is not finite, or lengths differ.
    """

    latents: tuple[int, ...]
    amounts: float | tuple[float, ...]
    relative: bool = False

    def __post_init__(self) -> None:
        latents = _latents(self.latents)
        _set(self, latents=latents, amounts=_numbers("amounts", self.amounts, len(latents)))


def number(name: str, value: object) -> float:
    """`value` as a finite float, or an error that names the argument.

    Raises:
        ValueError: it is no number, or NaN or infinite.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {float(value)}")
    return float(value)


def _share(name: str, value: object) -> float:
    value = number(name, value)
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be in [0, 1], got {value:g}")
    return value


def _concept(concept: object) -> Concept:
    if isinstance(concept, Integral) and not isinstance(concept, bool):
        return _latents((concept,))[0]
    if not isinstance(concept, str):
        raise TypeError(f"concept must be a name or the index of a latent, got {concept!r}")
    if not concept.strip():
        raise ValueError(f"concept must not be empty, got {concept!r}")
    return str(concept)


def _latents(latents: Iterable[object]) -> tuple[int, ...]:
    found = tuple(latents)
    if not found:
        raise ValueError("latents must name at least one latent, got none")
    for latent in found:
        if not isinstance(latent, Integral) or isinstance(latent, bool) or not 0 <= latent < 2**31:
            raise ValueError(f"latents must be whole numbers in [0, n_latents), got {latent!r}")
    return tuple(map(int, found))


def _numbers(name: str, values: object, count: int) -> tuple[float, ...]:
    if isinstance(values, Real):
        return (number(name, values),) * count
    if not isinstance(values, Sequence) and not hasattr(values, "__array__"):
        raise ValueError(f"{name} must be a number or one per latent, got {values!r}")
    found = tuple(number(name, value) for value in values)
    if len(found) != count:
        raise ValueError(f"{name} must be one per latent ({count}), got {len(found)}")
    return found


def _set(turn: Turn, **fields: object) -> None:
    for name, value in fields.items():
        object.__setattr__(turn, name, value)
