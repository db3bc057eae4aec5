"""Floor 1: numpy arrays as the engine's binding takes them.

Station: none of its own; every op prepares its arguments here.
"""

from __future__ import annotations

import numpy as np


def plain(array: np.ndarray | None) -> np.ndarray | None:
    """The array itself if it is contiguous already, else a contiguous copy; None stays None.

    A scalar becomes an array of one entry, which the binding then refuses by its shape.
    """
    return None if array is None else np.ascontiguousarray(array)


def as_bytes(mask: np.ndarray | None) -> np.ndarray | None:
    """A bool mask as bytes, other arrays as they are; contiguous."""
    mask = plain(mask)
    return mask.view(np.uint8) if mask is not None and mask.dtype == np.bool_ else mask
