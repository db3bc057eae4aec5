"""Waking latents: who fires for no row gets a row, at the cost of that row's least latent alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfsae_fast.config import CFAEConfig, SAEConfig, TrainConfig
from cfsae_fast.models import make_sae
from cfsae_fast.ops import Rows
from cfsae_fast.training import fit_cfae, fit_sae, stages, waking
from cfsae_fast.training.samplers import ArraySampler
from cfsae_fast.training.waking import wake, wake_all

D = 6


def some_sae(n_latents: int, k: int, seed: int, **options):
    model = make_sae(D, SAEConfig(k=k, n_latents=n_latents, **options), seed=seed)
    torch.nn.init.normal_(model.encoder_bias, generator=torch.Generator().manual_seed(seed))
    return model.eval()


def embeddings(count: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((count, D)) * 2 + 1).astype(np.float32)


def sampler_of(array: np.ndarray) -> ArraySampler:
    return ArraySampler(array, 8, seed=0)


def dense_codes(model, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By sorting dense activations: which latents are in each row's code (n, L), what an activation
    must exceed to be (n,), and the activations (n, L)."""
    x = torch.from_numpy(x)
    u = (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-7)
    pre = ((u - model.bias) @ model.encoder.T + model.encoder_bias).detach().numpy()
    order = np.argsort(-pre, axis=1, kind="stable")[:, : model.config.k]
    used = np.zeros(pre.shape, dtype=bool)
    values = np.take_along_axis(pre, order, axis=1)
    np.put_along_axis(used, order, values > 0, axis=1)
    return used, np.maximum(values[:, -1], 0), pre


@settings(max_examples=40, deadline=None)
@given(
    n_latents=st.integers(1, 40),
    k=st.integers(1, 5),
    n_rows=st.integers(1, 60),
    block=st.sampled_from([1, 7, 1024]),
    seed=st.integers(0, 99),
)
def test_who_is_woken_gets_a_row_of_its_own(n_latents, k, n_rows, block, seed):
    model, x = some_sae(n_latents, min(k, n_latents), seed), embeddings(n_rows, seed)
    (before, level, _), bias = dense_codes(model, x), model.encoder_bias.detach().clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waking, "BLOCK", block)
        silent = wake(model, sampler_of(x))
    assert silent == (before.sum(axis=0) == 0).sum()
    raised = (model.encoder_bias > bias).detach().numpy()
    activations = dense_codes(model, x)[2][:, raised]
    assert torch.equal(model.encoder_bias[~raised], bias[~raised])
    assert not before[:, raised].any()  # none but silent ones,
    assert (activations > level[:, None]).any(axis=0).all()  # each of which exceeds a row's least
    if silent and (before.sum(axis=0) != 1).all():
        assert raised.any()  # every row may give a place


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "basic"])
def test_in_the_end_all_fire(kind):
    model, x = some_sae(48, 4, 1, kind=kind), embeddings(300, 1)
    model.threshold.fill_(0.9)
    with torch.no_grad():
        model.encoder_bias[::2] -= 4  # half of them are far from any row
    counts = waking._firing(model, sampler_of(x)).counts
    assert (counts == 0).sum() > 10
    wake_all(model, sampler_of(x))
    assert (waking._firing(model, sampler_of(x)).counts > 0).all()


def first_three(k: int):
    """Three latents, each of which reads one coordinate of the embedding as it is."""
    model = some_sae(3, k, 0, standardize=False)
    with torch.no_grad():
        model.encoder.copy_(torch.eye(3, D))
        model.encoder_bias.zero_()
        model.bias.zero_()
    return model


def test_a_latent_that_has_but_one_row_keeps_it():
    """Two rows, two latents of one row each, k = 1: the third could only take what they have."""
    model = first_three(k=1)
    x = np.eye(2, D, dtype=np.float32)
    assert wake(model, sampler_of(x)) == 1 and not model.encoder_bias.any()
    x = np.vstack([x, [[0.5, 0, 0.4, 0, 0, 0]]]).astype(np.float32)  # the first has two rows now
    assert wake(model, sampler_of(x)) == 1
    assert model.encoder_bias[:2].tolist() == [0, 0]
    assert model.encoder_bias[2].item() == pytest.approx(0.1, rel=2e-3)
    assert wake(model, sampler_of(x)) == 0


