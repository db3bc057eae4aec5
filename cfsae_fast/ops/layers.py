"""Floor 1: a layer of a network, on arrays.

Station: within CFAE.encode and CFAE.decode, where these are deeper than one layer.
"""

from __future__ import annotations

import numpy as np

from cfsae_fast import _C
from cfsae_fast.ops.arrays import plain
from cfsae_fast.ops.settings import execution


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, threads: int = 0) -> np.ndarray:
    """x @ weight.T + bias: (B, m), (n, m), (n,) -> (B, n), all float32.

    A row's result is the same to the bit in every batch and on any number of threads.

    Raises:
        TypeError, ValueError: dtypes or shapes do not fit.
    """
    x, weight = plain(x), plain(weight)
    out = np.empty((*x.shape[:1], *weight.shape[:1]), np.float32)
    _C.linear(x, weight, plain(bias), out, *execution(threads))
    return out
