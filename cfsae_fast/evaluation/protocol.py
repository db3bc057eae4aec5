"""Floor 6: the protocol of METHOD.md 1: filter, split users, hold out a fifth of each held-out row.

Station: before stage 1, so that nothing of a test user reaches training, mapping or calibration.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from cfsae_fast.config import COMPATS
from cfsae_fast.data import (
    Dataset,
    Filters,
    HoldOut,
    Interactions,
    MinUserInteractions,
    Tags,
    UserSplit,
    hold_out_random,
    split_users,
)
from cfsae_fast.errors import DataError
from cfsae_fast.recommender import Fitted

FEWEST_USERS = 10


class Protocol(NamedTuple):
    """A data set cut for an experiment.

    dataset: after filters; of its tags those that `prepare` keeps, given by everybody. split: user
    positions in it. train: training users' rows. validation, test: the held-out users' rows, cut.
    tags: given by training users only (None without tags).
    """

    dataset: Dataset
    split: UserSplit
    train: Interactions
    validation: HoldOut
    test: HoldOut
    tags: Tags | None


def prepare(
    dataset: Dataset,
    *,
    filters: Filters | None = None,
    ratios: tuple[float, float, float] = (0.8, 0.1, 0.1),
    share: float = 0.2,
    seed: int = 42,
    min_tag: int = 1,
    compat: str = "corrected",
) -> Protocol:
    """Cut a data set: filters (None: users with at least 5 interactions), users by `ratios`, and
    `share` of every held-out row. A function of the data and `seed` alone.

    min_tag: fewest assignments of a tag by training users, or that nobody made (genres), in and
    outside of the catalogue; with compat "paper" by anybody, test users too (METHOD.md 5.3).

    Raises:
        DataError: fewer than 10 users are left. ValueError: an unknown compat.
    """
    if compat not in COMPATS:
        raise ValueError(f"compat must be one of {COMPATS}, got {compat!r}")
    kept = dataset.filtered(filters or Filters(MinUserInteractions(5)))
    inter = kept.interactions
    if inter.n_users < FEWEST_USERS:
        raise DataError(
            f"dataset must have at least {FEWEST_USERS} users after its filters, "
            f"got {inter.n_users}; loosen the filters"
        )
    split = split_users(inter.n_users, ratios=ratios, seed=seed)
    if kept.tags is not None and min_tag > 1:
        counted = kept.tags if compat == "paper" else kept.training_tags(split.train)
        kept = replace(kept, tags=kept.tags.keep_tags(counted.counts() >= min_tag))
    tags = kept.training_tags(split.train)
    return Protocol(
        kept,
        split,
        inter.select_users(split.train),
        hold_out_random(inter.select_users(split.val), share=share, seed=seed),
        hold_out_random(inter.select_users(split.test), share=share, seed=seed),
        None if tags is None else tags.in_catalogue(),
    )


def with_everybody(fitted: Fitted, protocol: Protocol) -> Fitted:
    """The model with every user's history stored, so that held-out users can be asked for too."""
    everybody = protocol.dataset.interactions
    return replace(fitted, user_ids=everybody.user_ids, histories=everybody.rows())
