"""Means over seeds, their bootstrap bounds, and paired differences of settings, by hand."""

import numpy as np
import pytest

from cfsae_fast.evaluation.experiments import seeds


def rows(compat, values, metric="kept"):
    return [
        {"data": "x", "k": 4, "compat": compat, "seed": seed, "experiment": "reconstruction",
         "metric": metric, "value": value}
        for seed, value in values.items()
    ]  # fmt: skip


def test_means_by_hand():
    (one,) = seeds.over_seeds(rows("paper", {1: 0.2, 2: 0.4}) + rows("corrected", {1: 0.5}))
    assert one["compat"] == "paper" and one["mean"] == pytest.approx(0.3) and one["seeds"] == 2
    # two seeds drawn twice: both alike in a quarter of the draws each
    assert (one["low"], one["high"]) == (pytest.approx(0.2), pytest.approx(0.4))
    assert "seed" not in one


def test_bounds_equal_the_usual_ones_where_seeds_are_many(rng):
    values = rng.normal(3, 2, size=400)
    low, high = seeds.bounds(values)
    half = 1.96 * values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_differences_are_paired_by_seed():
    """Seeds differ far more than settings do, and one seed stands on one side alone."""
    mine, theirs = {1: 0.1, 2: 0.5, 3: 0.9, 4: 0.0}, {1: 0.12, 2: 0.53, 3: 0.91, 5: 1.0}
    table = rows("corrected", mine) + rows("paper", theirs)
    (one,) = seeds.differences(table)
    assert (one["setting"], one["from"], one["to"]) == ("compat", "corrected", "paper")
    assert one["difference"] == pytest.approx(0.02) and one["seeds"] == 3
    assert one["low"] == pytest.approx(0.01) and one["high"] == pytest.approx(0.03)
    assert one["p"] == pytest.approx(2 / 8)  # of 8 ways to sign three gaps, all + and all -


def test_settings_that_differ_twice_are_not_compared():
    other = [{**row, "k": 8} for row in rows("paper", {1: 0.2, 2: 0.3})]
    assert seeds.differences(rows("corrected", {1: 0.1, 2: 0.2}) + other) == []
    both = rows("corrected", {1: 0.1}) + rows("paper", {1: 0.2})
    assert seeds.differences(both) == []  # one seed tells nothing


def test_sign_flips_by_hand_and_at_random(rng):
    assert seeds.sign_flip(np.array([1.0, 2.0, -1.0])) == pytest.approx(6 / 8)
    assert seeds.sign_flip(np.full(5, 0.3)) == pytest.approx(2 / 32)
    assert seeds.sign_flip(rng.normal(1, 1, 40)) < 0.01
    assert seeds.sign_flip(rng.permutation(np.r_[-np.ones(20), np.ones(20)])) == 1
