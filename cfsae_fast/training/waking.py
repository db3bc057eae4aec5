"""Floor 4: waking latents: one that no training row fires gets its bias raised until a row does.

Station: SAE.encode of all training rows, after the last step. Where latents are more than rows tell
apart, many fire for parts of histories, for mixtures, or for noise, and never for a whole history;
AuxK cannot see which. A latent that wakes takes the place of the least one in the code of the row
that it is nearest to. It learns nothing new: docs/findings.md has what it costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from cfsae_fast.models import SparseAutoencoder

BLOCK = 1024  # rows at a time
ROUNDS = 32
NEAREST = 4  # rows that a silent latent may choose from
SLACK = 1e-4  # by how much it exceeds what it replaces, of both activations' size


class WholeRows(Protocol):
    """Embeddings of all training rows, as the samplers give them."""

    def whole(self, block: int) -> Iterator[Tensor]: ...


def wake_all(model: SparseAutoencoder, rows: WholeRows) -> None:
    """`wake` until no latent is silent, or for ROUNDS: who wakes may send another to sleep."""
    for _ in range(ROUNDS):
        if not wake(model, rows):
            return


@torch.no_grad()
def wake(model: SparseAutoencoder, rows: WholeRows) -> int:
    """Raise the bias of each latent that no row has in its code, so that one row will.

    A row wakes one latent at a time, and none whose coming would leave another without a row.
    Returns how many latents were silent; some may still be, or others may be now.
    """
    firing = _firing(model, rows)
    silent = np.flatnonzero(firing.counts == 0)
    if len(silent):
        need, nearest = _nearest(model, rows, torch.from_numpy(silent), firing)
        _raise(model, silent, need, nearest, firing)
    return len(silent)


class _Firing(NamedTuple):
    """counts (L,): rows per latent. level, last (n,): the activation that a latent must exceed to
    enter a row's code, and the latent that leaves it then; -1 where there is room."""

    counts: np.ndarray
    level: np.ndarray
    last: np.ndarray


@torch.no_grad()
def _firing(model: SparseAutoencoder, rows: WholeRows) -> _Firing:
    counts = np.zeros(model.n_latents, dtype=np.int64)
    levels, lasts = [], []
    for block in rows.whole(BLOCK):
        indices, values = (one.cpu().numpy() for one in model.encode(block).code)
        counts += np.bincount(indices[indices >= 0], minlength=len(counts))
        full = indices[:, -1] >= 0
        levels.append(np.where(full, values[:, -1], model.floor))
        lasts.append(np.where(full, indices[:, -1], -1))
    return _Firing(counts, np.concatenate(levels), np.concatenate(lasts))


def _nearest(
    model: SparseAutoencoder, rows: WholeRows, silent: Tensor, firing: _Firing
) -> tuple[np.ndarray, np.ndarray]:
    """What each silent latent lacks (c, n_silent), ascending, in the c rows where it lacks least,
    and these rows; infinite where the row's last latent has no other row."""
    alone = (firing.last >= 0) & (firing.counts[firing.last] == 1)
    level = torch.from_numpy(np.where(alone, np.inf, firing.level).astype(np.float32))
    silent = silent.to(model.encoder.device)
    need = torch.empty(0, len(silent), device=silent.device)
    nearest = torch.empty(0, len(silent), dtype=torch.int64, device=silent.device)
    low = 0
    for block in rows.whole(BLOCK):
        activation = model.preactivations(block, silent)
        at = level[low : low + len(block)].to(activation.device)[:, None]
        slack = SLACK * (at.abs() + activation.abs()).clamp_min(SLACK)
        rows_here = torch.arange(low, low + len(block), device=silent.device)[:, None]
        need = torch.cat([need, at - activation + slack])
        nearest = torch.cat([nearest, rows_here.expand(-1, len(silent))])
        need, order = need.topk(min(NEAREST, len(need)), dim=0, largest=False)
        nearest, low = nearest.gather(0, order), low + len(block)
    return need.cpu().numpy(), nearest.cpu().numpy()


def _raise(
    model: SparseAutoencoder,
    silent: np.ndarray,
    need: np.ndarray,
    nearest: np.ndarray,
    firing: _Firing,
) -> None:
    counts, taken = firing.counts.copy(), np.zeros(len(firing.last), dtype=bool)
    more = np.zeros(model.n_latents, dtype=np.float32)
    for latent in np.argsort(need[0], kind="stable"):
        for lacks, row in zip(need[:, latent], nearest[:, latent], strict=True):
            last = firing.last[row]
            if np.isfinite(lacks) and not taken[row] and (last < 0 or counts[last] > 1):
                taken[row], more[silent[latent]] = True, lacks
                counts[last] -= last >= 0
                break
    model.encoder_bias += torch.from_numpy(more).to(model.encoder_bias.device)
