"""Floor 1: a matrix once more in 8 bits, by which topk_encode and recommend exclude its rows.

Station: `embedding -> SAE.encode` and `CFAE.decode -> scores -> top-N`, of a model that serves.
"""

from __future__ import annotations

import numpy as np

from cfsae_fast import _C
from cfsae_fast.ops.arrays import plain
from cfsae_fast.ops.settings import execution

WORTH_IT_FROM = 1 << 18  # entries; below, the fp32 matrix itself lies in the processor's cache


class Screen:
    """`matrix` (n, d) in 8 bits, with the bounds of what that lost: a quarter of its bytes.

    Rows whose bound excludes them are never read in float32; the others are decided there. So the
    answer is the same, and a single request reads a quarter of the memory. The matrix must not
    change while its screen is in use.
    """

    __slots__ = ("matrix", "memory")

    def __init__(self, matrix: np.ndarray, *, threads: int = 0) -> None:
        """matrix (n, d) float32.

        Raises:
            TypeError, ValueError: it is not such a matrix.
        """
        self.matrix = matrix
        rows = plain(matrix)
        self.memory = np.empty(_C.screen_bytes(rows), np.uint8)
        _C.make_screen(rows, self.memory, *execution(threads))

    @classmethod
    def where_it_pays(cls, matrix: np.ndarray) -> Screen | None:
        """A screen for a matrix that many requests will read; None: small, or no byte products."""
        return cls(matrix) if matrix.size >= WORTH_IT_FROM and _C.has_screens() else None


def memory_of(screen: Screen | None, matrix: np.ndarray, name: str) -> np.ndarray | None:
    """What the engine reads.

    Raises:
        ValueError: the screen is of another matrix than the argument `name`.
    """
    if screen is None:
        return None
    if screen.matrix is not matrix:
        raise ValueError(
            f"screen must be made of the very array passed as {name}, got one of "
            f"shape {screen.matrix.shape}; make it by Screen({name})"
        )
    return screen.memory
