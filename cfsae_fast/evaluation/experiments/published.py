"""Floor 6: grids by name: as published, on the data sets at hand, and on a planted catalogue.

Station: before everything. METHOD.md 1 to 3.4 hold the published numbers; what a grid does not say
is the library's default.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from cfsae_fast.config import SAEConfig, TrainConfig, from_dict
from cfsae_fast.evaluation.experiments.grid import Grid

_ADAM = {"batch_size": 1024, "weight_decay": 0.0, "monitor": "loss", "lr_decay": "constant"}
_ELSA = {**_ADAM, "epochs": 25, "patience": 10, "lr": 3e-4}
_VAE = {**_ADAM, "epochs": 25, "patience": 0, "lr": 1e-3}  # the last epoch is kept
_SAE = {**_ADAM, "epochs": 250, "patience": 50, "lr": 3e-4, "steps_per_epoch": None}
_LABELLED = {**_SAE, "epochs": 1000, "patience": 250, "lr": 1e-4}
_WIDTHS = {"elsa": (512, 1024, 2048), "multvae": (256, 512, 1024)}
_SECTIONS = {"sae_config": SAEConfig, "sae_training": TrainConfig, "cfae_training": TrainConfig}
_DATA: dict[str, dict[str, Any]] = {
    "ml-25m": {"filters": {"min_value": 4.0, "min_user": 5}},
    "msd": {"filters": {"min_item": 200, "min_user": 20}},
}


def _published(data: str, model: str) -> dict[str, Grid]:
    """The grids of one data set and base model: TopK, basic (L1), and the models that were labelled
    and steered. One seed, as published; --set seed=[42,43,44,45,46] gives intervals over seeds."""
    shared: dict[str, Any] = {
        "data": (data,), "model": (model,), "compat": ("paper",), "min_tag": 100,
        "histories": "full", "published_cfae": True,
        "cfae_training": _ELSA if model == "elsa" else _VAE, **_DATA[data],
    }  # fmt: skip
    grid: dict[str, Any] = {**shared, "d": _WIDTHS[model], "wide": (2, 4, 8), "sae_training": _SAE}
    return {
        f"{data}-{model}": Grid(k=(8, 16, 32, 64), loss=("l2", "cosine"), l1=(3e-4,), **grid),
        f"{data}-{model}-basic": Grid(kind="basic", l1=(0.01, 0.003, 0.001, 0.0003), **grid),
        f"{data}-{model}-labelled": Grid(
            d=(1024,), k=(16,), loss=("l2", "cosine"), l1=(3e-4,), sae_training=_LABELLED, **shared
        ),
    }


NAMED: dict[str, Grid] = {
    **{
        name: grid
        for data in _DATA
        for model in _WIDTHS
        for name, grid in _published(data, model).items()
    },
    "shared": Grid(
        data=("anime-5k", "hetrec2011-lastfm-2k"), model=("elsa", "multvae"), k=(16, 32),
        compat=("corrected", "paper"), seed=(42, 43, 44, 45, 46),
    ),
    # Histories of about 40 and 170 items: the shorter a history, the less it says of its taste.
    "planted": Grid(
        data=tuple(
            f"generated:users=3000,items=1200,concepts=20,seed=1,mean_history={mean}"
            for mean in (50, 400)
        ),
        d=(64,), wide=(1,), k=(4,), seed=(42, 43, 44, 45, 46), sae_training={"epochs": 6},
    ),
    "quick": Grid(
        data=("generated:users=600,items=500,concepts=8,seed=1",), d=(32,), k=(8,),
        compat=("corrected", "paper"),
        sae_training={"epochs": 2, "steps_per_epoch": 100}, cfae_training={"epochs": 8},
    ),
}  # fmt: skip


def grid_from(values: dict[str, Any]) -> Grid:
    """A grid from a mapping such as YAML gives; single values stand for lists of one.

    Raises:
        ValueError: not a mapping, an unknown key (of training or sae_config too), no data, an empty
            list, or a value out of range.
    """
    if not isinstance(values, dict):
        raise ValueError(f"grid must be a mapping of keys to values, got {values!r}")
    known = {one.name for one in fields(Grid)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"grid must have keys among {sorted(known)}, got unknown {unknown}")
    lists = Grid.LISTS
    fixed = {
        key: tuple(value) if isinstance(value, list) else (value,) if key in lists else value
        for key, value in values.items()
    }
    empty = [key for key in lists if key == "data" or key in fixed if not fixed.get(key)]
    if empty:
        raise ValueError(f"grid must have at least one value of {', '.join(empty)}, got none")
    grid = Grid(**fixed)
    for key, kind in _SECTIONS.items():
        from_dict(kind, getattr(grid, key), where=key)
    return grid
