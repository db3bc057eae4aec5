"""Floor 3: the models that are trained: torch modules with encode, decode and loss.

Station: CFAE.encode, SAE.encode, SAE.decode, CFAE.decode, while they learn.
"""

from __future__ import annotations

import torch

from cfsae_fast.config import CFAEConfig, SAEConfig
from cfsae_fast.models.cfae import CFAE
from cfsae_fast.models.elsa import ELSA
from cfsae_fast.models.multvae import MultDAE, MultVAE
from cfsae_fast.models.sae import SparseAutoencoder

CFAES: dict[str, type[CFAE]] = {"elsa": ELSA, "multvae": MultVAE, "multdae": MultDAE}

__all__ = [
    "CFAE", "CFAES", "ELSA", "MultDAE", "MultVAE", "SparseAutoencoder", "make_cfae", "make_sae",
]  # fmt: skip


def make_cfae(n_items: int, config: CFAEConfig, *, seed: int = 42) -> CFAE:
    """An untrained CFAE over `n_items` items; the weights are a function of the seed."""
    return CFAES[config.model](n_items, config, generator=torch.Generator().manual_seed(seed))


def make_sae(d: int, config: SAEConfig, *, seed: int = 42) -> SparseAutoencoder:
    """An untrained SAE for embeddings of width d; the weights are a function of the seed."""
    return SparseAutoencoder(d, config, generator=torch.Generator().manual_seed(seed))
