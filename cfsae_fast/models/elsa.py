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
from cfsae_fast.models.cosine_head import CosineHead
from cfsae_fast.models.unit_rows import normalize_rows_, project_gradient_, random_directions
from cfsae_fast.ops.containers import Rows
from cfsae_fast.ops.tiles import add_item_grads_

# Adam moves every weight by about lr; lengths may change by this factor more (log scale) per step.
LENGTH_PACE = 10.0


class ELSA(CFAE):
    """embedding = x A and scores = embedding A^T, with row a_i of A (I, d) for item i.

    Loss: mean over rows of || y/||y|| - x/||x|| ||^2, y = relu(x' A A^T - x' o diag(A A^T)), where
    x' is x thinned by dropout. What is taken off is what each item says of itself; it belongs to
    the loss only. a_i = length_i * direction_i; directions are scaled back to length 1 after every
    step (the published code leaves them one step off). config.item_lengths "unit" keeps all lengths
    at 1, which is the published model; "learned" lets rare items speak quietly.
    """

    item_bias = None

    def __init__(self, n_items: int, config: CFAEConfig, *, generator: torch.Generator) -> None:
        super().__init__(n_items, config)
        self.directions = nn.Parameter(random_directions(n_items, config.d, generator))
        learned = config.item_lengths == "learned"
        self.log_lengths = nn.Parameter(torch.zeros(n_items)) if learned else None
        self._spare: list[Tensor] = []  # memory of tiles of scores, from step to step

    @property
    def items(self) -> Tensor:
        """The matrix A (I, d)."""
        return self.directions if self.log_lengths is None else self._lengths() * self.directions

    def encode(self, rows: Rows) -> Tensor:
        return ops.encode_rows(rows, self.items)

    def decode(self, embedding: Tensor) -> Tensor:
        return embedding @ self.items.T

    def loss(
        self, rows: Rows, *, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        rate = self.config.input_dropout if self.training else 0.0
        inputs = thin(rows, rate, generator) if rate else rows
        head = CosineHead(rows, spare=self._spare)
        loss = _Loss.apply(self.directions, self.log_lengths, inputs, head).mean()
        return loss, {"loss": loss.detach()}

    def before_step(self) -> None:
        project_gradient_(self.directions)

    def after_step(self) -> None:
        normalize_rows_(self.directions)

    def network(self) -> CFAENetwork:
        items = to_numpy(self.items)
        return CFAENetwork(kind="elsa", item_weight=items, items=items)

    def _lengths(self) -> Tensor:
        return torch.exp(LENGTH_PACE * self.log_lengths)[:, None]


class _Loss(torch.autograd.Function):
    """ELSA's loss per row (B,) from its parameters. Both ends of the model and the lengths leave
    their gradient in one array: A is large, and each array of its size costs a pass over memory."""

    @staticmethod
    def forward(ctx, directions, log_lengths, inputs, head):
        items, own = directions, inputs
        if log_lengths is not None:
            lengths = torch.exp(LENGTH_PACE * log_lengths)
            items = lengths[:, None] * directions
            own_values = lengths.square()[inputs.items]
            own = inputs._replace(values=_times(own_values, inputs.values))
        embedding = ops.encode_rows(inputs, items)
        ctx.save_for_backward(directions, log_lengths, embedding)
        ctx.inputs, ctx.head, ctx.own = inputs, head, own.values
        ctx.items = None if items is directions else items
        return head.forward(embedding, items, own)

    @staticmethod
    def backward(ctx, grad):
        directions, log_lengths, embedding = ctx.saved_tensors
        items = directions if ctx.items is None else ctx.items
        to_embedding, to_items, to_own = ctx.head.backward(grad, embedding, items)
        _add_encoder_grad_(ctx.inputs, items, to_embedding, to_items)
        if log_lengths is None:
            return to_items, None, None, None
        # item = length * direction, and own value = value * length^2
        lengths = torch.exp(LENGTH_PACE * log_lengths)
        to_lengths = torch.bmm(to_items.unsqueeze(1), directions.unsqueeze(2)).flatten()
        own_items = ctx.inputs.items.long()
        to_lengths.index_add_(0, own_items, 2 * to_own * ctx.own / lengths[own_items])
        return to_items.mul_(lengths[:, None]), LENGTH_PACE * lengths * to_lengths, None, None


def _times(values: Tensor, others: Tensor | None) -> Tensor:
    return values if others is None else values * others


def _add_encoder_grad_(rows: Rows, items: Tensor, grad: Tensor, to_items: Tensor) -> None:
    """to_items (I, d) += the gradient that grad (B, d) of `encode_rows(rows, items)` sends back."""
    if to_items.device.type == "cpu" and to_items.dtype == torch.float32:
        arrays = (None if one is None else one.contiguous().numpy() for one in rows)
        add_item_grads_(Rows(*arrays), grad.contiguous().numpy(), to_items.numpy())
        return
    wanted, threads = [True, False, False], 0
    given = (*rows, items, grad)
    to_items += torch.ops.cfsae.encode_rows_backward(*given, wanted, threads)[0]
