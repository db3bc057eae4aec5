"""Floor 4: training: one loop, two stages, checkpoints that resume bit for bit.

Station: interactions -> CFAE (stage 1), embeddings -> SAE (stage 2); never part of serving.
"""

from cfsae_fast.training.loop import History, Validation, train
from cfsae_fast.training.samplers import ArraySampler, EmbeddingSampler, RowSampler
from cfsae_fast.training.stages import embed, fit_cfae, fit_sae
from cfsae_fast.training.validation import HeldOut, ndcg_of

__all__ = [
    "ArraySampler",
    "EmbeddingSampler",
    "HeldOut",
    "History",
    "RowSampler",
    "Validation",
    "embed",
    "fit_cfae",
    "fit_sae",
    "ndcg_of",
    "train",
]
