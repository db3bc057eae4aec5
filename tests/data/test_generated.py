"""The generated catalogue: seeded, streamable, and its concepts can be found in the rows."""

import numpy as np
import pytest

from cfsae_fast.data import generate, generated, stream
from cfsae_fast.data.generated import BLOCK_USERS, catalogue


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(generated, "BLOCK_USERS", 64)


def test_generate_is_the_concatenated_stream(small_blocks):
    x = generate(200, 90, 7, seed=3).interactions
    blocks = list(stream(200, 90, 7, seed=3))
    assert [len(block.offsets) - 1 for block in blocks] == [64, 64, 64, 8]
    rows = [
        block.items[start:end]
        for block in blocks
        for start, end in zip(block.offsets[:-1], block.offsets[1:], strict=True)
    ]
    assert len(rows) == 200
    for user, row in enumerate(rows):
        np.testing.assert_array_equal(x.row(user), row)


def test_first_users_do_not_depend_on_how_many_there_are(small_blocks):
    many, few = generate(200, 90, 7).interactions, generate(70, 90, 7).interactions
    assert (many.offsets[:71] == few.offsets).all()
    assert (many.items[: few.nnz] == few.items).all()


def test_seed_decides_everything():
    first = generate(300, 100, 8, seed=1)
    assert first == generate(300, 100, 8, seed=1)
    assert first.interactions != generate(300, 100, 8, seed=2).interactions


def test_blocks_differ():
    first, second = stream(2 * BLOCK_USERS, 500, 5, mean_history=6)
    assert not np.array_equal(first.offsets, second.offsets)


def test_every_item_has_one_to_three_concepts_and_every_concept_items():
    things = catalogue(500, 30)
    tags = things.tags()
    of_item = np.bincount(tags.items, minlength=500)
    assert of_item.min() == 1 and of_item.max() == 3
    assert tags.counts().min() >= 500 // 30
    assert len(set(zip(tags.items.tolist(), tags.tags.tolist(), strict=True))) == len(tags.items)
    assert tags.names[3] == "concept-03"
    title = things.titles()[17]
    assert title.endswith(" item 17") and tags.item_mask(title.split()[0], 500)[17]


def test_mean_history_is_the_mean_of_draws():
    x = generate(4000, 100_000, 50, mean_history=20).interactions
    mean = x.counts_per_user().mean()
    assert 18 < mean <= 20.5  # a few draws merge
    assert x.counts_per_user().min() >= 1


def test_planted_concepts_show_in_the_rows():
    """A user's three concepts hold most of the history; a random concept holds far less."""
    data = generate(500, 2000, 40, mean_history=60)
    carries = (data.tags.matrix(2000).toarray() > 0).T  # (items, concepts)
    shares = np.stack([carries[data.interactions.row(u)].mean(0) for u in range(500)])
    best = np.sort(shares, axis=1)
    assert np.median(best[:, -1]) > 5 * np.median(best)
    assert np.median(best[:, -1]) > 0.4


def test_popular_items_are_popular():
    counts = np.sort(generate(2000, 1000, 20).interactions.counts_per_item())[::-1]
    assert 0.05 < counts[:10].sum() / counts.sum() < 0.4  # 0.01 if all were alike
    assert (counts > 0).mean() > 0.95


@pytest.mark.parametrize(
    "arguments, message",
    [({"users": 0}, "users must be at least 1, got 0"),
     ({"items": 3}, r"concepts must be in \[1, items=3\], got 20"),
     ({"concepts": 0}, "concepts must be in"),
     ({"mean_history": 5}, "mean_history must be above 5, got 5"),
     ({"mean_history": float("nan")}, "mean_history must be above 5"),
     ({"seed": -1}, "seed must be an integer")],
)  # fmt: skip
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(**arguments)


def test_one_item_and_one_user():
    x = generate(1, 1, 1).interactions
    assert (x.nnz, x.n_items) == (1, 1)
