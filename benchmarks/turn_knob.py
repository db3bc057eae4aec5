"""How long does a new alpha take for a live profile, against asking anew?"""

from __future__ import annotations

import itertools

import numpy as np

from benchmarks import record, timing
from benchmarks.problems import FULL, QUICK, Sizes, draw_histories, make_fitted
from benchmarks.requests import HISTORY, N, sizes_of, with_shapes
from cfsae_fast.recommender import SteerableRecommender

ALPHAS = np.linspace(0.05, 0.95, 19).round(2).tolist()


def measure(model: SteerableRecommender, sizes: Sizes, threads: int, mode: str, seconds: float):
    """Rows of one mode; the peer is this model's own full request."""
    (history,) = draw_histories(sizes.n_items, 1, HISTORY)
    profile = model.live(history=history, mode=mode)
    alphas = {"turn": itertools.cycle(ALPHAS), "ask": itertools.cycle(ALPHAS)}

    def turn():
        profile.turn({"one concept": next(alphas["turn"])})
        return profile.top(N)

    def ask():
        return model.recommend(
            histories=[history], n=N, steer={"one concept": next(alphas["ask"])}, mode=mode
        )

    with timing.threads(threads):
        for _ in ALPHAS:
            got, want = turn(), ask()
            assert np.array_equal(got.ids, want.ids[0]), "a turn must answer as a new request"
            assert np.array_equal(got.scores, want.scores[0])
        timed = timing.interleaved({"turn": turn, "ask": ask}, seconds=seconds, most=2000)
    case = f"B=1 {sizes} threads={threads} {mode} folded"
    peer = {"peer": "serve_one_user", "higher_is_better": False, "answer_checked": True}
    return [
        record.row(case, "p50_ms", timed["turn"].p50, peer_value=timed["ask"].p50, **peer),
        record.row(case, "p99_ms", timed["turn"].p99, peer_value=timed["ask"].p99, **peer),
    ]


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
