"""Floor 4: AdamW, in one pass over the weights.

Station: none of its own; the loop steps it. It is torch's own kernel without the class around it:
the first torch.optim.Optimizer of a process imports torch._dynamo and sympy, 72 MB and seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class AdamW:
    """Adam with decoupled weight decay: per weight w with gradient g, at its step t,

    m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2,
    w = (1 - lr weight_decay) w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps).

    On CPUs and CUDA it computes the bits of torch.optim.AdamW(fused=True), with whose names its
    state is saved. Weights without a gradient are left alone. Source: Loshchilov and Hutter 2019
    (arXiv 1711.05101), algorithm 2.
    """

    EPS = 1e-8

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ) -> None:
        self.weights, self.lr, self.betas = list(weights), lr, betas
        self.weight_decay = weight_decay
        self._moments: dict[int, dict[str, Tensor]] = {}  # by position of the weight

    def zero_grad(self) -> None:
        for weight in self.weights:
            weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        taken = [at for at, weight in enumerate(self.weights) if weight.grad is not None]
        if not taken:
            return
        weights = [self.weights[at] for at in taken]
        grads = [weight.grad for weight in weights]
        for at in taken:
            if at not in self._moments:
                self._moments[at] = _start(self.weights[at])
        states = [self._moments[at] for at in taken]
        steps, means, squares = (
            [one[name] for one in states] for name in ("step", "exp_avg", "exp_avg_sq")
        )
        torch._foreach_add_(steps, 1)
        if {weight.device.type for weight in weights} <= {"cpu", "cuda"}:
            torch._fused_adamw_(
                weights, grads, means, squares, [], steps,
                lr=self.lr, beta1=self.betas[0], beta2=self.betas[1],
                weight_decay=self.weight_decay, eps=self.EPS, amsgrad=False, maximize=False,
            )  # fmt: skip
            return
        for state in zip(weights, grads, means, squares, steps, strict=True):
            self._step_plainly(*state)

    def _step_plainly(self, weight: Tensor, grad: Tensor, m: Tensor, v: Tensor, t: Tensor) -> None:
        b1, b2 = self.betas
        m.lerp_(grad, 1 - b1)
        v.mul_(b2).addcmul_(grad, grad, value=1 - b2)
        size = (v.sqrt() / math.sqrt(1 - b2 ** float(t))).add_(self.EPS)
        weight.mul_(1 - self.lr * self.weight_decay)
        weight.addcdiv_(m, size, value=-self.lr / (1 - b1 ** float(t)))

    def state(self) -> dict[str, Tensor]:
        """Its moments, by `position.name`: `load` goes on from them bit for bit."""
        return {
            f"{at}.{name}": value
            for at, moments in self._moments.items()
            for name, value in moments.items()
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        self._moments = {}
        for key, value in state.items():
            at, _, name = key.partition(".")
            device = self.weights[int(at)].device
            self._moments.setdefault(int(at), {})[name] = value.to(device)


def _start(weight: Tensor) -> dict[str, Tensor]:
    return {
        "step": torch.zeros((), device=weight.device),
        "exp_avg": torch.zeros_like(weight),
        "exp_avg_sq": torch.zeros_like(weight),
    }
