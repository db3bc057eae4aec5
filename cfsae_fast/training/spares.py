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

from cfsae_fast.config import FEW_ROWS, PART_HISTORIES_BELOW, SAEConfig
from cfsae_fast.models import SparseAutoencoder


def settled(config: SAEConfig, d: int, n_rows: int, *, sums: bool) -> SAEConfig:
    """`config` with n_latents and what FEW_ROWS has filled in, as they hold for so many rows.

    sums: whether embeddings are ELSA's, which are sums of items. Noise and the loss of 4 k are for
    these alone: MultVAE's keep no more of anime-5k with them, and leave latents dead.

    Raises:
        ValueError: k is above L.
    """
    few = config.compat == "corrected" and are_few(config, d, n_rows)
    fits = {name: few for name in FEW_ROWS} | {
        "noise": few and sums,
        "wide_loss": few and sums and config.kind == "topk",
    }
    filled = {
        name: (value if fits[name] else type(value)()) if getattr(config, name) is None
        else getattr(config, name)
        for name, value in FEW_ROWS.items()
    }  # fmt: skip
    return replace(config, n_latents=config.n_latents or 8 * d, **filled)


def are_few(config: SAEConfig, d: int, n_rows: int) -> bool:
    """Whether an SAE would learn so many rows by heart."""
    return n_rows < PART_HISTORIES_BELOW * (config.n_latents or 8 * d)


def with_spares(config: SAEConfig) -> SAEConfig:
    """A settled `config` with the spare latents among n_latents."""
    return replace(config, n_latents=config.n_latents + round(config.spare * config.n_latents))


def without_spares(
    model: SparseAutoencoder, config: SAEConfig, embeddings: Iterable[Tensor]
) -> SparseAutoencoder:
    """`model` reduced to the L of a settled `config` that fire for most of the embeddings, in their
    order; of equals the first. A model of L latents is returned as it is.
    """
    if model.n_latents == config.n_latents:
        return model
    counts = fired(model, embeddings)
    most = torch.argsort(counts, descending=True, stable=True)[: config.n_latents]
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
