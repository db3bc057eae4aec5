"""Floor 5: from interactions (or somebody's factors) to a fitted recommender. Needs torch.

Station: the two stages of training and the naming of latents, in order.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cfsae_fast.config import CFAEConfig, SAEConfig, TrainConfig, to_dict
from cfsae_fast.data import HoldOut, Interactions, Tags, hold_out_random, split_users
from cfsae_fast.errors import DataError, require_extra
from cfsae_fast.ids import Ids
from cfsae_fast.inference import CFAENetwork
from cfsae_fast.ops import Rows
from cfsae_fast.recommender.fitted import Fitted
from cfsae_fast.recommender.labelling import label

FEWEST_USERS = 2
VALIDATION_FROM = 50  # users; below, a tenth of them says nothing about when to stop
CHUNK = 4096


def fit(
    interactions: Interactions,
    tags: Tags | None,
    cfae: CFAEConfig,
    sae: SAEConfig,
    cfae_training: TrainConfig | None,
    sae_training: TrainConfig | None,
    *,
    seed: int = 42,
    device: str = "cpu",
    titles: Any = None,
    validation: HoldOut | None = None,
    run_dir: str | os.PathLike | None = None,
    resume: bool = False,
    progress: bool = False,
) -> Fitted:
    """Train the CFAE, then the SAE on its embeddings, then name the latents.

    Raises:
        DataError: fewer than 2 users with items, or validation of another catalogue.
    """
    require_extra("torch", extra="train", purpose="fit()")
    from cfsae_fast import training

    _check_interactions(interactions, validation)
    train, held = _split(interactions, validation, seed)
    folder = None if run_dir is None else Path(run_dir)
    cfae_training = cfae_training or replace(TrainConfig.for_cfae(cfae.model), seed=seed)
    sae_training = sae_training or replace(TrainConfig.for_sae(), seed=seed)
    cfae_training, sae_training = _placed(cfae_training, device), _placed(sae_training, device)
    held_out = held and training.HeldOut(*held)
    shared = {"validation": held_out, "resume": resume, "progress": progress}
    epochs: dict[str, list[dict[str, Any]]] = {"cfae": [], "sae": []}
    module = training.fit_cfae(
        train.rows(),
        train.n_items,
        cfae,
        cfae_training,
        run_dir=folder and folder / "cfae",
        on_epoch=epochs["cfae"].append,
        **shared,
    )
    sae_module = training.fit_sae(
        module,
        train.rows(),
        sae,
        sae_training,
        run_dir=folder and folder / "sae",
        on_epoch=epochs["sae"].append,
        **shared,
    )
    network = module.network()
    fitted = Fitted(
        cfae=network,
        sae=sae_module.network(),
        user_ids=interactions.user_ids,
        item_ids=interactions.item_ids,
        histories=interactions.rows(),
        cold=_mean_embedding(network, train.rows()),
        titles=titles_array(titles, interactions.n_items),
        report={
            "cfae": {"config": to_dict(cfae), "training": to_dict(cfae_training)},
            "sae": {"config": to_dict(sae), "training": to_dict(sae_training)},
            "last_epoch": {stage: records[-1:] for stage, records in epochs.items()},
        },
    )
    return fitted if tags is None else label(fitted, tags)


def wrap(
    user_factors: np.ndarray,
    item_factors: np.ndarray,
    interactions: Interactions | None,
    tags: Tags | None,
    sae: SAEConfig,
    sae_training: TrainConfig | None,
    *,
    seed: int = 42,
    device: str = "cpu",
    titles: Any = None,
    regularization: float = 1.0,
    progress: bool = False,
) -> Fitted:
    """An SAE over somebody's user factors; scores stay user_factors @ item_factors.T.

    Raises:
        DataError: the factors do not fit each other or the interactions, or are not finite.
    """
    require_extra("torch", extra="train", purpose="wrap()")
    from cfsae_fast import training

    users = _factors(user_factors, "user_factors")
    items = _factors(item_factors, "item_factors")
    if users.shape[1] != items.shape[1]:
        raise DataError(
            f"item_factors must have the width {users.shape[1]} of user_factors, "
            f"got {items.shape[1]}"
        )
    if regularization <= 0:
        raise ValueError(f"regularization must be positive, got {regularization}")
    _check_wrapped(interactions, users, items)
    sae_training = sae_training or replace(TrainConfig.for_sae(), monitor="loss", seed=seed)
    sae_training = _placed(sae_training, device)
    module = training.fit_sae(users, None, sae, sae_training, progress=progress)
    stored = interactions.rows() if interactions is not None else _nothing(len(users))
    fitted = Fitted(
        cfae=CFAENetwork(kind="factors", item_weight=_fold_in(items, regularization), items=items),
        sae=module.network(),
        user_ids=interactions.user_ids if interactions else Ids.range(len(users), what="user"),
        item_ids=interactions.item_ids if interactions else Ids.range(len(items)),
        histories=stored,
        cold=users.mean(axis=0),
        titles=titles_array(titles, len(items)),
        user_factors=users,
        report={"sae": {"config": to_dict(sae), "training": to_dict(sae_training)}},
    )
    return fitted if tags is None else label(fitted, tags)


def titles_array(titles: Any, n_items: int) -> np.ndarray | None:
    """Titles (I,) as strings, or None.

    Raises:
        DataError: not one per item.
    """
    if titles is None:
        return None
    array = np.array([str(title) for title in titles], dtype=np.str_)
    if len(array) != n_items:
        raise DataError(f"titles must be one per item ({n_items}), got {len(array)}")
    return array


def _check_interactions(interactions: Interactions, validation: HoldOut | None) -> None:
    active = int((interactions.counts_per_user() > 0).sum())
    if active < FEWEST_USERS:
        raise DataError(
            f"interactions must hold at least {FEWEST_USERS} users with items, got {active}"
        )
    if validation is not None and validation.inputs.item_ids != interactions.item_ids:
        raise DataError("validation must have the items of interactions, in the same order")


def _placed(config: TrainConfig, device: str) -> TrainConfig:
    """`config` on the recommender's device, where it names none of its own."""
    from cfsae_fast.ops.device import place

    return config if config.device != "cpu" else replace(config, device=str(place(device)))


