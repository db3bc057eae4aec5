"""Metrics: hand-computed cases, sklearn as a second opinion, properties, and bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfsae_fast import metrics
from cfsae_fast.ops import Code, Rows


def rows(*histories):
    """Rows of the listed histories."""
    offsets = np.cumsum([0, *map(len, histories)])
    return Rows(offsets.astype(np.int64), np.array(sum(histories, []), dtype=np.int32), None)


IDS = np.array([[4, 0, 2], [1, 3, 5], [2, 1, -1], [0, 1, 2]], dtype=np.int32)
TARGETS = rows([2, 4, 9, 8, 2], [0], [1, 1], [])  # a repeated target counts once


def test_recall_by_hand():
    got = metrics.recall_at(IDS, TARGETS, 3)
    np.testing.assert_array_equal(got, [2 / 3, 0.0, 1.0, np.nan])


def test_recall_looks_at_the_top_n_only():
    np.testing.assert_array_equal(metrics.recall_at(IDS, TARGETS, 1), [1.0, 0.0, 0.0, np.nan])


def test_ndcg_by_hand():
    first, second, third = 1.0, 1 / np.log2(3), 0.5
    got = metrics.ndcg_at(IDS, TARGETS, 3)
    want = [(first + third) / (first + second + third), 0.0, second / first, np.nan]
    np.testing.assert_allclose(got, want, rtol=1e-15)


def test_targets_may_come_in_any_order_and_repeat():
    ids = np.array([[4, 0, 7], [1, 2, 3]])
    told = rows([9, 4, 0, 4], [3, 1])
    assert metrics.recall_at(ids, told, 2).tolist() == [1.0, 0.5]
    assert metrics.recall_at(ids, told, 3).tolist() == [pytest.approx(2 / 3), 1.0]


def test_users_without_targets_are_left_out_of_the_estimate():
    got = metrics.estimate(metrics.recall_at(IDS, TARGETS, 3))
    values = np.array([2 / 3, 0.0, 1.0])
    assert got.n == 3
    np.testing.assert_allclose(got.mean, values.mean())
    np.testing.assert_allclose(got.se, values.std(ddof=1) / np.sqrt(3))


def test_estimate_of_one_and_of_none():
    assert metrics.estimate(np.array([0.25, np.nan]))[::2] == (0.25, 1)
    assert np.isnan(metrics.estimate(np.array([0.25])).se)
    nobody = metrics.estimate(np.array([np.nan]))
    assert np.isnan(nobody.mean) and np.isnan(nobody.se) and nobody.n == 0


def test_coverage_by_hand():
    assert metrics.coverage_at(IDS, 10, 1) == 4 / 10  # 4, 1, 2, 0
    assert metrics.coverage_at(IDS, 10, 3) == 6 / 10
    assert metrics.coverage_at(np.full((2, 3), -1), 10, 3) == 0.0


def test_share_by_hand():
    mask = np.isin(np.arange(6), [1, 2])
    ids = np.vstack([IDS, [[-1, -1, -1]]])
    np.testing.assert_array_equal(metrics.share_at(ids, mask, 3), [1 / 3, 1 / 3, 1, 2 / 3, np.nan])


def test_no_users_give_empty_vectors():
    none, ids = rows(), np.empty((0, 5), dtype=np.int32)
    assert metrics.recall_at(ids, none, 5).shape == metrics.ndcg_at(ids, none, 5).shape == (0,)
    assert metrics.coverage_at(ids, 3, 5) == 0.0


@pytest.mark.parametrize("n", [1, 5, 20])
def test_ndcg_agrees_with_sklearn(n):
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    users, items = 40, 50
    relevant = rng.random((users, items)) < 0.2
    relevant[:, 0] = True
    scores = rng.permuted(np.tile(np.arange(items), (users, 1)), axis=1)
    ids = np.argsort(-scores, axis=1)[:, :20]
    targets = rows(*[np.flatnonzero(row).tolist() for row in relevant])
    want = [sklearn.ndcg_score([r], [s], k=n) for r, s in zip(relevant, scores, strict=True)]
    np.testing.assert_allclose(metrics.ndcg_at(ids, targets, n), want, rtol=1e-12)


@st.composite
def lists_and_targets(draw):
    users, items = draw(st.integers(1, 5)), draw(st.integers(3, 12))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    width = draw(st.integers(1, items))
    ids = np.stack([rng.permutation(items)[:width] for _ in range(users)])
    targets = [np.flatnonzero(rng.random(items) < 0.4).tolist() for _ in range(users)]
    return ids, targets, draw(st.integers(1, width))


@given(lists_and_targets())
@settings(max_examples=60, deadline=None)
def test_ranking_metrics_equal_their_literal_definition(case):
    ids, targets, n = case
    recall, ndcg = (f(ids, rows(*targets), n) for f in (metrics.recall_at, metrics.ndcg_at))
    for user, wanted in enumerate(targets):
        top = ids[user, :n].tolist()
        if not wanted:
            assert np.isnan(recall[user]) and np.isnan(ndcg[user])
            continue
        gains = [1 / np.log2(rank + 2) for rank, item in enumerate(top) if item in wanted]
        ideal = sum(1 / np.log2(rank + 2) for rank in range(min(n, len(wanted))))
        assert recall[user] == len(gains) / min(n, len(wanted))
        assert ndcg[user] == pytest.approx(sum(gains) / ideal, abs=1e-12)


@given(lists_and_targets())
@settings(max_examples=40, deadline=None)
def test_a_perfect_list_scores_one_and_more_hits_never_hurt(case):
    ids, targets, n = case
    perfect = [sorted(range(ids.max() + 1), key=lambda i, t=t: i not in t)[:n] for t in targets]
    perfect = np.array([row + [-1] * (n - len(row)) for row in perfect])
    kept = [[item for item in t if item <= ids.max()] for t in targets]
    best, got = (metrics.ndcg_at(x, rows(*kept), n) for x in (perfect, ids))
    np.testing.assert_allclose(best[~np.isnan(best)], 1.0)
    assert (got[~np.isnan(got)] <= 1 + 1e-12).all()


BAD = {
    "n above N": (lambda: metrics.ndcg_at(IDS, TARGETS, 4), r"n must be in \[1, N=3\], got 4"),
    "n zero": (lambda: metrics.recall_at(IDS, TARGETS, 0), r"n must be in \[1, N=3\], got 0"),
    "rows": (lambda: metrics.recall_at(IDS[:2], TARGETS, 1), "targets must have 2 rows .* got 4"),
    "flat ids": (lambda: metrics.recall_at(IDS[0], TARGETS, 1), r"ids must have shape \(B, N\)"),
    "repeat": (lambda: metrics.recall_at(IDS * 0, TARGETS, 3), "ids must not repeat"),
    "id": (lambda: metrics.coverage_at(IDS, 5, 3), "ids must be below n_items=5, got 5"),
    "mask": (lambda: metrics.share_at(IDS, np.ones((6, 2)), 3), r"item_mask must have shape"),
    "short mask": (lambda: metrics.share_at(IDS, np.ones(5), 3), "ids must be below n_items=5"),
    "no items": (lambda: metrics.coverage_at(IDS, 0, 3), "n_items must be at least 1"),
    "target": (lambda: metrics.recall_at(IDS[:1], rows([-1]), 1), "targets must name item"),
}


@pytest.mark.parametrize("call, message", BAD.values(), ids=BAD.keys())
def test_bad_ranking_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_ids_must_be_integers():
    with pytest.raises(TypeError, match="ids must be item positions"):
        metrics.recall_at(IDS.astype(float), TARGETS, 1)


def test_inputs_are_not_changed():
    ids, items = IDS.copy(), TARGETS.items.copy()
    metrics.ndcg_at(IDS, TARGETS, 3)
    np.testing.assert_array_equal(IDS, ids)
    np.testing.assert_array_equal(TARGETS.items, items)


# --- sparse codes ---

U = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [2.0, 2.0]])
V = np.array([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0], [1.0, 1.0]])
CODE = Code(
    np.array([[2, 0, -1], [2, -1, -1], [-1, -1, -1], [3, 2, 1]], dtype=np.int32),
    np.array([[5, 1, 0], [2, 0, 0], [0, 0, 0], [3, 2, 0]], dtype=np.float32),
)


def test_cosine_by_hand():
    np.testing.assert_allclose(metrics.cosine(U, V), [1, 0, np.nan, 1])


def test_explained_variance_by_hand():
    # means (1.5, 1.5): spread 2.25+6.25 + .25+2.25 + 2.25+2.25 + .25+.25 = 16; error 0+5+1+2 = 8
    assert metrics.explained_variance(U, V) == pytest.approx(0.5)
    assert metrics.explained_variance(U, U) == 1.0
    assert metrics.explained_variance(U, np.tile(U.mean(axis=0), (4, 1))) == pytest.approx(0.0)
    assert np.isnan(metrics.explained_variance(np.ones((3, 2)), np.ones((3, 2))))


def test_l0_fired_and_dead_share_by_hand():
    np.testing.assert_array_equal(metrics.l0(CODE), [2, 1, 0, 2])  # latent 1 stands there with 0
    fired = metrics.fired(CODE, 6)
    np.testing.assert_array_equal(fired, [1, 0, 3, 1, 0, 0])
    assert metrics.dead_share(fired) == 0.5


def test_dead_latents_are_counted_over_all_latents():
    """The original looked at the first d latents only (METHOD.md 4)."""
    assert metrics.dead_share(metrics.fired(CODE, 400)) == 397 / 400


@given(cut=st.integers(0, 4), shift=st.sampled_from([0.0, 1e6]))
@settings(deadline=None, max_examples=20)
def test_meter_does_not_depend_on_batches(cut, shift):
    meter, u, v = metrics.CodeMeter(6), U + shift, V + shift
    for part in (slice(0, cut), slice(cut, None)):
        meter.update(u[part], v[part], Code(CODE.indices[part], CODE.values[part]))
    got = meter.result()
    want_l0 = metrics.estimate(metrics.l0(CODE))
    assert got.explained_variance == pytest.approx(0.5, abs=1e-9)
    assert got.dead_share == 0.5
    np.testing.assert_allclose(got.l0, want_l0)
    np.testing.assert_allclose(got.cosine, metrics.estimate(metrics.cosine(u, v)), atol=1e-12)


def test_meter_before_any_batch():
    got = metrics.CodeMeter(4).result()
    assert np.isnan(got.explained_variance) and got.dead_share == 1.0 and got.l0.n == 0


BAD_CODES = {
    "shapes": (lambda: metrics.cosine(U, V[:, :1]), r"reconstruction must have shape \(B, d\)"),
    "latent": (lambda: metrics.fired(CODE, 3), "code must name latents below n_latents=3, got 3"),
    "counts": (lambda: metrics.dead_share(np.empty(0)), "fired_counts must have shape"),
    "no latents": (lambda: metrics.CodeMeter(0), "n_latents must be at least 1"),
    "rows": (lambda: metrics.CodeMeter(6).update(U[:2], V[:2], CODE), "code must have 2 rows"),
}


@pytest.mark.parametrize("call, message", BAD_CODES.values(), ids=BAD_CODES.keys())
def test_bad_code_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_meter_refuses_another_width():
    meter = metrics.CodeMeter(6)
    meter.update(U, V, CODE)
    with pytest.raises(ValueError, match="embedding must have d=2, got 3"):
        meter.update(np.ones((4, 3)), np.ones((4, 3)), CODE)
