"""Floor 3: what every collaborative-filtering autoencoder is.

Station: CFAE.encode and CFAE.decode. A model knows its maths and its own weights; data, loops and
files live elsewhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from cfsae_fast import ops
from cfsae_fast.config import CFAEConfig
from cfsae_fast.inference import CFAENetwork
from cfsae_fast.ops.containers import Recommended, Rows


class CFAE(nn.Module, ABC):
    """rows -> embedding (B, d) -> scores (B, I).

    `items` (I, w) is the last layer, `item_bias` (I,) or None its bias; `decode` writes all
    scores out (tests and tiny catalogues), serving takes `network()` and `ops.recommend` instead.
    """

    items: Tensor
    item_bias: Tensor | None

    def __init__(self, n_items: int, config: CFAEConfig) -> None:
        super().__init__()
        if n_items < 1:
            raise ValueError(f"n_items must be at least 1, got {n_items}")
        self.n_items, self.d, self.config = n_items, config.d, config

    @abstractmethod
    def encode(self, rows: Rows) -> Tensor:
        """Histories (tensors) -> embedding (B, d)."""

    @abstractmethod
    def decode(self, embedding: Tensor) -> Tensor:
        """Embedding (B, d) -> raw scores (B, I): no ReLU, no softmax, nothing subtracted."""

    @abstractmethod
    def loss(
        self, rows: Rows, *, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Training loss of a batch (a scalar), and named scalars to log.

        generator: a CPU generator, the only source of randomness. step: counted from 0 over the
        whole training (annealing reads it).
        """

    @abstractmethod
    def network(self) -> CFAENetwork:
        """The weights as numpy arrays (copies), which serve without torch."""

    def to_items(self, embedding: Tensor) -> Tensor:
        """The decoder up to its last layer: embedding (B, d) -> (B, w), to multiply with items."""
        return embedding

    def recommend(self, embedding: Tensor, n: int, *, seen: Rows | None = None) -> Recommended:
        """Top-n of embeddings (B, d) by tiles of items; `seen` items never appear."""
        with torch.no_grad():
            return ops.recommend(
                self.to_items(embedding), self.items, n, bias=self.item_bias, seen=seen
            )

    def before_step(self) -> None:
        """Change gradients between backward and the optimiser's step."""

    def after_step(self) -> None:
        """Bring weights back to where they must be after the optimiser's step."""


def thin(rows: Rows, rate: float, generator: torch.Generator) -> Rows:
    """`rows` (tensors) without a random share `rate` of its entries; values are not rescaled."""
    keep = torch.rand(len(rows.items), generator=generator) >= rate
    keep = keep.to(rows.items.device)
    counted = torch.zeros(len(keep) + 1, dtype=torch.int64, device=keep.device)
    torch.cumsum(keep, 0, out=counted[1:])
    values = None if rows.values is None else rows.values[keep]
    return Rows(counted[rows.offsets], rows.items[keep], values)


def to_numpy(tensor: Tensor) -> object:
    """A float32 copy of a tensor as a numpy array."""
    return tensor.detach().to("cpu", torch.float32).clone().numpy()
