"""Losses over all items, by tiles, equal the dense formula and its gradient."""

from contextlib import nullcontext

import pytest
import torch

from cfsae_fast.models import cosine_head as cosine_head_module
from cfsae_fast.models.cosine_head import CosineHead, int16_products
from cfsae_fast.models.item_head import Entries, entries, multinomial_head
from cfsae_fast.ops import Rows

TILES = [1, 5, 5 * 3, 5 * 8, 1 << 20]  # for 5 rows: 1, 1, 3, 8 and all items at a time
N_ROWS, N_ITEMS, WIDTH = 5, 11, 4


def dense(sparse: Entries) -> torch.Tensor:
    out = torch.zeros(N_ROWS, N_ITEMS, dtype=torch.float64)
    return out.index_put((sparse.row, sparse.item), sparse.value, accumulate=True)


class _CosineLoss(torch.autograd.Function):
    """The head alone, with a gradient for each of its arguments."""

    @staticmethod
    def forward(ctx, embedding, items, offsets, item, value, head):
        ctx.head = head
        ctx.save_for_backward(embedding, items)
        return head.forward(embedding, items, Rows(offsets, item, value))

    @staticmethod
    def backward(ctx, grad):
        found = ctx.head.backward(grad, *ctx.saved_tensors)
        return *found[:2], None, None, found[2], None


def in_rows(sparse: Entries, n_rows=N_ROWS) -> Rows:
    """The entries, which lie row by row."""
    offsets = torch.zeros(n_rows + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(sparse.row, minlength=n_rows), 0, out=offsets[1:])
    return Rows(offsets, sparse.item.to(torch.int32), sparse.value)


def cosine_head(embedding, items, inputs, targets, **sizes):
    inputs, targets = (in_rows(one, len(embedding)) for one in (inputs, targets))
    return _CosineLoss.apply(embedding, items, *inputs, CosineHead(targets, **sizes))


