"""Random inputs for the kernels."""

from __future__ import annotations

import torch

from cfsae_fast.ops.containers import Code, Knobs, Rows, Stats


class Draw:
    """Random inputs from one seed, float32 and hostile where that is legal."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator)

    def integers(self, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, max(high, 1), shape, generator=self.generator)

    def rows(self, n_rows: int, n_items: int, longest: int, *, values: bool = True) -> Rows:
        """Rows of 0 to `longest` items, with repeats, that start inside their arrays."""
        lengths = self.integers(longest + 1, n_rows)
        start = 3
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]) + start
        n = int(offsets[-1])
        items = self.integers(n_items, n).to(torch.int32)
        return Rows(offsets, items, self.normal(n) if values else None)

    def code(self, n_rows: int, k: int, n_latents: int, *, padded: float = 0.2) -> Code:
        ranked = torch.rand(n_rows, n_latents, generator=self.generator).argsort(1)[:, :k]
        values = self.normal(n_rows, k).abs()
        empty = torch.rand(n_rows, k, generator=self.generator) < padded
        indices = torch.where(empty, -1, ranked).to(torch.int32)
        return Code(indices, torch.where(empty, 0.0, values))

    def stats(self, n_rows: int) -> Stats:
        return Stats(self.normal(n_rows), self.normal(n_rows).abs() + 0.1)

    def knobs(self, n_rows: int, n_latents: int, most: int) -> Knobs:
        """Up to `most` knobs of every kind a row, repeats among them; SCALE once per latent."""
        latents, weights, kinds, offsets = [], [], [], [0]
        for _ in range(n_rows):
            scaled = set()
            for _ in range(int(self.integers(most + 1, 1))):
                latent, kind = int(self.integers(n_latents, 1)), int(self.integers(3, 1))
                if kind == 1 and latent in scaled:
                    kind = 2
                scaled |= {latent} if kind == 1 else set()
                weight = float(self.normal(1)) if kind == 2 else float(self.normal(1).abs()) / 8
                latents.append(latent)
                weights.append(weight)
                kinds.append(kind)
            offsets.append(len(latents))
        return Knobs(
            torch.tensor(offsets),
            torch.tensor(latents, dtype=torch.int32),
            torch.tensor(weights, dtype=torch.float32),
            torch.tensor(kinds, dtype=torch.uint8),
        )
