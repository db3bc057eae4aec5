"""Floor 4: spare latents: more are trained than are asked for, and those that fire most stay.

Station: SAE.encode of all training rows, once, after the last step. Some latents fire for parts of
histories and never for a whole one; AuxK cannot see which. What falls away here fires seldom or
never, so that next to nothing is lost with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from cfsae_fast.config import PART_HISTORIES_BELOW, SAEConfig
from cfsae_fast.models import SparseAutoencoder


def with_spares(config: SAEConfig, d: int, n_rows: int) -> SAEConfig:
    """`config` with n_latents a number: L, and the spare ones where rows are few.

    Raises:
        ValueError: k is above L.
    """
    n_latents = config.n_latents or 8 * d
    config = replace(config, n_latents=n_latents)  # checks k against L alone
    few = n_rows < PART_HISTORIES_BELOW * n_latents
    share = config.spare if few and config.compat != "paper" else 0
    return replace(config, n_latents=n_latents + round(share * n_latents))


def without_spares(
    model: SparseAutoencoder, config: SAEConfig, embeddings: Iterable[Tensor]
) -> SparseAutoencoder:
    """`model` reduced to the L of `config` that fire for most of the embeddings, in their order;
    of equals the first. A model of L latents is returned as it is.
    """
    n_latents = config.n_latents or 8 * model.d
    if model.n_latents == n_latents:
        return model
    counts = fired(model, embeddings)
    most = torch.argsort(counts, descending=True, stable=True)[:n_latents]
    return model.reduced_to(most.sort().values, config)


@torch.no_grad()
def fired(model: SparseAutoencoder, embeddings: Iterable[Tensor]) -> Tensor:
    """(L,) int64: rows for which each latent is in the code."""
    counts = torch.zeros(model.n_latents, dtype=torch.int64)
    for block in embeddings:
        indices = model.encode(block).code.indices
        used = indices[indices >= 0].long().cpu()
        counts += torch.bincount(used, minlength=len(counts))
    return counts