def random_entries(seed: int, count: int = 14) -> Entries:
    """Different entries, row by row; the last row is empty."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.randint(0, N_ROWS - 1, (count,), generator=generator)
    item = torch.randint(0, N_ITEMS, (count,), generator=generator)
    distinct = torch.unique(torch.stack([row, item]), dim=1)
    value = torch.rand(distinct.shape[1], generator=generator, dtype=torch.float64) + 0.5
    return Entries(distinct[0], distinct[1], value)


def random_weights(seed: int):
    generator = torch.Generator().manual_seed(seed)
    shapes = (N_ROWS, WIDTH), (N_ITEMS, WIDTH), (N_ITEMS,)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in shapes
    ]


def dense_cosine(embedding, items, inputs, targets):
    y = torch.relu(embedding @ items.T - dense(inputs))
    t = dense(targets)
    unit = [torch.nn.functional.normalize(one, dim=1) for one in (y, t)]
    return (unit[0] - unit[1]).square().sum(dim=1)


def compare(got, want, weights):
    torch.testing.assert_close(got, want)
    pull = torch.linspace(0.5, 2.0, N_ROWS, dtype=torch.float64)
    got_grads = torch.autograd.grad((got * pull).sum(), weights)
    want_grads = torch.autograd.grad((want * pull).sum(), weights)
    for one, other in zip(got_grads, want_grads, strict=True):
        assert other.abs().sum() > 0
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kept_bytes", [0, 1 << 20])
@pytest.mark.parametrize("tile_elements", TILES)
def test_cosine_head_is_the_dense_loss(tile_elements, kept_bytes):
    embedding, items, _ = random_weights(0)
    inputs, targets = random_entries(1), random_entries(2)
    inputs.value.requires_grad_()
    sizes = {"tile_elements": tile_elements, "kept_bytes": kept_bytes}
    got = cosine_head(embedding, items, inputs, targets, **sizes)
    want = dense_cosine(embedding, items, inputs, targets)
    compare(got, want, [embedding, items, inputs.value])


def single(weights):
    return [one.detach().float().requires_grad_() for one in weights]


@pytest.mark.parametrize("kept_bytes", [0, 1 << 20])
@pytest.mark.parametrize("tile_elements", TILES)
@pytest.mark.parametrize("by", ["engine", "engine in int16", "torch"])
def test_tiles_in_float32_are_the_dense_loss(tile_elements, kept_bytes, by, monkeypatch):
    if by == "torch":
        monkeypatch.setattr(cosine_head_module, "_arrays", lambda *_: None)
    weights = random_weights(0)[:2]
    inputs, targets = random_entries(1), random_entries(2)
    pull = torch.linspace(0.5, 2.0, N_ROWS, dtype=torch.float64)
    (embedding, items), value = single(weights), inputs.value.float().requires_grad_()
    sizes = {"tile_elements": tile_elements, "kept_bytes": kept_bytes}
    given = inputs._replace(value=value), targets._replace(value=targets.value.float())
    with int16_products() if by == "engine in int16" else nullcontext():
        got = cosine_head(embedding, items, *given, **sizes)
    inputs.value.requires_grad_()
    want = dense_cosine(*weights, inputs, targets)
    close = {"atol": 1e-3 if by == "engine in int16" else 1e-5, "rtol": 1e-4}
    torch.testing.assert_close(got.double(), want, **close)
    (got * pull.float()).sum().backward()
    (want * pull).sum().backward()
    for mine, its in zip((embedding, items, value), (*weights, inputs.value), strict=True):
        torch.testing.assert_close(mine.grad.double(), its.grad, **close)


def test_going_back_twice_gives_the_same_gradient_twice():
    embedding, items = single(random_weights(7)[:2])
    inputs = random_entries(8)
    inputs = inputs._replace(value=inputs.value.float())
    loss = cosine_head(embedding, items, inputs, inputs).sum()
    first = torch.autograd.grad(loss, items, retain_graph=True)[0].clone()
    assert torch.equal(first, torch.autograd.grad(loss, items)[0])


@pytest.mark.parametrize("tile_elements", TILES)
def test_multinomial_head_is_the_dense_loss(tile_elements):
    hidden, items, bias = random_weights(3)
    targets = random_entries(4)
    got = multinomial_head(hidden, items, bias, targets, tile_elements=tile_elements)
    want = -(torch.log_softmax(hidden @ items.T + bias, dim=1) * dense(targets)).sum(dim=1)
    compare(got, want, [hidden, items, bias])


def test_multinomial_head_survives_large_logits():
    hidden = torch.full((1, 1), 200.0, requires_grad=True)
    items = torch.tensor([[1.0], [-1.0], [0.5]])
    target = entries(Rows(torch.tensor([0, 1]), torch.tensor([1], dtype=torch.int32)))
    loss = multinomial_head(hidden, items, torch.zeros(3), target, tile_elements=1)
    loss.sum().backward()
    assert loss.item() == pytest.approx(400.0)
    assert hidden.grad.item() == pytest.approx(2.0)


def test_a_zero_row_gives_no_nan():
    embedding = torch.zeros(1, WIDTH, requires_grad=True)
    items = torch.randn(N_ITEMS, WIDTH, requires_grad=True)
    nothing = entries(Rows(torch.tensor([0, 0]), torch.zeros(0, dtype=torch.int32)))
    something = entries(Rows(torch.tensor([0, 1]), torch.tensor([3], dtype=torch.int32)))
    loss = cosine_head(embedding, items, something, something)
    loss.sum().backward()
    assert loss.item() == pytest.approx(1.0)
    assert not embedding.grad.any() and not items.grad.any()
    assert cosine_head(embedding, items, nothing, nothing).item() == 0.0


def test_autocast_multiplies_in_bf16_and_answers_in_fp32():
    embedding, items, bias = (one.detach().float().requires_grad_() for one in random_weights(5))
    inputs = Entries(*[x.float() if x.is_floating_point() else x for x in random_entries(6)])
    exact = cosine_head(embedding, items, inputs, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rough = cosine_head(embedding, items, inputs, inputs)
        rough_nll = multinomial_head(embedding, items, bias, inputs)
    rough.sum().backward()
    assert rough.dtype == rough_nll.dtype == items.grad.dtype == torch.float32
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.05)


def test_entries_lists_rows_and_repeats():
    rows = Rows(torch.tensor([0, 2, 2, 3]), torch.tensor([4, 4, 1], dtype=torch.int32))
    listed = entries(rows)
    assert listed.row.tolist() == [0, 0, 2]
    assert listed.item.tolist() == [4, 4, 1]
    assert listed.value.tolist() == [1.0, 1.0, 1.0]
