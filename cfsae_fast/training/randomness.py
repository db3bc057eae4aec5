"""Floor 4: every random number of training as a function of (seed, purpose, step).

No generator carries a state from step to step, so a run that is resumed at any step draws what an
uninterrupted one draws.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """Streams that must not share numbers."""

    ORDER = 1  # in which order rows are visited, per pass
    HISTORY = 2  # which part of a history is embedded, per step
    MODEL = 3  # dropout and noise inside a model, per step


def numpy_generator(seed: int, purpose: Purpose, step: int) -> np.random.Generator:
    """A generator for one purpose at one step: counter-based, cheap to make."""
    key = np.array([seed % 2**64, int(purpose)], dtype=np.uint64)
    counter = np.array([0, 0, 0, step], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def torch_generator(seed: int, step: int) -> torch.Generator:
    """The CPU generator that a model's loss gets at one step."""
    drawn = numpy_generator(seed, Purpose.MODEL, step).integers(0, 2**63 - 1)
    return torch.Generator().manual_seed(int(drawn))
