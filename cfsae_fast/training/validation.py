"""Floor 4: what early stopping watches: nDCG@20 of held-out items, or the loss.

Station: encode -> (SAE) -> top-N of held-out users, after each epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cfsae_fast import metrics
from cfsae_fast.models import CFAE, SparseAutoencoder
from cfsae_fast.ops.containers import Rows
from cfsae_fast.training.loop import Validation
from cfsae_fast.training.randomness import torch_generator
from cfsae_fast.training.samplers import to_tensors

BLOCK = 1024  # users at a time
CUT = 20  # nDCG@20, the cut-off that the published results use


class HeldOut(NamedTuple):
    """Users to validate on: what the model sees of each, and what it must find (arrays)."""

    inputs: Rows
    targets: Rows


def ndcg_of(
    model: CFAE, held_out: HeldOut, *, through: Callable[[Tensor], Tensor] | None = None
) -> float:
    """Mean nDCG@20 of held-out users, seen items left out.

    through: what happens to the embedding between encoder and decoder (an SAE), None: nothing.
    Users without targets are left out of the mean; nobody left gives NaN.
    """
    device = str(model.items.device)
    values = []
    with torch.no_grad():
        for block in _blocks(len(held_out.inputs.offsets) - 1):
            seen = to_tensors(held_out.inputs.take(block), device)
            embedding = model.encode(seen)
            if through is not None:
                embedding = through(embedding)
            top = model.recommend(embedding, CUT, seen=seen).ids.cpu().numpy()
            values.append(metrics.ndcg_at(top, held_out.targets.take(block), CUT))
    return metrics.estimate(np.concatenate(values)).mean if values else float("nan")


def watch_cfae(held_out: HeldOut | None, monitor: str) -> Validation | None:
    """Validation of stage 1 (None: nothing held out)."""
    if held_out is None:
        return None
    if monitor == "ndcg":
        return Validation(lambda model: ndcg_of(model, held_out), name="ndcg@20")
    return Validation(
        lambda model: _mean_loss(model, _row_batches(model, held_out.inputs)),
        name="validation_loss",
        higher_is_better=False,
    )


def watch_sae(cfae: CFAE, held_out: HeldOut | None, monitor: str) -> Validation | None:
    """Validation of stage 2 on users of a frozen CFAE: nDCG@20 of reconstructed embeddings."""
    if held_out is None:
        return None
    if monitor == "ndcg":
        return Validation(
            lambda sae: ndcg_of(cfae, held_out, through=lambda x: sae.decode(sae.encode(x))),
            name="ndcg@20",
        )
    return Validation(
        lambda sae: _mean_loss(sae, map(cfae.encode, _row_batches(cfae, held_out.inputs))),
        name="validation_loss",
        higher_is_better=False,
    )


def watch_array(array: np.ndarray | None, device: str) -> Validation | None:
    """Validation of an SAE on embeddings (n, d) of its own: the loss."""
    if array is None:
        return None

    def measure(sae: SparseAutoencoder) -> float:
        blocks = (torch.from_numpy(array[at]).to(device) for at in _blocks(len(array)))
        return _mean_loss(sae, blocks)

    return Validation(measure, name="validation_loss", higher_is_better=False)


def _mean_loss(model, batches) -> float:
    """Mean over rows of the loss, in eval mode: no dropout, no noise, nothing counted."""
    total = count = 0
    for batch in batches:
        size = len(batch.offsets) - 1 if isinstance(batch, Rows) else len(batch)
        loss, _ = model.loss(batch, generator=torch_generator(0, 0), step=0)
        total, count = total + float(loss) * size, count + size
    return total / count if count else float("nan")


def _row_batches(model: CFAE, rows: Rows) -> Iterator[Rows]:
    for block in _blocks(len(rows.offsets) - 1):
        yield to_tensors(rows.take(block), str(model.items.device))


def _blocks(count: int) -> Iterator[np.ndarray]:
    for low in range(0, count, BLOCK):
        yield np.arange(low, min(low + BLOCK, count))
