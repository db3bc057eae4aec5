"""Floor 1: how an op of the engine becomes one of torch's.

Station: none of its own; the torch half of every op is declared here. torch.library.custom_op does
the same, and at an op's first call imports torch._dynamo and sympy: 72 MB and seconds of every fit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


class TensorOp:
    """An op that torch traces and differentiates, from a function on tensors that mutates nothing
    and returns fresh memory (torch.library.opcheck looks at that)."""

    def __init__(self, name: str, schema: str, function: Callable) -> None:
        self.name = name
        torch.library.define(name, schema, tags=(torch.Tag.pt2_compliant_tag,))
        torch.library.impl(name, "default", function)
        namespace, _, own = name.partition("::")
        self.overload = getattr(getattr(torch.ops, namespace), own).default

    def __call__(self, *arguments):
        return self.overload(*arguments)

    def register_fake(self, function: Callable) -> Callable:
        """What shapes it returns, for tensors without memory."""
        return torch.library.register_fake(self.name, function)

    def register_autograd(self, backward: Callable, *, setup_context: Callable) -> None:
        """Its gradient, as torch.library.register_autograd takes it."""
        torch.library.register_autograd(self.name, backward, setup_context=setup_context)


def tensor_op(name: str, *, schema: str) -> Callable[[Callable], TensorOp]:
    """Declare the function below as the op of this name."""
    return lambda function: TensorOp(name, schema, function)
