"""Floor 2: what training leaves behind: networks of numpy arrays that serve without torch."""

from cfsae_fast.inference.cfae import CFAENetwork, Layer
from cfsae_fast.inference.folded import FoldedTables
from cfsae_fast.inference.sae import SAENetwork, trim
from cfsae_fast.inference.table_files import load_tables, save_tables

__all__ = [
    "CFAENetwork",
    "FoldedTables",
    "Layer",
    "SAENetwork",
    "load_tables",
    "save_tables",
    "trim",
]
