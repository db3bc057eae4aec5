"""The oracle itself: cases worked by hand, literal in and literal out."""

import math

import pytest
import torch

from cfsae_fast import reference
from cfsae_fast.ops.containers import Code, KnobKind, Knobs, Rows, Stats

INF = math.inf


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def i32(values):
    return torch.tensor(values, dtype=torch.int32)


def i64(values):
    return torch.tensor(values, dtype=torch.int64)


def knobs_of(*turns, offsets=None):
    latents, weights, kinds = zip(*turns, strict=True) if turns else ((), (), ())
    return Knobs(
        i64(offsets or [0, len(turns)]),
        i32(list(latents)),
        f64(list(weights)),
        torch.tensor(kinds, dtype=torch.uint8),
    )


WEIGHT = f64([[1, 0], [0, 1], [2, 3]])


def test_encode_rows_sums_weighted_items_and_bias():
    rows = Rows(i64([0, 2, 2, 4]), i32([0, 2, 1, 1]), f64([1, 0.5, 2, 1]))
    got = reference.encode_rows(rows, WEIGHT, f64([10, 20]))
    assert got.tolist() == [[12, 21.5], [10, 20], [10, 23]]


def test_encode_rows_without_values_counts_each_item_once():
    rows = Rows(i64([1, 3]), i32([9, 0, 2]))  # offsets may start inside the arrays
    assert reference.encode_rows(rows, WEIGHT).tolist() == [[3, 3]]


def test_topk_encode_keeps_positive_sorted_ties_to_smaller_index():
    encoder = f64([[1, 0], [0, 1], [0, 1], [-1, 0]])
    code, stats = reference.topk_encode(
        f64([[3, 5], [-3, -1]]), encoder, f64([0, 0, 0, 1]), f64([1, 1]), 3, standardize=False
    )
    assert stats is None
    assert code.indices.tolist() == [[1, 2, 0], [3, -1, -1]]
    assert code.values.tolist() == [[4, 4, 2], [5, 0, 0]]


def test_topk_encode_standardizes_with_unbiased_deviation():
    code, stats = reference.topk_encode(f64([[1, 2, 3]]), torch.eye(3).double(), f64([0] * 3),
                                        f64([0] * 3), 2)  # fmt: skip
    assert stats.mean.tolist() == [2]
    assert stats.std.tolist() == [1 + 1e-7]
    assert code.indices.tolist() == [[2, -1]]
    assert code.values[0, 0].item() == pytest.approx(1 / (1 + 1e-7), rel=1e-12)


def test_topk_encode_of_one_dimension_has_unit_deviation():
    code, stats = reference.topk_encode(f64([[5]]), f64([[1]]), f64([2]), f64([0]), 1)
    assert (stats.mean.item(), stats.std.item()) == (5, 1)
    assert code.values.tolist() == [[2]]


def test_topk_encode_never_keeps_nan():
    code, _ = reference.topk_encode(f64([[1, 1]]), f64([[math.nan, 0], [1, 1]]), f64([0, 0]),
                                    f64([0, 0]), 2, standardize=False)  # fmt: skip
    assert code.indices.tolist() == [[1, -1]]
    assert code.values.tolist() == [[2, 0]]


def test_topk_encode_gradients_by_hand():
    # pre = (x - mean) / std @ e with d = 2: u = (-h, h) / std, h = (x1 - x0) / 2, std = sqrt(2) |h|
    x = f64([[1, 3]]).requires_grad_()
    code, stats = reference.topk_encode(x, f64([[0, 1]]), f64([0]), f64([0, 0]), 1)
    (code.values.sum() + stats.mean.sum() + 2 * stats.std.sum()).backward()
    # the value is constant in x up to 1e-7, mean gives 1/2 each, std = |x1 - x0| / sqrt(2)
    assert x.grad[0].tolist() == pytest.approx([0.5 - math.sqrt(2), 0.5 + math.sqrt(2)], abs=1e-6)


def test_sparse_decode_skips_padding_and_restores_stats():
    code = Code(i32([[2, 0], [1, -1], [-1, -1]]), f64([[2, 1], [3, 0], [0, 0]]))
    got = reference.sparse_decode(code, WEIGHT, f64([1, 1]))
    assert got.tolist() == [[6, 7], [1, 4], [1, 1]]
    stats = Stats(f64([1, 2, 3]), f64([10, 20, 30]))
    got = reference.sparse_decode(code, WEIGHT, f64([1, 1]), stats)
    assert got.tolist() == [[61, 71], [22, 82], [33, 33]]


