"""Floor 2: strong generalisation: whole users go to train, val or test (METHOD.md 1.3).

Station: interactions -> three CSRs. Held-out users' items stay columns, seen or not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cfsae_fast.data.randomness import mix, salt


class UserSplit(NamedTuple):
    """User positions of each part, ascending int64; disjoint, together all users."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def split_users(
    n_users: int, *, ratios: tuple[float, float, float] = (0.8, 0.1, 0.1), seed: int = 42
) -> UserSplit:
    """Deal users at random into train, val and test: a function of (n_users, ratios, seed) alone.

    Sizes as in the paper: test int(r n), val int((r + r') n) - test, train the rest; a part with
    a positive ratio gets at least one user.

    Raises:
        ValueError: ratios are not three shares that sum to 1, or users are too few for the parts.
    """
    if len(ratios) != 3 or min(ratios) < 0 or abs(sum(ratios) - 1) > 1e-9:
        raise ValueError(f"ratios must be three shares of sum 1, got {ratios}")
    wanted = sum(ratio > 0 for ratio in ratios)
    if n_users < wanted:
        raise ValueError(f"n_users must be at least {wanted}, one per part, got {n_users}")
    n_test = _size(ratios[2], n_users)
    n_held = _size(ratios[1] + ratios[2], n_users)
    n_val = max(n_held - n_test, int(ratios[1] > 0))
    n_test = min(n_test, n_users - n_val - int(ratios[0] > 0))
    n_val = min(n_val, n_users - n_test - int(ratios[0] > 0))
    order = np.argsort(
        mix(salt(seed, "split users"), np.arange(n_users, dtype=np.uint64)), kind="stable"
    )
    first, second = n_users - n_val - n_test, n_users - n_test
    parts = (order[:first], order[first:second], order[second:])
    return UserSplit(*(np.sort(part) for part in parts))


def _size(share: float, count: int) -> int:
    # 0.29 * 100 is 28.999...: the nudge keeps whole numbers whole
    return max(int(share * count + 1e-9), int(share > 0))
