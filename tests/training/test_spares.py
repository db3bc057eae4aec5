"""Spare latents: the L that fire for most rows stay; rows that used those alone see no change."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfsae_fast.config import FEW_ROWS, CFAEConfig, SAEConfig, TrainConfig
from cfsae_fast.models import make_sae
from cfsae_fast.ops import Rows
from cfsae_fast.training import fit_cfae, fit_sae, stages
from cfsae_fast.training.samplers import ArraySampler, EmbeddingSampler
from cfsae_fast.training.spares import are_few, fired, settled, with_spares, without_spares

D = 6


def trained_sae(n_latents: int, k: int, seed: int, **options):
    model = make_sae(D, SAEConfig(k=k, n_latents=n_latents, **options), seed=seed)
    torch.nn.init.normal_(model.encoder_bias, generator=torch.Generator().manual_seed(seed))
    return model.eval()


def embeddings(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed)) * 2 + 1


def dense_counts(model, x) -> np.ndarray:
    """Rows for which each latent is in the code, by sorting dense activations."""
    u = (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-7)
    pre = ((u - model.bias) @ model.encoder.T + model.encoder_bias).detach().numpy()
    order = np.argsort(-pre, axis=1, kind="stable")[:, : model.config.k]
    used = order[np.take_along_axis(pre, order, axis=1) > 0]
    return np.bincount(used, minlength=model.n_latents)


@settings(max_examples=25, deadline=None)
@given(
    n_latents=st.integers(1, 20),
    more=st.integers(0, 12),
    k=st.integers(1, 5),
    rows=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_those_that_fire_most_stay_and_their_rows_see_no_change(n_latents, more, k, rows, seed):
    k = min(k, n_latents)
    whole, x = trained_sae(n_latents + more, k, seed), embeddings(rows, seed)
    counts = dense_counts(whole, x)
    assert fired(whole, x.split(7)).tolist() == counts.tolist()
    config = SAEConfig(k=k, n_latents=n_latents)
    small = without_spares(whole, config, x.split(7))
    ranked = sorted(range(len(counts)), key=lambda at: (-counts[at], at))
    kept = sorted(ranked[:n_latents])
    assert small.n_latents == n_latents and len(small.network().dictionary) == n_latents
    assert torch.equal(small.dictionary, whole.dictionary[kept])
    assert not small.training and small.config.n_latents == n_latents
    before, after = whole.encode(x), small.encode(x)
    number = torch.full((n_latents + more + 1,), -1, dtype=torch.int32)  # the last: padding
    number[kept] = torch.arange(n_latents, dtype=torch.int32)
    same = torch.isin(before.code.indices, torch.tensor([-1, *kept])).all(dim=1)
    assert torch.equal(after.code.indices[same], number[before.code.indices.long()][same])
    assert torch.equal(after.code.values[same], before.code.values[same])
    assert torch.equal(small.decode(after)[same], whole.decode(before)[same])


def test_of_equals_the_first_stay():
    whole = trained_sae(8, 2, 0)
    with torch.no_grad():
        whole.encoder_bias.fill_(-100)  # nobody fires
    small = without_spares(whole, SAEConfig(k=2, n_latents=5), [embeddings(4)])
    assert torch.equal(small.encoder, whole.encoder[:5])


def test_counters_threshold_and_bias_go_along():
    whole = trained_sae(12, 2, 3, kind="batchtopk")
    whole.silent_for.copy_(torch.arange(12))
    whole.threshold.fill_(0.25)
    small = whole.reduced_to(
        torch.tensor([3, 7, 11]), SAEConfig(kind="batchtopk", k=2, n_latents=3)
    )
    assert small.silent_for.tolist() == [3, 7, 11] and float(small.threshold) == 0.25
    assert torch.equal(small.bias, whole.bias)
    assert torch.equal(small.encoder_bias, whole.encoder_bias[[3, 7, 11]])
    small.encoder.data.zero_()
    assert whole.encoder.abs().max() > 0  # a copy


def test_what_few_rows_are_given_and_never_as_published():
    def numbers(n_rows: int, sums: bool = True, **options) -> dict[str, float]:
        config = settled(SAEConfig(k=2, n_latents=100, **options), 8, n_rows, sums=sums)
        return {name: getattr(config, name) for name in FEW_ROWS}

    none = dict.fromkeys(FEW_ROWS, 0)
    assert numbers(1599) == FEW_ROWS and all(FEW_ROWS.values())
    assert numbers(1600) == none == numbers(10, compat="paper")
    assert numbers(1600, noise=0.1, spare=1.0) == none | {"noise": 0.1, "spare": 1.0}
    assert numbers(1599, noise=0.0, wake=False) == FEW_ROWS | {"noise": 0, "wake": False}
    assert numbers(10, kind="batchtopk") == FEW_ROWS | {"wide_loss": 0}
    others = FEW_ROWS | {"noise": 0, "wide_loss": 0}
    assert numbers(1599, sums=False) == others  # embeddings that are no sums of items
    assert numbers(10, sums=False, noise=0.2) == others | {"noise": 0.2}
    assert are_few(SAEConfig(), 8, 1023) and not are_few(SAEConfig(), 8, 1024)  # 8 d = 64
    config = settled(SAEConfig(k=2, spare=0.2), 8, 10, sums=True)
    assert (config.n_latents, with_spares(config).n_latents) == (64, 77)
    with pytest.raises(ValueError, match=r"k must be in \[1, n_latents=64\], got 70"):
        settled(SAEConfig(k=70), 8, 10, sums=True)  # though 96 are trained


def test_samplers_give_all_rows_as_they_are_in_order():
    array = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
    for step in (None, 4):
        sampler = ArraySampler(array, 4, seed=step or 0)
        assert np.array_equal(torch.cat(list(sampler.whole(4))).numpy(), array)
        assert sampler.n_rows == 10
    offsets, items = np.array([0, 2, 2, 5, 6]), np.array([0, 1, 1, 2, 3, 0], np.int32)

    def encode(rows):
        return torch.stack([rows.offsets.diff().float(), rows.items[rows.offsets[:-1]].float()], 1)

    sampler = EmbeddingSampler(encode, Rows(offsets, items), 2, seed=0, mixed=True)
    whole = torch.cat(list(sampler.whole(2)))
    assert whole.tolist() == [[2, 0], [3, 1], [1, 0]] and sampler.n_rows == 3  # no empty row


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "basic"])
def test_fit_sae_leaves_l_latents_and_those_that_fire_most(kind, monkeypatch):
    array = np.random.default_rng(1).standard_normal((200, D)).astype(np.float32)
    seen = []

    def watched(model, config, embeddings):
        seen.append(model)
        return without_spares(model, config, embeddings)

    monkeypatch.setattr(stages, "without_spares", watched)
    config = SAEConfig(kind=kind, k=2, n_latents=32, spare=0.5)
    training = TrainConfig(epochs=2, steps_per_epoch=20, batch_size=32, lr=0.01, patience=0)
    first, second = (fit_sae(array, None, config, training) for _ in range(2))
    assert (seen[0].n_latents, first.n_latents) == (48, 32) and not first.training
    assert all(torch.equal(first.state_dict()[name], one) for name, one in
               second.state_dict().items())  # fmt: skip
    counts = fired(seen[0], [torch.from_numpy(array)])
    where = (seen[0].dictionary[:, None] == first.dictionary).all(dim=2).any(dim=1)
    assert int(where.sum()) == 32 and counts[where].min() >= counts[~where].max()


def test_users_histories_are_counted_whole():
    """Of a CFAE's users the counted embeddings are those of their whole rows, as embed gives."""
    rng = np.random.default_rng(2)
    rows = Rows(np.arange(0, 301, 6), rng.integers(0, 30, 300).astype(np.int32))
    config = TrainConfig(epochs=1, batch_size=16, lr=0.02, patience=0)
    cfae = fit_cfae(rows, 30, CFAEConfig(d=D), config)
    sae, training = SAEConfig(k=2, n_latents=16), TrainConfig(epochs=1, lr=0.01, patience=0)
    small = fit_sae(cfae, rows, sae, training)
    whole = fit_sae(cfae, rows, SAEConfig(k=2, n_latents=24, spare=0), training)
    counts = fired(whole, [torch.from_numpy(stages.embed(cfae, rows))])
    kept = counts.argsort(descending=True, stable=True)[:16].sort().values
    assert torch.equal(small.dictionary, whole.dictionary[kept])
