"""Every CFAE: learns the checkerboard, serves from numpy what torch computes, keeps its weights."""

import numpy as np
import pytest
import torch

from cfsae_fast.config import CFAEConfig
from cfsae_fast.errors import ModelFormatError
from cfsae_fast.inference import CFAENetwork
from cfsae_fast.models import CFAES, make_cfae
from cfsae_fast.ops import Rows

N_ITEMS = 20
MODELS = sorted(CFAES)


def checkerboard() -> tuple[Rows, np.ndarray]:
    """Users of even and odd taste; each lacks one item of the taste: what must be recommended."""
    missing = np.arange(N_ITEMS)
    histories = [[i for i in range(u % 2, N_ITEMS, 2) if i != u] for u in missing]
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in histories])])
    return Rows(offsets.astype(np.int64), np.concatenate(histories).astype(np.int32)), missing


def tensors(rows: Rows) -> Rows:
    return Rows(*[None if one is None else torch.from_numpy(one) for one in rows])


def trained(model: str, *, steps: int = 60, **options):
    config = CFAEConfig(model=model, d=8, hidden=16, dropout=0.3, **options)
    cfae = make_cfae(N_ITEMS, config, seed=1)
    rows, generator = tensors(checkerboard()[0]), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(cfae.parameters(), lr=0.05)
    for step in range(steps):
        loss, logged = cfae.loss(rows, generator=generator, step=step)
        optimizer.zero_grad()
        loss.backward()
        cfae.before_step()
        optimizer.step()
        cfae.after_step()
    assert torch.isfinite(loss) and logged["loss"] == loss.detach()
    return cfae


@pytest.mark.parametrize("model", MODELS)
def test_recommends_the_missing_square(model):
    rows, missing = checkerboard()
    network = trained(model).network()
    best = network.recommend(network.encode(rows), 1, seen=rows)
    np.testing.assert_array_equal(best.ids[:, 0], missing)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("normalize_input", [True, False])
