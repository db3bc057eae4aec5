"""The variants do what their lines in the table say."""

import json
import sys

import numpy as np
import pytest
import torch

from benchmarks import science_variants as room
from cfsae_fast.config import SAEConfig
from cfsae_fast.models import SparseAutoencoder

D, L, K = 12, 40, 3


def embeddings(count=30, seed=0):
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed)) * 2 + 1


def made(kind, **options):
    config = SAEConfig(**{"k": K, "n_latents": L} | options)
    model = kind(D, config, generator=torch.Generator().manual_seed(1))
    model.start_from(embeddings())
    return model.train()


def loss_at(model, x, step=0):
    return model.loss(x, generator=torch.Generator(), step=step)


def test_k_falls_over_the_first_half_and_in_training_alone():
    model = made(room.FallingK, n_latents=100)
    model.steps = 100
    model.encoder_bias.data.fill_(50)  # all latents fire, so that k decides
    found = [float(loss_at(model, embeddings(), step)[1]["l0"]) for step in (0, 25, 50, 99)]
    assert found == [64, round(3 + 61 / 2), 3, 3]
    model.step = 0
    assert model.eval().width == K == model.network().width


def test_jumprelu_learns_its_thresholds_and_serves_by_them():
    x, model = embeddings(), made(room.JumpReLU, aux_coefficient=0.0)
    with torch.no_grad():
        model.thresholds += 0.1 * torch.randn(L, generator=torch.Generator().manual_seed(3))
    (indices, values), stats = model._encode_wide(x)
    level = model.thresholds[indices.clamp_min(0).long()]
    served = model.network().encode(x.numpy()).code
    on = values > level
    assert 0 < on.sum() < on.numel()
    np.testing.assert_array_equal(served.values, torch.where(on, values, 0.0).detach())
    np.testing.assert_array_equal(served.indices, torch.where(on, indices, -1))
    # by hand: d loss / d threshold through the window, of distance and of the count
    loss_at(model, x)[0].backward()
    code = torch.zeros(len(x), L).scatter(1, indices.clamp_min(0).long(), (values * on).detach())
    code.requires_grad_()
    u = (x - stats.mean[:, None]) / stats.std[:, None]
    (code @ model.dictionary.detach() + model.bias.detach() - u).square().mean().backward()
    near = ((values - level).abs() < room.BANDWIDTH / 2).float() / room.BANDWIDTH
    slope = code.grad.gather(1, indices.clamp_min(0).long())
    count = on.float().sum(1).mean()
    penalty = 2 * room.SPARSITY * (count / K - 1) / K / len(x)
    want = torch.zeros(L).index_add(
        0, indices.clamp_min(0).long().flatten(), (-near * (level * slope + penalty)).flatten()
    )
    assert want.abs().max() > 1e-5
    torch.testing.assert_close(model.thresholds.grad, want.detach(), atol=1e-6, rtol=1e-4)


def dense(model, x, first=None):
    """(B, L) codes with their zeros; of the first latents alone where that is said."""
    (indices, values), _ = model._encode_training(x)
    code = torch.zeros(len(x), L).scatter(1, indices.clamp_min(0).long(), values.detach())
    code[:, first if first is not None else L :] = 0
    return code


def test_matryoshka_adds_the_losses_of_prefixes():
    x, plain, model = embeddings(), made(SparseAutoencoder), made(room.Matryoshka)
    _, stats = model._encode_training(x)
    u = (x - stats.mean[:, None]) / stats.std[:, None]
    want = loss_at(plain, x)[0].detach()
    for first in (2, 10):  # L / 16, rounded to even, and L / 4
        want += (dense(model, x, first) @ model.dictionary + model.bias - u).square().mean()
    assert loss_at(model, x)[0].item() == pytest.approx(want.item(), rel=1e-5)


def test_ranking_adds_the_divergence_of_what_is_recommended():
    x, plain, model = embeddings(), made(SparseAutoencoder), made(room.Ranking)
    items = torch.randn(9, D, generator=torch.Generator().manual_seed(4))
    model.scores_of = lambda embedding: embedding @ items.T
    _, stats = model._encode_training(x)
    told = stats.mean[:, None] + stats.std[:, None] * (
        dense(model, x) @ model.dictionary + model.bias
    )
    p, q = ((one @ items.T).softmax(1).double() for one in (x, told))
    kl = (p * (p / q).log()).sum(1).mean()
    loss, logged = loss_at(model, x)
    assert logged["kl"].item() == pytest.approx(kl.item(), rel=1e-4) and kl > 0.01
    assert loss.item() == pytest.approx((loss_at(plain, x)[0] + kl).item(), rel=1e-4)
    loss.backward()
    assert model.encoder.grad.abs().max() > 0


def test_the_command_writes_a_row_per_variant(monkeypatch, tmp_path):
    path, names = tmp_path / "v.json", ["k64", "jumprelu", "matryoshka", "ranking", "untied"]
    monkeypatch.setattr(sys, "argv", ["x", "--quick", "--k", "3", "--seeds", "42", "--steps", "5",
                        "--variants", *names, "--out", str(tmp_path), "--json",
                        str(path)])  # fmt: skip
    room.main()
    rows = json.loads(path.read_text())["rows"]
    kept = [one for one in rows if one["metric"] == "ndcg_kept" and "seed=42 rec" in one["case"]]
    assert [one["case"].split()[0] for one in kept] == names
    assert all(0 < one["value"] < 1.2 for one in kept)
    assert len({round(one["value"], 6) for one in kept}) > 3
