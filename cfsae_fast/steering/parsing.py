"""Floor 2: turns from text ("film noir=0.3, -horror"), from dicts, and for a batch of users.

Station: steer, where a command line or a JSON request speaks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from cfsae_fast.steering.words import (
    Boost,
    Concept,
    Only,
    Suppress,
    Toward,
    Turn,
    Turns,
    boost,
    number,
    only,
    suppress,
    toward,
)

DEFAULT_ALPHA = 0.3  # share of activation for a concept named without a number

_LATENT = re.compile(r"#(\d+)\Z")
_TURN = re.compile(
    r"""\s* (?:(?P<word>only|toward)\s*: | (?P<sign>[-+]))?
        \s* (?: "(?P<quoted>(?:[^"\\]|\\.)*)"
             | (?!(?:only|toward)\s*:) (?P<plain>[^\s,="+-][^,="]*?) )
        \s* (?:=\s*(?P<amount>[^\s,]+)\s*)?
        (?:,|\Z)""",
    re.VERBOSE,
)


def from_text(text: str) -> Turns:
    """Turns from comma-separated text, as the command line takes it.

        film noir=0.3     boost by 0.3               film noir    boost by DEFAULT_ALPHA
        -horror           suppress                   -horror=0.5  suppress, half as strong
        horror=-0.5       the same                   only:anime   only
        #889=0.15         boost the latent 889       "a, b"=0.2   a name with , = " - or # in it
        toward:anime=0.3  toward                     toward:anime toward, by DEFAULT_ALPHA

    Raises:
        ValueError: the text does not read as that, or a number is out of range.
    """
    turns, at = [], 0
    while at < len(text) and text[at:].strip():
        found = _TURN.match(text, at)
        if found is None:
            raise ValueError(
                "steer must read like 'film noir=0.3, -horror, only:anime, toward:sci-fi=0.3', got "
                f'{text[at:]!r} at character {at}; put names with , or = in "..."'
            )
        turns.append(_turn_of(found))
        at = found.end()
    return Turns(turns)


def from_dict(wishes: Mapping[Concept, Any]) -> Turns:
    """Turns from {concept: amount}, as JSON takes it.

    amount in (0, 1]: boost by it; in [-1, 0): suppress with that strength; "only": only;
    {"toward": strength}: toward. A key "#889", or the int 889, is that latent.

    Raises:
        ValueError: an amount is out of range or not a number.
    """
    turns = []
    for name, amount in wishes.items():
        concept = _concept_of(name) if isinstance(name, str) else name
        turns.append(only(concept) if amount == "only" else _by_amount(concept, amount))
    return Turns(turns)


def as_turns(steer: Any) -> Turns:
    """One user's turns from None, text, a dict, a turn, or a list of turns.

    Raises:
        TypeError: `steer` is none of these.
        ValueError: text or dict do not make sense.
    """
    if isinstance(steer, Turns):
        return steer
    if steer is None:
        return Turns()
    if isinstance(steer, str):
        return from_text(steer)
    if isinstance(steer, Mapping):
        return _remembered(steer)
    if isinstance(steer, Turn):
        return Turns((steer,))
    if isinstance(steer, list | tuple):
        return Turns(steer)
    raise TypeError(
        "steer must be text, a dict {concept: amount}, turns such as boost('film noir', 0.3), "
        f"or None, got {type(steer).__name__}"
    )


def _remembered(wishes: Mapping[Concept, Any]) -> Turns:
    """`from_dict`, once for wishes that come again and again."""
    try:  # 1, 1.0 and True are equal, and do not read alike
        return _from_items(tuple((*one, *map(type, one)) for one in wishes.items()))
    except TypeError:  # an amount that cannot be remembered: toward's, or one that is wrong
        return from_dict(wishes)


@lru_cache(maxsize=1024)
def _from_items(items: tuple[tuple[Any, Any, type, type], ...]) -> Turns:
    return from_dict({name: amount for name, amount, *_ in items})


def per_row(steer: Any, n_rows: int) -> list[Turns]:
    """Each row's turns, empty where it has none.

    One wish (None, text, dict, a turn, turns joined by `+`, or a list of nothing but turns) is for
    every row; a list with a wish (or None) per row gives each its own.

    Raises:
        ValueError: the list has another length than there are rows.
    """
    several = isinstance(steer, list | tuple) and not isinstance(steer, Turns)
    if not several or all(isinstance(one, Turn) for one in steer):
        return [as_turns(steer)] * n_rows
    if len(steer) != n_rows:
        raise ValueError(f"steer must have one entry per row ({n_rows}), got {len(steer)}")
    return [as_turns(one) for one in steer]


def _turn_of(found: re.Match[str]) -> Turn:
    quoted, amount = found["quoted"], found["amount"]
    concept = _concept_of(found["plain"]) if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    if found["word"] == "only":
        if amount is not None:
            raise ValueError(f"only:{concept} must have no number, got {amount!r}")
        return only(concept)
    going = found["word"] == "toward"
    if amount is None:
        if found["sign"] == "-":
            return suppress(concept)
        return toward(concept, DEFAULT_ALPHA) if going else boost(concept, DEFAULT_ALPHA)
    try:
        value = float(amount)
    except ValueError:
        raise ValueError(f"steer must give {concept!r} a number, got {amount!r}") from None
    if going:
        return toward(concept, value)
    return suppress(concept, value) if found["sign"] == "-" else _by_sign(concept, value)


def _by_amount(concept: Concept, amount: object) -> Boost | Suppress | Toward:
    if not isinstance(amount, Mapping):
        return _by_sign(concept, amount)
    if set(amount) != {"toward"}:
        raise ValueError(
            f"steer[{concept!r}] must be a number, 'only' or {{'toward': strength}}, got {amount!r}"
        )
    return toward(concept, number(f"steer[{concept!r}]['toward']", amount["toward"]))


def _by_sign(concept: Concept, amount: object) -> Boost | Suppress | Only:
    value = number(f"steer[{concept!r}]", amount)
    if not -1.0 <= value <= 1.0:
        raise ValueError(f"steer[{concept!r}] must be in [-1, 1], got {value:g}")
    return suppress(concept, -value) if value < 0 else boost(concept, value)


def _concept_of(name: str) -> Concept:
    latent = _LATENT.match(name)
    return int(latent[1]) if latent else name
