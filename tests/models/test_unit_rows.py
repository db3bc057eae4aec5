"""The gradient's radial part goes, by the engine and by torch alike."""

import pytest
import torch

from cfsae_fast.models.unit_rows import project_gradient_, random_directions


@pytest.mark.parametrize("n, d", [(0, 3), (1, 1), (5, 7), (130, 33), (64, 256)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_left_is_tangent(n, d, dtype):
    generator = torch.Generator().manual_seed(n)
    weight = torch.nn.Parameter(random_directions(n, d, generator).to(dtype))
    grad = torch.randn(n, d, generator=generator, dtype=dtype)
    weight.grad, before = grad.clone(), weight.detach().clone()
    project_gradient_(weight)
    want = grad - (grad * weight).sum(1, keepdim=True) * weight
    torch.testing.assert_close(weight.grad, want.detach(), atol=1e-5, rtol=1e-5)
    assert torch.equal(weight, before)


def test_a_gradient_of_strided_memory_is_projected_too():
    weight = torch.nn.Parameter(random_directions(6, 4, torch.Generator().manual_seed(0)))
    weight.grad = torch.randn(4, 6).T
    project_gradient_(weight)
    assert (weight.grad * weight).sum(1).abs().max() < 1e-6


def test_without_a_gradient_nothing_happens():
    project_gradient_(torch.nn.Parameter(torch.ones(2, 2)))
