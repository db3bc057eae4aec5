"""Floor 6: can the names be trusted? Divergences, detection, intruders and interventions.

Station: item codes x tags, judged on items, and on users, that no map was made from. Each score
stands beside the same score of shuffled tags.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from cfsae_fast import concepts, metrics
from cfsae_fast.concepts import detection, scores
from cfsae_fast.concepts.divergences import divergences
from cfsae_fast.evaluation.experiments import planted
from cfsae_fast.evaluation.experiments.cards import cards
from cfsae_fast.evaluation.protocol import Protocol
from cfsae_fast.ops import Rows
from cfsae_fast.recommender import Fitted, pipeline, probing, trust
from cfsae_fast.recommender.inputs import Request
from cfsae_fast.recommender.labelling import item_codes
from cfsae_fast.steering import boost

COMMON = 50  # items of a concept that is judged
READ = 8  # times k: activations of an item that its reading looks at
TURN, LISTS, N = 0.3, 200, 20
FEWEST_STRANGE = 5  # items of a concept that only held-out users gave it
TRIALS = 20  # intruder games per latent


def judge(fitted: Fitted, cut: Protocol, cell: Any) -> dict[str, Any]:
    """Everything of this room for one model, over concepts on at least COMMON items."""
    if cut.tags is None:
        return {"skipped": "the data set has no tags"}
    codes, n_latents = item_codes(fitted), fitted.sae.n_latents
    told = csr_array(cut.tags.matrix(cut.train.n_items)).astype(np.float64)
    common = np.flatnonzero(np.diff(told.indptr) >= COMMON)
    table, names = csr_array(told[common]), tuple(cut.tags.names[at] for at in common)
    if not len(names):
        return {"skipped": f"no concept is on {COMMON} items"}
    joined = scores.join(codes, told, n_latents)
    real = detected(fitted, codes, table, names, cell.seed)
    return {
        "concepts": len(names),
        "latents_to_tags": _spread(divergences(scores.by_tag(joined).T.tocsr())),
        "tags_to_latents": _spread(divergences(scores.by_latent(joined))),
        "detection": real,
        "shuffled": _shuffled(fitted, codes, table, names, cut, cell.seed),
        "strangers": strangers(fitted, cut, table, names),
        "intruder": intruder(codes, cut.test.inputs.rows(), cut.train.n_items, cell.seed),
        "intervention": intervention(fitted, codes, table, names, cut, cell.seed),
        "cards": cards(fitted, cut),
        **({"planted": planted.judge(fitted, cut, cell.data)} if _made_up(cell) else {}),
    }


def _shuffled(
    fitted: Fitted, codes: Any, table: csr_array, names: tuple[str, ...], cut: Protocol, seed: int
) -> dict[str, Any]:
    """The scores of `judge` where tags (for intruder: codes) stand on other items than theirs."""
    mixed = detection.shuffled(table, seed=seed)
    order = np.random.default_rng([seed, 0x1E]).permutation(len(codes.indices))
    moved = type(codes)(codes.indices[order], codes.values[order])
    return {
        **detected(fitted, codes, mixed, names, seed),
        "strangers": strangers(fitted, cut, table, names, shuffle=seed),
        "intruder": intruder(moved, cut.test.inputs.rows(), cut.train.n_items, seed),
        "intervention": intervention(fitted, codes, mixed, names, cut, seed),
    }


def detected(
    fitted: Fitted, codes: Any, table: csr_array, names: tuple[str, ...], seed: int
) -> dict[str, float]:
    """Map on half of each tag's items, test on the other half (items taken at least 5 times).

    reading: AUC of `_reading`; knob: of what the boost pushes; stated: the
    confidence that a user would be shown; ece: between the last two. balanced_accuracy: of the
    reading, threshold from the known half, negatives the nearest items without the tag.
    """
    known, unseen = detection.halves(table, seed=seed)
    heard = np.bincount(fitted.histories.items, minlength=table.shape[1]) >= trust.FEWEST_TAKEN
    seen = trust.activations(fitted, READ * fitted.sae.k)
    reading = _reading(seen, known, heard)
    areas, balanced = np.full(len(names), np.nan), np.full(len(names), np.nan)
    near = _nearest(fitted)
    for at in range(len(names)):
        with_tag, told, asked = (_mask(one, at) for one in (table, known, unseen))
        areas[at] = detection.auc(reading[at], asked & heard, ~with_tag & heard)
        cut = detection.best_threshold(reading[at], told & heard, ~with_tag & heard)
        hard = near(np.flatnonzero(asked & heard), ~with_tag & heard)
        if len(hard):
            balanced[at] = detection.balanced_accuracy(reading[at], asked & heard, hard, cut)
    popularity = np.bincount(fitted.histories.items, minlength=table.shape[1])
    how = {"popularity": popularity}
    half_map = concepts.build(codes, known, names, fitted.sae.n_latents, **how)
    stated = trust.confidence(fitted, codes, known, names, seed=seed, **how)
    actual = trust.knob_auc(fitted, half_map, unseen, table)
    return {
        "reading_auc_median": float(np.nanmedian(areas)),
        "reading_auc_above_0.8": float(np.nanmean(areas >= 0.8)),
        "balanced_accuracy_hard": float(np.nanmean(balanced)),
        "knob_auc_median": float(np.nanmedian(actual)),
        "stated_median": float(np.nanmedian(stated)),
        "ece": detection.calibration_error(stated, actual),
    }


def strangers(
    fitted: Fitted, cut: Protocol, table: csr_array, names: tuple[str, ...],
    shuffle: int | None = None,
) -> dict[str, float]:  # fmt: skip
    """Does a reading of all that training users said find what held-out users alone said?

    table (T, I): what training users said of `names`. Asked are items that validation and test
    users gave the tag and no training user did, against items that nobody gave it; concepts with at
    least FEWEST_STRANGE of them. Tags that nobody in particular gave (genres) have none.
    """
    others = cut.dataset.training_tags(np.concatenate([cut.split.val, cut.split.test]))
    at = {name: position for position, name in enumerate(others.names)}
    said = csr_array(others.matrix(table.shape[1]))[[at[name] for name in names]]
    if shuffle is not None:
        table, said = (detection.shuffled(one, seed=shuffle) for one in (table, said))
    heard = np.bincount(fitted.histories.items, minlength=table.shape[1]) >= trust.FEWEST_TAKEN
    seen = trust.activations(fitted, READ * fitted.sae.k)
    reading, areas = _reading(seen, table, heard), []
    for row in range(len(names)):
        told, theirs = _mask(table, row), _mask(said, row)
        asked = theirs & ~told & heard
        if asked.sum() >= FEWEST_STRANGE:
            areas.append(detection.auc(reading[row], asked, ~theirs & ~told & heard))
    return {"concepts": len(areas), "auc_median": float(np.median(areas)) if areas else np.nan}


def intruder(codes: Any, rows: Rows, n_items: int, seed: int) -> dict[str, float]:
    """Four top items of a latent and one item of another: who is least often taken along?

    The judge is cosine of co-occurrence over test users' inputs, whom no training saw; chance is
    1 in 5. Items of fewer than 3 test users are not played with.
    """
    users = csr_array(
        (np.ones(len(rows.items)), rows.items, rows.offsets), shape=(len(rows.offsets) - 1, n_items)
    )
    taken = np.asarray(users.sum(axis=0)).ravel()
    random, known = np.random.default_rng([seed, 0x1D]), taken >= 3
    columns = (users / np.sqrt(np.maximum(taken, 1))).tocsc()
    won = []
    item, slot = np.nonzero((codes.indices >= 0) & known[:, None])
    latents, values = codes.indices[item, slot], codes.values[item, slot]
    others = np.flatnonzero(known)
    for latent in np.unique(latents):
        here = np.flatnonzero(latents == latent)
        if len(here) < 8:
            continue
        best = item[here[np.argsort(-values[here])][:8]]
        strange = np.setdiff1d(others, item[here])
        for _ in range(TRIALS if len(strange) else 0):
            five = np.append(random.choice(best, 4, replace=False), random.choice(strange))
            vectors = columns[:, five]
            alike = (vectors.T @ vectors).toarray()
            won.append(np.argmin(alike.sum(axis=1) - alike.diagonal()) == 4)
    return {"accuracy": float(np.mean(won)) if won else float("nan"), "games": len(won),
            "chance": 0.2}  # fmt: skip


def intervention(
    fitted: Fitted, codes: Any, table: csr_array, names: tuple[str, ...], cut: Protocol, seed: int
) -> dict[str, float]:
    """Share of a concept in test users' lists under boost(concept, TURN), against boost of a random
    alive latent; medians over concepts."""
    popularity = np.bincount(fitted.histories.items, minlength=table.shape[1])
    found = concepts.build(codes, table, names, fitted.sae.n_latents, popularity=popularity)
    model = fitted.with_concepts(found, {})
    count = min(LISTS, cut.test.inputs.n_users)
    rows = cut.test.inputs.rows(np.arange(count))
    code = fitted.sae.encode(fitted.cfae.encode(fitted.histories)).code.indices
    alive, random = np.unique(code[code >= 0]), np.random.default_rng([seed, 0x1F7])
    lists = {}

    def share(turn: Any, mask: np.ndarray) -> float:
        if turn not in lists:
            embedding = pipeline.embed(model, Request(rows, None, False))
            moved = pipeline.steer(model, embedding, [[turn] if turn else []] * count,
                                   mode="residual")  # fmt: skip
            lists[turn] = pipeline.top(model, moved, N, seen=rows).ids
        return float(np.nanmean(metrics.share_at(lists[turn], mask, N)))

    strangers = [boost(int(one), TURN) for one in random.choice(alive, 5)]
    ratios, gains = [], []
    for at, name in enumerate(names):
        if name in found:
            mask = _mask(table, at)
            turned, base = share(boost(name, TURN), mask), share(None, mask)
            by_chance = float(np.mean([share(one, mask) for one in strangers]))
            ratios.append(turned / max(by_chance, 1e-3))
            gains.append(turned - base)
    return {"share_over_random": float(np.median(ratios)), "share_gained": float(np.median(gains))}


def _reading(seen: csr_array, known: csr_array, heard: np.ndarray) -> np.ndarray:
    """(T, I): ridge regression of carrying a tag on all activations, over items often taken.

    seen (I, L) activations, known (T, I), heard (I,) bool.
    """
    weights = probing.directions(seen[heard].toarray(), known[:, heard])
    return (seen @ weights.T).T


def _made_up(cell: Any) -> bool:
    return cell.data.partition(":")[0] == "generated"


def _nearest(fitted: Fitted):
    vectors = fitted.cfae.encode_items()
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def near(items: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        """Positions of the nearest allowed item to each of `items`, each once."""
        candidates = np.flatnonzero(allowed)
        if not len(items) or not len(candidates):
            return np.empty(0, int)
        return np.unique(candidates[(unit[items] @ unit[candidates].T).argmax(axis=1)])

    return near


def _mask(table: csr_array, at: int) -> np.ndarray:
    mask = np.zeros(table.shape[1], dtype=bool)
    mask[table.indices[table.indptr[at] : table.indptr[at + 1]]] = True
    return mask


def _spread(found: Any) -> dict[str, float]:
    each = ("entropy", "entropy_decrease", "kl", "js", "paper_kl")
    means = {name: float(np.mean(getattr(found, name))) for name in each if len(found.rows)}
    if len(found.rows):
        means["paper_kl_above_10"] = float(np.mean(found.paper_kl > 10))
    return {**means, "rows": len(found.rows), "alive": found.alive, "reference": found.reference}
