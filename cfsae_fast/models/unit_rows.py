"""Floor 3: weight matrices whose rows stay on the unit sphere (ELSA's items, the SAE's atoms).

Before the optimiser's step the gradient loses its radial part, at the point where it was taken;
after the step the rows are scaled back. The published code does both in the wrong order.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cfsae_fast.ops.tiles import tangent_rows_


@torch.no_grad()
def project_gradient_(weight: nn.Parameter) -> None:
    """Remove from each row's gradient its part along the (unit) row, in place."""
    grad = weight.grad
    if grad is None:
        return
    plain = weight.is_contiguous() and grad.is_contiguous() and weight.dtype == torch.float32
    if plain and weight.device.type == "cpu":
        tangent_rows_(weight.detach().numpy(), grad.numpy())
        return
    # a product of the two would be written to memory once more, only to be summed
    along = torch.bmm(grad.unsqueeze(1), weight.unsqueeze(2)).squeeze(2)
    grad.addcmul_(along, weight, value=-1)


@torch.no_grad()
def normalize_rows_(weight: Tensor) -> Tensor:
    """Scale each row (n, d) to length 1 in place; a zero row stays zero."""
    norms = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
    return weight.div_(norms.clamp_min(torch.finfo(weight.dtype).tiny))


def random_directions(n_rows: int, d: int, generator: torch.Generator) -> Tensor:
    """n_rows unit vectors of width d, uniform on the sphere: (n_rows, d)."""
    return normalize_rows_(torch.randn(n_rows, d, generator=generator))
