"""Floor 3: ELSA, the scalable linear shallow autoencoder (Vancura et al., RecSys 2022).

Station: CFAE.encode and CFAE.decode, with one matrix A of unit rows.
embedding = x A, scores = x A A^T.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cfsae_fast import ops
from cfsae_fast.config import CFAEConfig
from cfsae_fast.inference import CFAENetwork
from cfsae_fast.models.cfae import CFAE, thin, to_numpy
from cfsae_fast.models.item_head import cosine_head, entries
from cfsae_fast.models.unit_rows import normalize_rows_, project_gradient_, random_directions
from cfsae_fast.ops.containers import Rows


class ELSA(CFAE):
    """embedding = x A and scores = embedding A^T, with unit rows a_i of A (I, d).

    Loss: mean over rows of || y/||y|| - x/||x|| ||^2, y = relu(x A A^T - x). The -x takes out what
    each item says of itself, as A A^T has ones on its diagonal; it belongs to the loss only.
    Rows of A are scaled back to length 1 after every step, so saved weights have unit rows
    (the published code leaves them one step off).
    """

    item_bias = None

    def __init__(self, n_items: int, config: CFAEConfig, *, generator: torch.Generator) -> None:
        super().__init__(n_items, config)
        self.items = nn.Parameter(random_directions(n_items, config.d, generator))

    def encode(self, rows: Rows) -> Tensor:
        return ops.encode_rows(rows, self.items)

    def decode(self, embedding: Tensor) -> Tensor:
        return embedding @ self.items.T

    def loss(
        self, rows: Rows, *, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        inputs = thin(rows, self.config.input_dropout, generator) if self.training else rows
        loss = cosine_head(self.encode(inputs), self.items, entries(inputs), entries(rows)).mean()
        return loss, {"loss": loss.detach()}

    def before_step(self) -> None:
        project_gradient_(self.items)

    def after_step(self) -> None:
        normalize_rows_(self.items)

    def network(self) -> CFAENetwork:
        items = to_numpy(self.items)
        return CFAENetwork(kind="elsa", item_weight=items, items=items)