def test_network_equals_the_module(model, normalize_input):
    cfae = trained(model, steps=3, normalize_input=normalize_input)
    offsets = np.array([0, 3, 3, 4])  # the second history is empty
    rows = Rows(offsets, np.array([5, 0, 7, 19], np.int32), np.array([1, 2, 0.5, 3], np.float32))
    with torch.no_grad():
        want = cfae.encode(tensors(rows))
        want_scores = cfae.decode(want).numpy()
    network = cfae.network()
    got = network.encode(rows)
    assert (network.d, network.n_items) == (8, N_ITEMS)
    np.testing.assert_allclose(got, want.numpy(), atol=1e-5)
    np.testing.assert_allclose(network.decode(got), want_scores, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_items_encode_as_histories_of_one_item(model):
    network = trained(model, steps=2, normalize_input=False).network()
    singles = Rows(np.arange(N_ITEMS + 1), np.arange(N_ITEMS, dtype=np.int32))
    np.testing.assert_allclose(network.encode_items(), network.encode(singles), atol=1e-6)
    np.testing.assert_allclose(
        network.encode_items(np.array([3])), network.encode_items()[3:4], atol=1e-6
    )


@pytest.mark.parametrize("model", MODELS)
def test_network_survives_tensors(model):
    network = trained(model, steps=1).network()
    stored = network.to_tensors()
    again = CFAENetwork.from_tensors(stored, network.describe())
    rows = checkerboard()[0]
    np.testing.assert_array_equal(again.encode(rows), network.encode(rows))
    np.testing.assert_array_equal(again.decode(network.encode(rows)),
                                  network.decode(network.encode(rows)))  # fmt: skip
    if model == "elsa":
        assert list(stored) == ["items"] and again.item_weight is again.items and again.is_linear
    else:
        assert not again.is_linear


def test_damaged_tensors_are_refused():
    network = trained("multdae", steps=1).network()
    stored = network.to_tensors()
    with pytest.raises(ModelFormatError, match="'items'"):
        kept = {name: one for name, one in stored.items() if name != "items"}
        CFAENetwork.from_tensors(kept, network.describe())
    with pytest.raises(ModelFormatError, match=r"encoder\.0"):
        broken = stored | {"encoder.0.weight": stored["encoder.0.weight"][:, 1:]}
        CFAENetwork.from_tensors(broken, network.describe())
    with pytest.raises(ModelFormatError, match="do not fit together"):
        CFAENetwork.from_tensors(stored | {"item_bias": stored["item_bias"][1:]},
                                 network.describe())  # fmt: skip


@pytest.mark.parametrize("item_lengths", ["unit", "learned"])
def test_elsa_directions_are_unit_after_every_step_and_gradients_tangent(item_lengths):
    cfae = trained("elsa", steps=5, item_lengths=item_lengths)
    directions = cfae.directions
    np.testing.assert_allclose(directions.detach().norm(dim=1), 1.0, rtol=1e-6)
    lengths = cfae.items.detach().norm(dim=1)
    assert (lengths.max() - lengths.min() > 0.01) == (item_lengths == "learned")
    loss, _ = cfae.loss(tensors(checkerboard()[0]), generator=torch.Generator(), step=0)
    cfae.zero_grad()
    loss.backward()
    radial = (directions.grad * directions).sum(dim=1).abs().max()
    cfae.before_step()
    assert radial > 1e-4
    assert (directions.grad * directions).sum(dim=1).abs().max() < 1e-6


@pytest.mark.parametrize("item_lengths", ["unit", "learned"])
def test_elsa_loss_and_gradients_are_the_formula(item_lengths):
    config = CFAEConfig(model="elsa", d=8, dropout=0.0, item_lengths=item_lengths)
    cfae, rows = make_cfae(N_ITEMS, config, seed=3), tensors(checkerboard()[0])
    weights = [cfae.directions]
    if item_lengths == "learned":
        with torch.no_grad():
            cfae.log_lengths.copy_(torch.linspace(-0.1, 0.1, N_ITEMS))
        weights += [cfae.log_lengths]
    x = torch.zeros(N_ITEMS, N_ITEMS)
    for user in range(N_ITEMS):
        x[user, rows.items[rows.offsets[user] : rows.offsets[user + 1]].long()] = 1
    y = torch.relu(x @ cfae.items @ cfae.items.T - x * cfae.items.square().sum(dim=1))
    unit = [one / one.norm(dim=1, keepdim=True) for one in (y, x)]
    want = (unit[0] - unit[1]).square().sum(dim=1).mean()
    got, _ = cfae.loss(rows, generator=torch.Generator(), step=0)
    torch.testing.assert_close(got, want)
    for one, other in zip(
        torch.autograd.grad(got, weights), torch.autograd.grad(want, weights), strict=True
    ):
        # the tiles leave out x o diag's own slope along a direction, which the projection removes
        radial = (one * weights[0]).sum(1, keepdim=True) if one.ndim == 2 else 0
        radial_other = (other * weights[0]).sum(1, keepdim=True) if one.ndim == 2 else 0
        torch.testing.assert_close(
            one - radial * weights[0] if one.ndim == 2 else one,
            other - radial_other * weights[0] if one.ndim == 2 else other,
        )


def test_multvae_loss_is_likelihood_plus_annealed_divergence():
    config = CFAEConfig(model="multvae", d=4, dropout=0.0, beta_max=0.5, anneal_steps=10)
    cfae, rows = make_cfae(N_ITEMS, config, seed=3), tensors(checkerboard()[0])
    for step, beta in [(0, 0.0), (5, 0.25), (10, 0.5), (99, 0.5)]:
        loss, logged = cfae.loss(rows, generator=torch.Generator().manual_seed(1), step=step)
        want = logged["likelihood"] + beta * logged["divergence"]
        torch.testing.assert_close(loss.detach(), want)
    hidden = cfae._first_layer(rows)
    mean, log_variance = cfae.to_embedding(hidden), cfae.to_log_variance(hidden)
    normal = torch.distributions.Normal(mean, torch.exp(log_variance / 2))
    kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(logged["divergence"], kl.sum(1).mean().detach())


@pytest.mark.parametrize("model", MODELS)
def test_weights_and_losses_are_functions_of_the_seed(model):
    one, same = trained(model, steps=3), trained(model, steps=3)
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, same.state_dict()[name]), name
    other = make_cfae(N_ITEMS, one.config, seed=2)
    assert not torch.equal(other.items, make_cfae(N_ITEMS, one.config, seed=1).items)


@pytest.mark.parametrize("model", MODELS)
def test_loss_leaves_the_batch_and_the_global_generator_alone(model):
    cfae, rows = make_cfae(N_ITEMS, CFAEConfig(model=model, d=4)), tensors(checkerboard()[0])
    before, state = [rows.offsets.clone(), rows.items.clone()], torch.get_rng_state()
    make_cfae(N_ITEMS, cfae.config)
    cfae.loss(rows, generator=torch.Generator().manual_seed(0), step=0)
    assert torch.equal(rows.offsets, before[0]) and torch.equal(rows.items, before[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_no_items_is_an_error():
    with pytest.raises(ValueError, match="n_items must be at least 1, got 0"):
        make_cfae(0, CFAEConfig())