def test_a_row_with_room_gives_a_place_and_loses_nothing():
    model = first_three(k=2)
    x = np.array([[1, 0, -1, 0, 0, 0], [1, 2, -3, 0, 0, 0]], np.float32)
    assert wake(model, sampler_of(x)) == 1  # the first row's code has one latent, of two
    assert model.encoder_bias[2].item() == pytest.approx(1, rel=2e-3)
    assert dense_codes_plain(model, x) == [[0, 2], [0, 1]]


def dense_codes_plain(model, x) -> list[list[int]]:
    found = model.encode(torch.from_numpy(x)).code.indices.numpy()
    return [sorted(row[row >= 0].tolist()) for row in found]


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "basic"])
def test_fit_sae_leaves_no_latent_silent(kind):
    array, training = embeddings(200, 1), TrainConfig(epochs=2, steps_per_epoch=20, lr=0.01)
    config = SAEConfig(kind=kind, k=2, n_latents=32, spare=0.0)
    first, second = (fit_sae(array, None, config, training) for _ in range(2))
    states = first.state_dict(), second.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert (waking._firing(first, sampler_of(array)).counts > 0).all() and not first.training
    asleep = SAEConfig(kind=kind, k=2, n_latents=32, spare=0.0, wake=False)
    if kind == "topk":
        model = fit_sae(array, None, asleep, training)
        assert (waking._firing(model, sampler_of(array)).counts == 0).any()


def test_users_histories_are_looked_at_whole():
    """No latent is silent over the embeddings of users' whole rows, as embed gives them."""
    rng = np.random.default_rng(2)
    rows = Rows(np.arange(0, 301, 6), rng.integers(0, 30, 300).astype(np.int32))
    config = TrainConfig(epochs=1, batch_size=16, lr=0.02, patience=0)
    cfae = fit_cfae(rows, 30, CFAEConfig(d=D), config)
    sae = SAEConfig(k=2, n_latents=16, spare=0.0)
    model = fit_sae(cfae, rows, sae, TrainConfig(epochs=1, lr=0.01))
    assert dense_codes(model, stages.embed(cfae, rows))[0].any(axis=0).all()


def test_the_published_kind_is_not_woken():
    with pytest.raises(ValueError, match="wake must be None or a bool, got 'no'"):
        SAEConfig(wake="no")
    with pytest.raises(ValueError, match="wake must be None or 0 with compat 'paper'"):
        SAEConfig(wake=True, compat="paper")


def reading(n_latents: int):
    """k = 1, and each latent reads one coordinate of the embedding as it is."""
    model = make_sae(8, SAEConfig(k=1, n_latents=n_latents, standardize=False), seed=0)
    with torch.no_grad():
        model.encoder.copy_(torch.eye(n_latents, 8))
        model.encoder_bias.zero_()
        model.bias.zero_()
    return model.eval()


def test_two_who_wake_do_not_leave_a_third_without_a_row():
    model, x = reading(3), np.zeros((2, 8), np.float32)
    x[:, 0], x[0, 1], x[1, 2] = 1, 0.9, 0.8  # the first fires for both, of which one may go
    assert wake(model, sampler_of(x)) == 2
    assert (model.encoder_bias > 0).tolist() == [False, True, False]


def test_rows_that_cannot_give_a_place_do_not_stand_before_one_that_can():
    model, x = reading(6), np.zeros((6, 8), np.float32)
    x[range(4), range(4)], x[:4, 5] = 1, 0.9  # four rows of one latent each, near to the sixth
    x[4:, 4], x[4:, 5] = 1, 0.2  # and two of one latent
    assert waking.NEAREST == 4 and wake(model, sampler_of(x)) == 1
    assert model.encoder_bias[5].item() == pytest.approx(0.8, rel=2e-3)
