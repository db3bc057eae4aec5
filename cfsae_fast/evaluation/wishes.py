"""Floor 6: who wishes for what, and what would answer it: the published protocol and a fair one.

Station: before steer. In the fair one the wish comes from the history, and what is scored was
neither given as input nor, if one likes, told to the map.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from cfsae_fast.concepts import detection
from cfsae_fast.data import HoldOut, Tags
from cfsae_fast.errors import DataError
from cfsae_fast.evaluation.protocol import Protocol
from cfsae_fast.ops import Rows

FEWEST_ITEMS = 20  # of a concept that may be wished for
FEWEST_LIKED = 2  # items of the history that carry it
PAPER_ASSIGNMENTS = 100  # of a tag that counts in the published protocol (METHOD.md 5.3)


class Wishes(NamedTuple):
    """B test users and what each of them wishes for.

    inputs: what the model sees; personal: held-out items; segment: items of the wished concept
    that count as answers; barred: what no list may hold where `segment` is asked: the inputs, and
    items of the concept that the map was told of and that are no answers. tag (B,): the concept, a
    position in `names`. known (T, I) CSR: the assignments that a map, or any way to steer, may
    read. carried (T, I) bool: all assignments.
    """

    inputs: Rows
    personal: Rows
    segment: Rows
    barred: Rows
    tag: np.ndarray
    names: tuple[str, ...]
    known: csr_array
    carried: np.ndarray


def fair_wishes(
    cut: Protocol,
    *,
    unseen: bool = False,
    seed: int = 42,
    fewest_items: int = FEWEST_ITEMS,
    limit: int | None = None,
) -> Wishes:
    """Each test user wishes for a concept of their own history, drawn uniformly from the tags that
    at least 2 input items carry by what training users say.

    Concepts are on at least `fewest_items` items by what training users said.
    unseen False: the answers are all items of the concept but the inputs. True: the items of every
    tag are cut in two, `known` holds one half, and the answers are of the other half alone, in
    lists that leave the first out: does the knob reach items of which nobody told it?
    limit: the first so many users.

    Raises:
        DataError: the data set has no tags, or no user has a wish.
    """
    said = _tags(cut).for_users(cut.split.train).matrix(cut.train.n_items)
    names, carried, training = _tables(cut, np.diff(said.indptr) >= fewest_items)
    known, answers = training, carried.toarray() > 0
    if unseen:
        half = detection.halves(carried, seed=seed)[0] > 0
        known, answers = csr_array(training.multiply(half)), answers & ~half.toarray()
    liked = _liked(cut.test.inputs.rows(), known)
    random, tag = np.random.default_rng([seed, 0xFA1]), np.full(len(liked), -1)
    for user, row in enumerate(liked):
        wishable = np.flatnonzero(row >= FEWEST_LIKED)
        if len(wishable):
            tag[user] = wishable[random.integers(len(wishable))]
    return _wishes(cut.test, tag, names, known, carried, answers, True, limit)


def paper_wishes(
    cut: Protocol, *, fewest_assignments: int = PAPER_ASSIGNMENTS, limit: int | None = None
) -> Wishes:
    """The published protocol (METHOD.md 6.2), leaks and all: the wish is the tag that the user's
    held-out items carry most beyond the inputs, ties to the first; answers are all its items, those
    of the inputs too, which are never recommended; everybody's tags say who carries what, training
    users' what is known, as published on ML-25M.

    Tags are the published ones: those of at least `fewest_assignments`, by whomever and in or
    outside of the catalogue, on however few items (METHOD.md 5.3). A user whose held-out items
    carry no tag beyond the inputs is left out.

    Raises:
        DataError: the data set has no such tags, or no user has a wish.
    """
    counts = _tags(cut).counts()
    if not (counts >= fewest_assignments).any():
        raise DataError(
            f"tags must have at least {fewest_assignments} assignments to be wished for as "
            f"published, got at most {counts.max(initial=0)}"
        )
    names, carried, training = _tables(cut, counts >= fewest_assignments)
    more = _liked(cut.test.targets.rows(), carried) - _liked(cut.test.inputs.rows(), carried)
    tag = np.where(more.max(axis=1, initial=0) > 0, more.argmax(axis=1), -1)
    dense = carried.toarray().astype(bool)
    return _wishes(cut.test, tag, names, training, carried, dense, False, limit)


def known_tags(wishes: Wishes) -> Tags:
    """`known` as tags, to label a model with."""
    table = wishes.known.tocoo()
    return Tags(
        wishes.names,
        table.row.astype(np.int32),
        table.col.astype(np.int32),
        table.data.astype(np.float32),
    )


def _tags(cut: Protocol) -> Tags:
    if cut.dataset.tags is None or cut.tags is None:
        raise DataError("the data set must have tags to wish for, got none")
    return cut.dataset.tags


def _tables(cut: Protocol, common: np.ndarray) -> tuple[tuple[str, ...], csr_array, csr_array]:
    """Names, who carries what at all (0 / 1), and what training users said, for the tags where
    `common` (T,) bool holds."""
    tags, n_items = _tags(cut), cut.train.n_items
    kept = np.flatnonzero(common)
    whole = csr_array(tags.matrix(n_items))
    said = csr_array(cut.dataset.training_tags(cut.split.train).matrix(n_items))
    carried = csr_array(whole[kept] > 0).astype(np.float64)
    names = tuple(tags.names[at] for at in kept)
    return names, carried, csr_array(said[kept]).astype(np.float64)


def _liked(rows: Rows, table: csr_array) -> np.ndarray:
    """How many of each row's items carry each tag: (B, T)."""
    shape = (len(rows.offsets) - 1, table.shape[1])
    ones = np.ones(len(rows.items))
    histories = csr_array((ones, rows.items, rows.offsets), shape=shape)
    return (histories @ (table > 0).astype(np.float64).T).toarray()


def _wishes(
    holdout: HoldOut,
    tag: np.ndarray,
    names: tuple[str, ...],
    known: csr_array,
    carried: csr_array,
    answers: np.ndarray,
    mask: bool,
    limit: int | None,
) -> Wishes:
    inputs, targets = holdout.inputs.rows(), holdout.targets.counts_per_user()
    all_of = carried.toarray() > 0
    users, segments, barred = [], [], []
    for user in np.flatnonzero((tag >= 0) & (targets > 0)):
        given = inputs.items[inputs.offsets[user] : inputs.offsets[user + 1]]
        wanted = answers[tag[user]].copy()
        wanted[given] &= not mask
        if wanted.any():
            out = all_of[tag[user]] & ~answers[tag[user]]
            out[given] = True
            users.append(user)
            segments.append(np.flatnonzero(wanted))
            barred.append(np.flatnonzero(out))
    users = np.array(users[:limit], dtype=np.int64)
    if not len(users):
        raise DataError("test users must have concepts to wish for, got none who has")
    return Wishes(
        holdout.inputs.rows(users),
        holdout.targets.rows(users),
        _rows(segments[: len(users)]),
        _rows(barred[: len(users)]),
        tag[users],
        names,
        known,
        all_of,
    )


def _rows(lists: list[np.ndarray]) -> Rows:
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists])]).astype(np.int64)
    return Rows(offsets, np.concatenate(lists).astype(np.int32))
