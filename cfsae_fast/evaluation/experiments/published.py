"""Floor 6: grids by name: as published, on the data sets at hand, and on a planted catalogue.

Station: before everything. METHOD.md 1 and 3.4 hold the published numbers; what a grid does not say
is the library's default.
"""

from __future__ import annotations

from typing import Any

from cfsae_fast.evaluation.experiments.grid import Grid

_SPARSITY = (8, 16, 32, 64)
_PUBLISHED: dict[str, Any] = {
    "wide": (2, 4, 8),
    "k": _SPARSITY,
    "loss": ("l2", "cosine"),
    "compat": ("paper",),
    "l1": 3e-4,
    "sae_training": {
        "epochs": 250, "patience": 50, "batch_size": 1024, "lr": 3e-4, "steps_per_epoch": None,
        "lr_decay": "constant", "monitor": "loss",
    },
    "cfae_training": {"epochs": 25, "patience": 10, "batch_size": 1024},
    "histories": "full",
}  # fmt: skip
_ML, _MSD = {"min_value": 4.0, "min_user": 5}, {"min_item": 200, "min_user": 20}

NAMED: dict[str, Grid] = {
    "ml-25m": Grid(
        data=("ml-25m",), model=("elsa", "multvae"), d=(512, 1024, 2048), filters=_ML, min_tag=100,
        **_PUBLISHED,
    ),
    "msd": Grid(
        data=("msd",), model=("elsa", "multvae"), d=(512, 1024, 2048), filters=_MSD, min_tag=100,
        **_PUBLISHED,
    ),
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
        ValueError: an unknown key, or a value out of range.
    """
    known = Grid.__dataclass_fields__
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"grid must have keys among {sorted(known)}, got unknown {unknown}")
    lists = Grid.LISTS
    fixed = {
        key: tuple(value) if isinstance(value, list) else (value,) if key in lists else value
        for key, value in values.items()
    }
    return Grid(**fixed)
