"""Batches are functions of (seed, step), cover all rows, and stay sparse."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfsae_fast.ops import Rows
from cfsae_fast.training.randomness import Purpose, numpy_generator, torch_generator
from cfsae_fast.training.samplers import (
    ArraySampler,
    EmbeddingSampler,
    RowSampler,
    part_of_rows,
    union_of_rows,
)


def rows_of(histories: list[list[int]], *, values: bool = False) -> Rows:
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in histories])]).astype(np.int64)
    items = np.array([item for one in histories for item in one], dtype=np.int32)
    return Rows(offsets, items, items.astype(np.float32) + 0.5 if values else None)


def histories_of(rows: Rows) -> list[list[int]]:
    return [rows.items[a:b].tolist() for a, b in zip(rows.offsets, rows.offsets[1:], strict=False)]


HISTORIES = st.lists(st.lists(st.integers(0, 30), max_size=6), min_size=1, max_size=12)


@given(HISTORIES, st.data(), st.booleans())
@settings(deadline=None, max_examples=50)
def test_take_rows_takes_rows(histories, data, values):
    picked = data.draw(st.lists(st.integers(0, len(histories) - 1), max_size=8))
    taken = rows_of(histories, values=values).take(np.array(picked, dtype=np.int64))
    assert histories_of(taken) == [histories[at] for at in picked]
    if values:
        np.testing.assert_array_equal(taken.values, taken.items + 0.5)


@given(HISTORIES.map(lambda all: [one for one in all if one]), st.integers(0, 99), st.booleans())
@settings(deadline=None, max_examples=50)
def test_parts_of_rows_are_parts_and_never_empty(histories, seed, values):
    rows = rows_of(histories, values=values)
    part = part_of_rows(rows, 0.01, np.random.default_rng(seed))
    assert len(part.offsets) == len(rows.offsets)
    for got, whole in zip(histories_of(part), histories, strict=True):
        left = list(whole)
        for item in got:
            left.remove(item)
        assert got
    if values:
        np.testing.assert_array_equal(part.values, part.items + 0.5)


@given(HISTORIES, st.data())
def test_unions_hold_each_item_of_both_once(histories, data):
    others = [data.draw(st.lists(st.integers(0, 30), max_size=6)) for _ in histories]
    found = histories_of(union_of_rows(rows_of(histories), rows_of(others)))
    assert found == [sorted({*a, *b}) for a, b in zip(histories, others, strict=True)]


def test_mixed_batches_are_unions_parts_and_single_items():
    """Users 0..9 hold items of their own ten, so a row's tens digits say whose items it holds."""
    histories = [[10 * user + at for at in range(10)] for user in range(10)]
    seen = []

    def encode(rows):
        seen.append([{int(item) // 10 for item in one} for one in histories_of(rows)])
        sizes.extend(np.diff(rows.offsets).tolist())
        return torch.zeros(len(rows.offsets) - 1, 1)

    sizes: list[int] = []
    options = {"seed": 3, "min_share": 0.5, "mixed": True}
    sampler = EmbeddingSampler(encode, rows_of(histories * 10), 100, **options)
    for step in range(20):
        assert len(sampler.batch(step)) == 100
    owners = [len(one) for batch in seen for one in batch[:80]]
    assert 0.85 < np.mean(np.array(owners) == 2) < 0.95  # a tenth meets itself
    assert all(len(one) == 1 for batch in seen for one in batch[80:])
    last = np.array(sizes).reshape(20, 100)
    assert (last[:, 95:] == 1).all() and last[:, 80:95].mean() > 5
    before = [*map(list, seen)]
    seen.clear()
    for step in range(20):
        sampler.batch(step)
    assert seen == before


def test_parts_keep_the_share_they_should():
    rows = rows_of([list(range(40))] * 4000)
    sizes = np.diff(part_of_rows(rows, 0.5, np.random.default_rng(0)).offsets)
    assert sizes.mean() == pytest.approx(30, abs=0.4)  # a share uniform in [0.5, 1]
    assert sizes.min() < 20 and sizes.max() == 40
    whole = part_of_rows(rows, 1.0, np.random.default_rng(0))
    assert histories_of(whole) == histories_of(rows)


def test_a_pass_visits_every_used_row_once_in_an_order_of_its_own():
    histories = [[at] if at % 3 else [] for at in range(20)]
    sampler = RowSampler(rows_of(histories), 4, seed=1)
    used = [at for at in range(20) if at % 3]
    assert sampler.steps_per_pass == 4  # 13 rows by 4
    passes = [
        np.concatenate([sampler.batch(step).items.numpy() for step in range(4 * at, 4 * at + 4)])
        for at in range(2)
    ]
    assert sorted(passes[0]) == sorted(passes[1]) == used
    assert passes[0].tolist() != passes[1].tolist()


def test_batches_do_not_depend_on_earlier_ones():
    rows = rows_of([[at, at + 1, at + 2] for at in range(20)])

    def encode(batch):
        return batch.offsets.diff()[:, None].float() + batch.items.sum()

    makers = [
        lambda seed: RowSampler(rows, 3, seed=seed),
        lambda seed: EmbeddingSampler(encode, rows, 3, seed=seed),
        lambda seed: ArraySampler(np.arange(40, dtype=np.float32).reshape(20, 2), 3, seed=seed),
    ]
    for make in makers:
        sampler = make(5)
        in_order = [sampler.batch(step) for step in range(10)]
        for step in (9, 0, 4):
            for other in (make(5), sampler):
                alone, before = other.batch(step), in_order[step]
                if isinstance(alone, Rows):
                    alone, before = alone.items, before.items
                assert torch.equal(alone, before)
        last, different = sampler.batch(9), make(6).batch(9)
        if isinstance(last, Rows):
            last, different = last.items, different.items
        assert not torch.equal(last, different)


def test_embeddings_are_of_parts_of_the_same_rows_and_carry_no_gradient():
    weight = torch.eye(30).requires_grad_()
    rows = rows_of([[3 * at, 3 * at + 1, 3 * at + 2] for at in range(10)])

    def encode(batch):
        out = torch.zeros(len(batch.offsets) - 1, 30)
        row = torch.repeat_interleave(torch.arange(len(out)), batch.offsets.diff())
        return out.index_add(0, row, weight[batch.items.long()])

    parts = EmbeddingSampler(encode, rows, 10, seed=0, min_share=0.1).batch(0)
    whole = EmbeddingSampler(encode, rows, 10, seed=0, min_share=1.0).batch(0)
    assert not parts.requires_grad
    assert (parts <= whole).all() and parts.sum() < whole.sum()
    assert whole.sum() == 30


def test_small_data_and_no_data():
    rows = rows_of([[1], [2]])
    assert RowSampler(rows, 1000, seed=0).steps_per_pass == 1
    with pytest.raises(ValueError, match="rows must hold at least one interaction"):
        RowSampler(rows_of([[], []]), 4, seed=0)


def test_random_streams_differ_by_seed_purpose_and_step():
    draws = {
        (seed, purpose, step): numpy_generator(seed, purpose, step).random()
        for seed in (0, 1, -1) for purpose in Purpose for step in (0, 1, 2**40)
    }  # fmt: skip
    assert len(set(draws.values())) == len(draws)
    first = [torch.rand(1, generator=torch_generator(3, step)).item() for step in (0, 1, 0)]
    assert first[0] == first[2] != first[1]
