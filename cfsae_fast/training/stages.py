"""Floor 4: the two stages: fit a CFAE on rows, fit an SAE on embeddings.

Station: interactions -> CFAE; embeddings of users (or any matrix) -> SAE.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cfsae_fast.config import WIDE_SHARE, CFAEConfig, SAEConfig, TrainConfig, to_dict
from cfsae_fast.models import CFAE, ELSA, SparseAutoencoder, make_cfae, make_sae
from cfsae_fast.ops.containers import Rows
from cfsae_fast.training.checkpoints import RunFolder
from cfsae_fast.training.loop import train
from cfsae_fast.training.precision import decided
from cfsae_fast.training.samplers import (
    ArraySampler,
    EmbeddingSampler,
    RowSampler,
    to_tensors,
)
from cfsae_fast.training.spares import are_few, settled, with_spares, without_spares
from cfsae_fast.training.validation import BLOCK, HeldOut, watch_array, watch_cfae, watch_sae
from cfsae_fast.training.waking import wake_all

START_ROWS = 8192  # embeddings that the SAE's bias starts from, at most

OnEpoch = Callable[[dict[str, Any]], None]


def fit_cfae(
    rows: Rows,
    n_items: int,
    cfae_config: CFAEConfig | None = None,
    train_config: TrainConfig | None = None,
    *,
    validation: HeldOut | None = None,
    run_dir: str | os.PathLike | None = None,
    resume: bool = False,
    progress: bool = False,
    on_epoch: OnEpoch | None = None,
) -> CFAE:
    """Train a CFAE on users' rows (arrays); users without interactions teach nothing.

    validation: held-out users for early stopping and for choosing the epoch that is kept; None:
    all epochs, last weights. run_dir: metrics.jsonl and a checkpoint after every epoch; resume goes
    on from it and ends with the weights of an uninterrupted run, bit for bit.
    Defaults: CFAEConfig() and TrainConfig.for_cfae(). Returns the module, in eval mode.

    Raises:
        ValueError: rows are empty, hold an item outside [0, n_items) or a value that is not finite.
        FloatingPointError: training diverged.
    """
    cfae_config = cfae_config or CFAEConfig()
    config = train_config or TrainConfig.for_cfae(cfae_config.model)
    config = decided(config, model=cfae_config.model)
    check_rows(rows, n_items, "rows")
    for name, held in zip(("inputs", "targets"), validation or (), strict=False):
        check_rows(held, n_items, f"validation.{name}")
    model = make_cfae(n_items, cfae_config, seed=config.seed).to(config.device)
    train(
        model,
        RowSampler(rows, config.batch_size, seed=config.seed, device=config.device),
        config,
        validation=watch_cfae(validation, config.monitor),
        folder=_folder(run_dir, "cfae", cfae_config, config, _digest(*rows)),
        resume=resume,
        show_progress=progress,
        title=cfae_config.model,
        on_epoch=on_epoch,
    )
    return model


def fit_sae(
    source: CFAE | np.ndarray | Tensor,
    rows: Rows | None = None,
    sae_config: SAEConfig | None = None,
    train_config: TrainConfig | None = None,
    *,
    validation: HeldOut | np.ndarray | None = None,
    run_dir: str | os.PathLike | None = None,
    resume: bool = False,
    progress: bool = False,
    on_epoch: OnEpoch | None = None,
) -> SparseAutoencoder:
    """Train an SAE on embeddings of users' rows through a trained CFAE, or on any matrix (n, d).

    source: a CFAE, which is frozen and needs `rows`; or the embeddings themselves, without rows.
    validation: held-out users (CFAE) or embeddings (matrix), asked while spare latents
    (sae_config.spare) are still there. With patience 0 they are asked and the last epoch is kept,
    else the best after the loss of 4 k (sae_config.wide_loss) has fallen. The rest as `fit_cfae`.
    Defaults: SAEConfig() and TrainConfig.for_sae().

    Raises:
        ValueError: embeddings are empty, not a matrix, or not finite; k is above n_latents; rows
            are missing, or given with a matrix.
        FloatingPointError: training diverged.
    """
    sae_config = sae_config or SAEConfig()
    config = decided(train_config or TrainConfig.for_sae(), model=sae_config.kind)
    fit = _fit_on_users if isinstance(source, CFAE) else _fit_on_array
    sampler, d, watched, digest = fit(source, rows, sae_config, config, validation)
    sae_config = settled(sae_config, d, sampler.n_rows, sums=isinstance(source, ELSA))
    model = make_sae(d, with_spares(sae_config), seed=config.seed).to(config.device)
    steps = config.epochs * (config.steps_per_epoch or sampler.steps_per_pass)
    if sae_config.wide_loss:
        model.wide_until = WIDE_SHARE * steps
    if watched is not None:
        since = model.wide_until if sae_config.wide_loss else 0
        watched = replace(watched, since=since if config.patience else None)
    start = _first_rows(sampler)
    _check_finite(start.cpu().numpy())
    model.start_from(start)
    train(
        model,
        sampler,
        config,
        validation=watched,
        folder=_folder(run_dir, "sae", sae_config, config, digest),
        resume=resume,
        show_progress=progress,
        title=f"{sae_config.kind} SAE",
        on_epoch=on_epoch,
    )
    model = without_spares(model, sae_config, sampler.whole(BLOCK)).eval()
    if sae_config.wake:
        wake_all(model, sampler)
    return model


def embed(cfae: CFAE, rows: Rows) -> np.ndarray:
    """Embeddings (B, d) float32 of rows (arrays) through a CFAE, block by block."""
    device, out = str(cfae.items.device), np.empty((len(rows.offsets) - 1, cfae.d), np.float32)
    with torch.no_grad():
        for low in range(0, len(out), BLOCK):
            taken = rows.take(np.arange(low, min(low + BLOCK, len(out))))
            out[low : low + BLOCK] = cfae.encode(to_tensors(taken, device)).cpu().numpy()
    return out


def check_rows(rows: Rows, n_items: int, name: str) -> None:
    """Refuse rows that are empty, point outside the catalogue, or hold values that are not finite.

    Raises:
        ValueError: one of these; the message names the argument and what came.
    """
    if len(rows.offsets) < 2:
        raise ValueError(f"{name} must hold at least one row, got none")
    if len(rows.items) and not (rows.items.min() >= 0 and rows.items.max() < n_items):
        raise ValueError(
            f"{name} must hold items in [0, n_items={n_items}), "
            f"got {rows.items.min()}..{rows.items.max()}"
        )
    if rows.values is not None and not np.isfinite(rows.values).all():
        at = int(np.flatnonzero(~np.isfinite(rows.values))[0])
        raise ValueError(f"{name} must hold finite values, got {rows.values[at]} at entry {at}")


def _fit_on_users(cfae, rows, sae_config, config, validation):
    if rows is None:
        raise ValueError("rows must come with a CFAE, got None; pass the users' rows")
    check_rows(rows, cfae.n_items, "rows")
    for name, held in zip(("inputs", "targets"), validation or (), strict=False):
        check_rows(held, cfae.n_items, f"validation.{name}")
    cfae.to(config.device).eval()
    options = {"seed": config.seed, "device": config.device}
    histories = histories_of(sae_config, cfae.d, np.count_nonzero(np.diff(rows.offsets)))
    if histories != "full":
        sampler = EmbeddingSampler(
            cfae.encode,
            rows,
            config.batch_size,
            min_share=sae_config.min_history_share,
            mixed=histories == "mixed",
            **options,
        )
    else:
        used = rows.take(np.flatnonzero(np.diff(rows.offsets)))
        sampler = ArraySampler(_checked(embed(cfae, used)), config.batch_size, **options)
    digest = _digest(*rows, *[one.detach().cpu().numpy() for one in cfae.parameters()])
    return sampler, cfae.d, watch_sae(cfae, validation, config.monitor), digest


def _fit_on_array(array, rows, sae_config, config, validation):
    if rows is not None:
        raise ValueError("rows must be None where source is a matrix of embeddings, got rows")
    array = _checked(array)
    if validation is not None:
        validation = _checked(validation, "validation", width=array.shape[1])
    sampler = ArraySampler(array, config.batch_size, seed=config.seed, device=config.device)
    watched = watch_array(validation, config.device)
    return sampler, array.shape[1], watched, _digest(array)


def histories_of(sae_config: SAEConfig, d: int, n_users: int) -> str:
    """What the SAE trains on, "auto" decided: mixed where users are few, else full."""
    if sae_config.histories != "auto":
        return sae_config.histories
    return "mixed" if are_few(sae_config, d, n_users) else "full"


def _first_rows(sampler: ArraySampler | EmbeddingSampler) -> Tensor:
    """Embeddings of the first steps, at most one pass and about START_ROWS."""
    batches, count = [], 0
    while len(batches) < sampler.steps_per_pass and count < START_ROWS:
        batches.append(sampler.batch(len(batches)))
        count += len(batches[-1])
    return torch.cat(batches)


def _checked(source, name: str = "source", *, width: int | None = None) -> np.ndarray:
    """A matrix of embeddings as a float32 array."""
    if isinstance(source, Tensor):
        source = source.detach().cpu().numpy()
    array = np.asarray(source)
    fits = array.ndim == 2 and array.size and array.dtype.kind in "fiu"
    if not fits or (width is not None and array.shape[1] != width):
        raise ValueError(
            f"{name} must be a matrix of embeddings (n, {width or 'd'}) of numbers, "
            f"got shape {array.shape} of {array.dtype}"
        )
    with np.errstate(over="ignore"):  # what does not fit float32 is refused as infinite below
        array = np.ascontiguousarray(array, dtype=np.float32)
    _check_finite(array, name)
    return array


def _check_finite(array: np.ndarray, name: str = "embeddings") -> None:
    broken = ~np.isfinite(array).all(axis=1)
    if broken.any():
        row = int(np.argmax(broken))
        value = array[row][~np.isfinite(array[row])][0]
        raise ValueError(
            f"{name} must hold finite float32 numbers, got {value} in row {row} "
            f"({int(broken.sum())} such rows); drop or repair them"
        )


def _folder(run_dir, stage: str, model_config, config: TrainConfig, digest: str):
    if run_dir is None:
        return None
    settings = to_dict(config)
    del settings["device"]
    if config.lr_decay == "constant" and not getattr(model_config, "wide_loss", 0):
        del settings["epochs"]  # a run may be made longer: nothing falls with its end in sight
    fingerprint = {"stage": stage, "data": digest, **to_dict(model_config), **settings}
    return RunFolder(Path(run_dir), fingerprint)


def _digest(*arrays: np.ndarray | None) -> str:
    """A hash of what a run is trained on, to refuse resuming it on something else."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(b"none" if array is None else np.ascontiguousarray(array).data)
    return digest.hexdigest()
