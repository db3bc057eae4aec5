"""How good are the recommendations, what does the SAE keep of them, and do the knobs obey?

Protocol: users with at least 5 interactions, split 80/10/10 by seed 42, a fifth of each held-out
row hidden, every event counts 1, seen items at -inf, nDCG@20 over test users. EASE and popularity
are fitted on the same training users and judged on the same hold-outs.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.baselines import ease, popularity
from benchmarks.record import arguments, finish, row
from cfsae_fast import evaluation, metrics
from cfsae_fast.cli.judge import judge_knobs
from cfsae_fast.config import CFAEConfig, SAEConfig, TrainConfig
from cfsae_fast.data import load
from cfsae_fast.recommender import SteerableRecommender

N = 20
COMMON = 50  # items of a concept that is judged
EASE_GRID = {"anime-5k": (50, 100, 200, 400), "hetrec2011-lastfm-2k": (25, 50, 100, 200)}
BEST_D = {"anime-5k": 1024, "hetrec2011-lastfm-2k": 1024}  # by validation nDCG
SAE_D = 256


def best_ease(cut: evaluation.Protocol, grid: tuple[int, ...]) -> tuple[int, float]:
    """Regularisation chosen on validation users, and nDCG@20 on test users."""
    train = cut.train.to_scipy()
    train.data[:] = 1
    scores = {}
    for strength in grid:
        fitted = ease.fit(train, strength)
        scores[strength] = [_ndcg(part, fitted) for part in (cut.validation, cut.test)]
    best = max(scores, key=lambda one: scores[one][0])
    return best, scores[best][1]


def _ndcg(holdout: Any, fitted: ease.Ease) -> float:
    inputs = holdout.inputs.to_scipy()
    inputs.data[:] = 1
    return metrics.estimate(
        metrics.ndcg_at(ease.recommend(fitted, inputs, N), holdout.targets.rows(), N)
    ).mean


def popular(cut: evaluation.Protocol) -> float:
    """nDCG@20 of the same popular items for everybody."""
    top = popularity.recommend(cut.train.counts_per_item(), cut.test.inputs.to_scipy(), N)
    return metrics.estimate(metrics.ndcg_at(top, cut.test.targets.rows(), N)).mean


def fit(
    cut: evaluation.Protocol, d: int, *, seed: int, sae: SAEConfig, sae_epochs: int | None = None
) -> SteerableRecommender:
    """Train on the cut's training users; sae_epochs None: the defaults."""
    training = None
    if sae_epochs is not None:
        training = TrainConfig(epochs=sae_epochs, seed=seed, steps_per_epoch=1, monitor="loss")
    model = SteerableRecommender(CFAEConfig(d=d), sae, sae_training=training, seed=seed)
    return model.fit(cut.train, cut.tags, titles=cut.dataset.titles, validation=cut.validation)


def judge(name: str, seed: int, *, quick: bool) -> list[dict[str, Any]]:
    """All rows of one data set."""
    cut = evaluation.prepare(load(name, tags="both"), seed=seed)
    strength, ease_ndcg = best_ease(cut, EASE_GRID[name][1:3] if quick else EASE_GRID[name])
    rows = [
        row(f"{name} popularity", f"ndcg@{N}", popular(cut)),
        row(f"{name} EASE lambda={strength}", f"ndcg@{N}", ease_ndcg),
    ]
    nothing = SAEConfig(k=1, n_latents=2)  # the CFAE alone is judged here
    alone = fit(cut, BEST_D[name], seed=seed, sae=nothing, sae_epochs=1)
    quality = evaluation.judge_ranking(alone.fitted, cut.test, n=N)
    case = f"{name} ELSA d={BEST_D[name]} seed={seed}"
    rows.append(_against(case, quality.ndcg.mean, ease_ndcg))
    started = time.perf_counter()
    model = fit(cut, SAE_D, seed=seed, sae=SAEConfig(k=32, n_latents=8 * SAE_D))
    seconds = time.perf_counter() - started
    found = evaluation.evaluate(model.fitted, cut.test, n=N)
    case = f"{name} ELSA TopK d={SAE_D} L={8 * SAE_D} k=32 seed={seed}"
    rows += [
        _against(f"{name} ELSA d={SAE_D} seed={seed}", found["base"]["ndcg"]["mean"], ease_ndcg),
        row(f"{case} reconstruct", f"ndcg@{N}", found["reconstruct"]["ndcg"]["mean"]),
        row(f"{case} reconstruct", "ndcg_kept", found["ndcg_kept"]),
        row(f"{case} residual", "ndcg_kept", _kept_without_knobs(model, cut), answer_checked=True),
        row(case, "dead_share", found["sae"]["dead_share_train"]),
        row(case, "cosine", found["sae"]["cosine"]["mean"]),
        row(case, "fit_seconds", seconds),
    ]
    return rows + knob_rows(case, judge_knobs(model.fitted, cut, min_items=COMMON, n=N))


def knob_rows(case: str, knobs: list[evaluation.Obedience]) -> list[dict[str, Any]]:
    """How many concepts rise with alpha, and what suppress leaves."""
    if not knobs:
        return []
    left = np.array([one.suppressed_ratio for one in knobs])
    return [
        row(f"{case} residual", "concepts_judged", len(knobs)),
        row(
            f"{case} residual",
            "boost_monotone_share",
            float(np.mean([one.rank_correlation > 0.9 for one in knobs])),
        ),
        row(f"{case} residual", "suppressed_share_mean", float(np.nanmean(left))),
        row(f"{case} residual", "suppressed_below_quarter", float(np.mean(left < 0.25))),
    ]


def _against(case: str, value: float, ease_ndcg: float) -> dict[str, Any]:
    return row(case, f"ndcg@{N}", value, peer="EASE", peer_value=ease_ndcg)


def _kept_without_knobs(model: SteerableRecommender, cut: evaluation.Protocol) -> float:
    """nDCG of steering with no knob turned over that of the CFAE's own dense scores."""
    fitted, keep = model.fitted, np.flatnonzero(cut.test.targets.counts_per_user())
    inputs, targets = cut.test.inputs.rows(keep), cut.test.targets.rows(keep)
    scores = fitted.cfae.decode(fitted.cfae.encode(inputs))
    counts = np.diff(inputs.offsets)
    scores[np.repeat(np.arange(len(keep)), counts), inputs.items] = -np.inf
    dense = np.argsort(-scores, axis=1, kind="stable")[:, :N].astype(np.int32)
    own = metrics.estimate(metrics.ndcg_at(dense, targets, N)).mean
    return evaluation.judge_ranking(fitted, cut.test, n=N).ndcg.mean / own


def main() -> None:
    parser = arguments("quality", __doc__)
    parser.add_argument("--data", nargs="*", default=list(BEST_D), help="data sets")
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    names = options.data[-1:] if options.quick else options.data
    rows = [one for name in names for one in judge(name, options.seed, quick=options.quick)]
    finish("quality", rows, options.json)


if __name__ == "__main__":
    main()
