"""Floor 1: lists of Python ints, as a server is sent them, looked up without a loop in Python.

Station: `(user, item) -> CSR`, for one live request.
"""

from __future__ import annotations

import numpy as np

from cfsae_fast import _C


def positions_of_lists(
    lists: list, table: np.ndarray, least: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Positions (nnz,) int64 of the ids of several lists in turn, and each list's length (B,).

    table (n,) int64: the position of id least + i, or -1. None where anything is unusual: an id
    that is unknown or no Python int, or something else than a list or tuple of them.
    """
    return _C.positions_of_lists(lists, table, least)
