"""What the benchmarks compare with: each peer does the same task the way its users do it today."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Peer = TypeVar("Peer")


def available(makers: dict[str, Callable[[], Peer]]) -> dict[str, Peer]:
    """The peers that can be made here; one whose maker raises ImportError is named and left out."""
    found = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except ImportError as error:
            print(f"{name} is left out: {error} (make peers)")
    return found
