"""Floor 1: the engine's ops, for numpy arrays and torch tensors alike.

Station: every arrow of the story between `CSR` and `top-N` is one of these functions.
"""

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
from cfsae_fast.ops.folded import (
    FoldedSide,
    FoldedTable,
    folded_recommend,
    folded_scores,
    folded_topk_encode,
    folded_turn,
)
from cfsae_fast.ops.functions import (
    PRECISIONS,
    encode_rows,
    recommend,
    sparse_decode,
    steer,
    steer_decode,
    topk_encode,
)
from cfsae_fast.ops.screens import Screen
from cfsae_fast.ops.settings import build_info, checked, force_isa, get_threads, set_threads

__all__ = [
    "PADDING",
    "PRECISIONS",
    "Code",
    "Encoded",
    "FoldedSide",
    "FoldedTable",
    "KnobKind",
    "Knobs",
    "Recommended",
    "Rows",
    "Screen",
    "Stats",
    "build_info",
    "checked",
    "encode_rows",
    "folded_recommend",
    "folded_scores",
    "folded_topk_encode",
    "folded_turn",
    "force_isa",
    "get_threads",
    "recommend",
    "set_threads",
    "sparse_decode",
    "steer",
    "steer_decode",
    "topk_encode",
]