def _split(
    interactions: Interactions, validation: HoldOut | None, seed: int
) -> tuple[Interactions, tuple[Rows, Rows] | None]:
    """Training users, and inputs and targets of the validation users (None: too few users)."""
    if validation is None:
        if interactions.n_users < VALIDATION_FROM:
            return interactions, None
        parts = split_users(interactions.n_users, ratios=(0.9, 0.1, 0.0), seed=seed)
        validation = hold_out_random(interactions.select_users(parts.val), seed=seed)
        interactions = interactions.select_users(parts.train)
    keep = np.flatnonzero(validation.targets.counts_per_user() > 0)
    if not len(keep):
        return interactions, None
    return interactions, (validation.inputs.rows(keep), validation.targets.rows(keep))


def _mean_embedding(network: CFAENetwork, rows: Rows) -> np.ndarray:
    """(d,) mean over users that have items: the stand-in for somebody of whom nothing is known."""
    users = np.flatnonzero(np.diff(rows.offsets) > 0)
    total = np.zeros(network.d)
    for first in range(0, len(users), CHUNK):
        part = rows.take(users[first : first + CHUNK])
        total += network.encode(part).sum(axis=0, dtype=np.float64)
    return (total / max(len(users), 1)).astype(np.float32)


def _fold_in(items: np.ndarray, regularization: float) -> np.ndarray:
    """(I, d) so that history @ result solves ridge regression of a binary history on the factors.

    u = argmin sum_j (x_j - u . v_j)^2 + regularization |u|^2 = (V'V + regularization)^-1 V' x.
    """
    gram = items.T.astype(np.float64) @ items
    gram[np.diag_indices_from(gram)] += regularization
    return np.ascontiguousarray(np.linalg.solve(gram, items.T).T, dtype=np.float32)


def _factors(factors: Any, name: str) -> np.ndarray:
    array = np.array(factors, dtype=np.float32, order="C")
    if array.ndim != 2 or not array.size:
        raise DataError(f"{name} must be a matrix with rows, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise DataError(f"{name} must be finite, got NaN or infinity")
    return array


def _check_wrapped(interactions: Interactions | None, users: np.ndarray, items: np.ndarray) -> None:
    if interactions is None:
        return
    shape, want = (interactions.n_users, interactions.n_items), (len(users), len(items))
    if shape != want:
        raise DataError(
            f"interactions must have {want[0]} users and {want[1]} items as the factors do, "
            f"got {shape[0]} and {shape[1]}"
        )


def _nothing(n_users: int) -> Rows:
    return Rows(np.zeros(n_users + 1, dtype=np.int64), np.empty(0, dtype=np.int32))
