"""How long does a new alpha take for a live profile, against asking anew?

The profile's answers are the requests', to the bit, before anything is timed.
"""

from __future__ import annotations

import itertools

import numpy as np

from benchmarks import record, timing
from benchmarks.answers import require
from benchmarks.problems import FULL, QUICK, Sizes, draw_histories, make_fitted
from benchmarks.requests import HISTORY, N, sizes_of, with_shapes
from cfsae_fast.recommender import SteerableRecommender

ALPHAS = np.linspace(0.05, 0.95, 19).round(2).tolist()


def measure(model: SteerableRecommender, sizes: Sizes, threads: int, mode: str, seconds: float):
    """Rows of one mode against this model's own full requests: for 64 users in turn, as
    serve_one_user asks, and for the same user again."""
    histories = [draw_histories(sizes.n_items, 1, HISTORY, at)[0] for at in range(64)]
    profile = model.live(history=histories[0], mode=mode)
    alphas, users = itertools.cycle(ALPHAS), itertools.cycle(histories)

    def turn(alpha: float):
        profile.turn({"one concept": alpha})
        return profile.top(N)

    def ask(history: list[int], alpha: float):
        return model.recommend(histories=[history], n=N, steer={"one concept": alpha}, mode=mode)

    with timing.threads(threads):
        for alpha in ALPHAS:
            got, want = turn(alpha), ask(histories[0], alpha)
            require(np.array_equal(got.ids, want.ids[0]), "a turned profile")
            require(np.array_equal(got.scores, want.scores[0]), "a turned profile")
        ways = {
            "turn": lambda: turn(next(alphas)),
            "serve_one_user": lambda: ask(next(users), next(alphas)),
            "same user": lambda: ask(histories[0], next(alphas)),
        }
        timed = timing.interleaved(ways, seconds=seconds, most=2000)
    case, own = f"B=1 {sizes} threads={threads} {mode} folded", timed.pop("turn")
    rows = [record.row(case, "p99_ms", own.p99)]
    for name, its in timed.items():
        peer = {"peer": name, "peer_value": its.p50, "higher_is_better": False}
        rows.append(record.row(case, "p50_ms", own.p50, answer_checked=True, **peer))
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = with_shapes(record.arguments("turn_knob", __doc__ or ""), FULL)
    chosen = parser.parse_args(arguments)
    sizes = sizes_of(chosen, FULL, QUICK)
    model = SteerableRecommender.from_fitted(make_fitted(sizes)).fold(limit_bytes=20 << 30)
    seconds = 2 if chosen.quick else 20
    rows = [
        one
        for threads in chosen.threads
        for mode in ("reconstruct", "residual")
        for one in measure(model, sizes, threads, mode, seconds)
    ]
    record.finish("turn_knob", rows, chosen.json)


if __name__ == "__main__":
    main()
