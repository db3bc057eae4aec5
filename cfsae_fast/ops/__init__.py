"""Floor 1: the engine's ops, for numpy arrays and torch tensors alike."""

from cfsae_fast.ops.containers import (
    PADDING,
    Code,
    Encoded,
    KnobKind,
    Knobs,
    Recommended,
    Rows,
    Stats,
)

__all__ = ["PADDING", "Code", "Encoded", "KnobKind", "Knobs", "Recommended", "Rows", "Stats"]
