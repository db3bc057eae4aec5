"""AdamW against torch's classes, bit for bit where the kernel is theirs."""

import pytest
import torch
from torch import nn

from cfsae_fast.training.adam import AdamW


def weights():
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in ((7, 5), (3,), (40_000,))]


def walk(optimizer, mine, steps, first=0):
    """Steps of random gradients; every third one leaves the second weight without."""
    for step in range(first, first + steps):
        torch.manual_seed(step)
        for at, weight in enumerate(mine):
            weight.grad = None if at == 1 and step % 3 == 0 else torch.randn_like(weight)
        optimizer.step()


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("plain", [False, True])
def test_it_takes_the_steps_of_torchs(decay, plain, monkeypatch):
    settings = {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": decay}
    mine, its = weights(), weights()
    own = AdamW(mine, **settings)
    if plain:  # of devices where torch has no such kernel
        monkeypatch.setattr(torch, "_fused_adamw_", _by_hand(own))
    walk(own, mine, 7)
    walk(torch.optim.AdamW(its, fused=not plain, foreach=False if plain else None, **settings),
         its, 7)  # fmt: skip
    for one, other in zip(mine, its, strict=True):
        if plain:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
        else:
            assert torch.equal(one, other)


def _by_hand(optimizer):
    def step(weights, grads, means, squares, _, steps, **__):
        for state in zip(weights, grads, means, squares, steps, strict=True):
            optimizer._step_plainly(*state)

    return step


def test_it_goes_on_from_its_state_bit_for_bit_and_reads_that_of_torchs():
    straight, halted = weights(), weights()
    walk(AdamW(straight, lr=0.01), straight, 6)
    first = AdamW(halted, lr=0.01)
    walk(first, halted, 4)
    second = AdamW(halted, lr=0.01)
    second.load({name: value.clone() for name, value in first.state().items()})
    walk(second, halted, 2, first=4)
    assert all(torch.equal(*pair) for pair in zip(straight, halted, strict=True))

    its = weights()
    torchs = torch.optim.AdamW(its, lr=0.01, weight_decay=0.0, fused=True)
    walk(torchs, its, 4)
    slots = torchs.state_dict()["state"]
    third = AdamW(its, lr=0.01)
    third.load({f"{at}.{name}": value for at, one in slots.items() for name, value in one.items()})
    assert set(third.state()) == set(first.state())
    walk(third, its, 2, first=4)
    assert all(torch.equal(*pair) for pair in zip(straight, its, strict=True))


def test_no_gradient_no_step():
    mine = weights()
    optimizer = AdamW(mine, lr=0.01)
    optimizer.step()
    walk(optimizer, mine, 1)
    optimizer.zero_grad()
    before = [one.detach().clone() for one in mine]
    optimizer.step()
    assert all(one.grad is None for one in mine) and optimizer.state()
    assert all(torch.equal(*pair) for pair in zip(mine, before, strict=True))
