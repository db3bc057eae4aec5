"""Peer "implicit": ALS of the package of that name, asked for one user or a batch.

It answers another model's question, without knobs, so its lists cannot be compared with ours; what
is compared is what it costs to recommend from a new history with factors of the same width.
"""

from __future__ import annotations

import numpy as np


class AlsPath:
    """New histories to top-N: a user's factors are solved for, then held against all items."""

    def __init__(self, items: np.ndarray, n: int) -> None:
        from implicit.cpu.als import AlternatingLeastSquares

        self.n, self.n_items = n, len(items)
        self.model = AlternatingLeastSquares(factors=items.shape[1], num_threads=1)
        self.model.item_factors = items
        self.model.user_factors = np.zeros((1, items.shape[1]), np.float32)

    def __call__(self, histories: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        import scipy.sparse

        offsets = np.cumsum([0, *map(len, histories)])
        items = np.concatenate(histories)
        shape = (len(histories), self.n_items)
        rows = scipy.sparse.csr_matrix((np.ones(len(items), np.float32), items, offsets), shape)
        users = np.arange(len(histories))
        return self.model.recommend(users, rows, N=self.n, recalculate_user=True)
