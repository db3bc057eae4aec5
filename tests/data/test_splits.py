"""The user split and the hashes under it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfsae_fast.data import split_users
from cfsae_fast.data.randomness import hash_ids, hash_texts, mix, salt
from cfsae_fast.ids import Ids


@given(st.integers(3, 400), st.integers(0, 2**63 - 1))
def test_parts_are_disjoint_and_complete(n_users, seed):
    split = split_users(n_users, seed=seed)
    assert sorted(np.concatenate(split).tolist()) == list(range(n_users))
    assert all(len(part) for part in split)
    again = split_users(n_users, seed=seed)
    assert all((a == b).all() for a, b in zip(split, again, strict=True))


def test_sizes_are_the_papers():
    assert [len(part) for part in split_users(160_776)] == [128_621, 16_078, 16_077]
    assert [len(part) for part in split_users(571_355)] == [457_084, 57_136, 57_135]


def test_seed_changes_the_split_and_nothing_else_does():
    np.random.seed(1)
    first = split_users(1000, seed=1)
    np.random.seed(2)
    assert (first.test == split_users(1000, seed=1).test).all()
    assert not np.array_equal(first.test, split_users(1000, seed=2).test)
    assert 0.05 < np.isin(first.test, split_users(1000, seed=2).test).mean() < 0.2


def test_golden_values_do_not_drift():
    """Splits of published results must stay: these numbers never change."""
    assert split_users(20, seed=42).test.tolist() == [0, 4]
    assert hex(int(salt(42, "x"))) == "0x1796f7133b797872"
    assert hex(int(hash_ids(Ids([5]))[0])) == "0x247210de974f89a9"
    assert hex(int(hash_ids(Ids(["é5"]))[0])) == "0xc83ffcff34037f56"


def test_ratios():
    split = split_users(100, ratios=(0.5, 0, 0.5))
    assert [len(part) for part in split] == [50, 0, 50]
    assert len(split_users(100, ratios=(0.71, 0, 0.29)).test) == 29
    for bad in [(0.5, 0.5), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1)]:
        with pytest.raises(ValueError, match="ratios must be three shares of sum 1"):
            split_users(100, ratios=bad)
    with pytest.raises(ValueError, match="n_users must be at least 3"):
        split_users(2)
    for seed in (-1, 2**63, 1.5, True):
        with pytest.raises(ValueError, match="seed must be an integer"):
            split_users(10, seed=seed)


def test_hash_of_an_id_ignores_the_others():
    assert hash_ids(Ids(["a", "long one"]))[0] == hash_ids(Ids(["a"]))[0]
    assert hash_ids(Ids([1, 2**60]))[0] == hash_ids(Ids([1]))[0]
    assert hash_ids(Ids([1]))[0] != hash_ids(Ids(["1"]))[0]
    assert len(set(hash_texts(np.array(["", "a", "b", "ab", "ba", "aa"])).tolist())) == 6


def test_mix_is_even():
    draws = mix(np.uint64(7), np.arange(100_000, dtype=np.uint64))
    assert len(np.unique(draws)) == 100_000
    low = np.bincount((draws % np.uint64(16)).astype(int), minlength=16)
    high = np.bincount((draws >> np.uint64(60)).astype(int), minlength=16)
    for counts in (low, high):  # sd of a bin is 77
        assert abs(counts - 6250).max() < 400
    # neighbours are unrelated: half of the bits differ
    bits = np.unpackbits((draws[1:] ^ draws[:-1]).view(np.uint8)).mean()
    assert abs(bits - 0.5) < 0.001