CODE = Code(i32([[4, 1, -1]]), f64([[3, 1, 0]]))


@pytest.mark.parametrize(
    "turns, indices, values",
    [
        ([(1, 0.25, KnobKind.MIX)], [4, 1, -1, -1], [2.25, 1.75, 0, 0]),
        ([(7, 1.0, KnobKind.MIX)], [7, -1, -1, -1], [4, 0, 0, 0]),
        ([(4, 0.0, KnobKind.SCALE)], [1, -1, -1, -1], [1, 0, 0, 0]),
        ([(4, 2.0, KnobKind.SCALE), (4, -2.0, KnobKind.ADD)], [4, 1, -1, -1], [4, 1, 0, 0]),
        ([(0, -2.0, KnobKind.ADD), (4, -3.0, KnobKind.ADD)], [1, 0, -1, -1, -1], [1, -2, 0, 0, 0]),
        # the order is SCALE, MIX, ADD however they are listed: s = 1 after SCALE
        (
            [(0, 1.0, KnobKind.ADD), (2, 0.5, KnobKind.MIX), (4, 0.0, KnobKind.SCALE)],
            [0, 1, 2, -1, -1, -1],
            [1, 0.5, 0.5, 0, 0, 0],
        ),
        # repeats add up and merge into one latent: m = 1
        ([(2, 1.0, KnobKind.ADD), (2, 1.5, KnobKind.ADD)], [4, 2, 1, -1], [3, 2.5, 1, 0]),
        ([], [4, 1, -1], [3, 1, 0]),
    ],
)
def test_steer(turns, indices, values):
    got = reference.steer(CODE, knobs_of(*turns), n_latents=8)
    assert got.indices.tolist() == [indices]
    assert got.values.tolist() == [values]


def test_steer_mix_leaves_an_empty_code_alone_and_rows_have_their_own_knobs():
    code = Code(i32([[-1], [3]]), f64([[0], [2]]))
    mix = (0, 0.5, KnobKind.MIX)
    shared = reference.steer(code, knobs_of(mix), n_latents=4)
    assert shared.indices.tolist() == [[-1, -1], [0, 3]]
    assert shared.values.tolist() == [[0, 0], [1, 1]]
    own = reference.steer(code, knobs_of(mix, offsets=[0, 1, 1]), n_latents=4)
    assert own.indices.tolist() == [[-1, -1], [3, -1]]


def test_steer_decode_modes():
    code, dictionary = Code(i32([[0]]), f64([[2]])), f64([[1, 0], [0, 1]])
    knobs, stats = knobs_of((1, 0.5, KnobKind.MIX)), Stats(f64([10]), f64([2]))
    arguments = (f64([[5, 6]]), code, knobs, dictionary, f64([1, 1]), stats)
    assert reference.steer_decode(*arguments, mode="reconstruct").tolist() == [[14, 14]]
    assert reference.steer_decode(*arguments, mode="residual").tolist() == [[3, 8]]
    untouched = reference.steer_decode(
        f64([[5, 6]]), code, knobs_of(), dictionary, None, stats, mode="residual"
    )
    assert untouched.tolist() == [[5, 6]]


ITEMS = f64([[1, 0], [2, 0], [2, 0], [0, 1]])


def test_recommend_orders_breaks_ties_and_pads():
    got = reference.recommend(f64([[1, 0]]), ITEMS, 6)
    assert got.ids.tolist() == [[1, 2, 0, 3, -1, -1]]
    assert got.scores.tolist() == [[2, 2, 1, 0, -INF, -INF]]


def test_recommend_excludes_seen_disallowed_and_nan():
    seen = Rows(i64([0, 1, 5]), i32([1, 0, 1, 2, 3]))
    got = reference.recommend(f64([[1, 0], [1, 0]]), ITEMS, 2, seen=seen, bias=f64([0, 0, 0, 5]))
    assert got.ids.tolist() == [[3, 2], [-1, -1]]
    allowed = torch.tensor([True, False, True, True])
    got = reference.recommend(f64([[1, math.nan]]), ITEMS * 0 + 1, 1, allowed=allowed)
    assert got.ids.tolist() == [[-1]]
    got = reference.recommend(f64([[1, 0]]), ITEMS, 2, allowed=allowed)
    assert got.ids.tolist() == [[2, 0]]
