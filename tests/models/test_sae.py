"""The SAE: gradients of AuxK, kinds, the paper's defect, and its training in miniature."""

import pytest
import torch

from cfsae_fast import ops
from cfsae_fast.config import SAEConfig
from cfsae_fast.models import make_sae
from cfsae_fast.ops import PADDING

D, K, BATCH = 12, 3, 40


def embeddings(count: int = BATCH, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def sae(**options):
    return make_sae(D, SAEConfig(**{"k": K, "n_latents": 24} | options), seed=5)


def loss_of(model, x):
    return model.loss(x, generator=torch.Generator().manual_seed(0), step=0)


def train(model, *, steps=150, lr=0.01, x=None):
    x = embeddings(400) if x is None else x
    model.start_from(x)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for step in range(steps):
        batch = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(step))[:BATCH]]
        loss, logged = loss_of(model, batch)
        optimizer.zero_grad()
        loss.backward()
        model.before_step()
        optimizer.step()
        model.after_step()
    return logged


def standardised(x):
    return (x - x.mean(dim=1, keepdim=True)) / (x.std(dim=1, keepdim=True) + 1e-7)


def dense_output(model, u):
    """u' and the activations, with everything dense."""
    pre = torch.relu((u - model.bias) @ model.encoder.T + model.encoder_bias)
    keep = torch.zeros_like(pre).scatter(1, pre.topk(model.config.k, dim=1).indices, 1.0)
    return (pre * keep) @ model.dictionary + model.bias, pre * keep


def test_starts_with_the_encoder_equal_to_a_unit_dictionary_and_the_bias_at_the_mean():
    model, x = sae(), embeddings()
    model.start_from(x)
    assert torch.equal(model.encoder, model.dictionary)
    torch.testing.assert_close(model.dictionary.norm(dim=1), torch.ones(24))
    torch.testing.assert_close(model.bias.detach(), standardised(x).mean(dim=0))


@pytest.mark.parametrize("loss", ["l2", "cosine"])
@pytest.mark.parametrize("standardize", [True, False])
def test_loss_and_gradients_are_the_dense_formula(loss, standardize):
    model, x = sae(loss=loss, standardize=standardize, l1=0.01), embeddings()
    model.start_from(x)
    u = standardised(x) if standardize else x
    output, activations = dense_output(model, u)
    if loss == "l2":
        distance = (output - u).square().mean()
    else:
        distance = (1 - torch.cosine_similarity(output, u, dim=1)).mean()
    want = distance + 0.01 * activations.sum(dim=1).mean()
    got, logged = loss_of(model, x)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(logged["distance"], distance.detach())
    names = ["encoder", "encoder_bias", "dictionary", "bias"]
    weights = [getattr(model, name) for name in names]
    for name, one, other in zip(
        names, torch.autograd.grad(got, weights), torch.autograd.grad(want, weights), strict=True
    ):
        assert other.abs().sum() > 0
        torch.testing.assert_close(one, other, msg=name)


def test_atoms_are_unit_after_every_step_and_gradients_are_tangent():
    model, x = sae(), embeddings()
    train(model, steps=5)
    torch.testing.assert_close(model.dictionary.norm(dim=1), torch.ones(24))
    loss, _ = loss_of(model, x)
    model.zero_grad()
    loss.backward()
    assert (model.dictionary.grad * model.dictionary).sum(dim=1).abs().max() > 1e-4
    model.before_step()
    assert (model.dictionary.grad * model.dictionary).sum(dim=1).abs().max() < 1e-6


def test_auxk_trains_dead_latents_only_and_leaves_the_reconstruction_alone():
    model, x = sae(aux_coefficient=1.0, dead_after=100), embeddings()
    dead = torch.tensor([2, 7, 11])
    model.silent_for[dead] = 100
    with torch.no_grad():
        model.encoder_bias[dead] = -1.0  # so that they take no part in the reconstruction
        output, _ = dense_output(model, standardised(x))
    residual = standardised(x) - output
    aux, count = model._aux(x, residual.requires_grad_())
    assert count == 3
    encoder, bias, dictionary = (
        one.detach().clone().requires_grad_()
        for one in (model.encoder, model.encoder_bias, model.dictionary)
    )
    u = standardised(x) - model.bias.detach()
    told = torch.relu(u @ encoder[dead].T + bias[dead]) @ dictionary[dead]  # no bias added
    want = (told - residual.detach()).square().mean() / residual.detach().square().mean()
    torch.testing.assert_close(aux, want)
    aux.backward()
    want.backward()
    alive = torch.ones(24, dtype=torch.bool).index_fill_(0, dead, False)
    for mine, dense in zip(
        (model.encoder, model.encoder_bias, model.dictionary),
        (encoder, bias, dictionary), strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(mine.grad, dense.grad)
        assert mine.grad[dead].abs().sum() > 0 and not mine.grad[alive].any()
    assert model.bias.grad is None


def test_the_loss_detaches_the_residual_that_auxk_explains():
    x = embeddings()
    with_aux, without = (sae(aux_coefficient=c, dead_after=100) for c in (1.0, 0.0))
    grads = []
    for model in (with_aux, without):
        model.silent_for[:4] = 100
        with torch.no_grad():
            model.encoder_bias[:4] = -1.0
        loss, logged = loss_of(model, x)
        loss.backward()
        grads.append([model.encoder.grad[4:], model.dictionary.grad[4:], model.bias.grad])
        assert logged["dead"] == 4
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)
    assert with_aux.encoder.grad[:4].any()


def test_latents_die_by_silence_and_auxk_revives_them():
    dead = {}
    for coefficient in (0.0, 1 / 4):
        model = sae(dead_after=400, aux_coefficient=coefficient)
        with torch.no_grad():
            model.encoder_bias[:12] = -2.0
        dead[coefficient] = train(model, steps=300)["dead"]
    assert dead[0.0] >= 8
    assert dead[1 / 4] <= 3


def test_silence_is_counted_in_samples_and_only_while_training():
    model, x = sae(), embeddings()
    with torch.no_grad():
        model.encoder_bias[[4, 9]] = -9.0
    loss_of(model, x)
    fired = torch.unique(model.encode(x).code.indices).long()
    fired = fired[fired != PADDING]
    silent = torch.ones(24, dtype=torch.bool).index_fill_(0, fired, False)
    assert silent[[4, 9]].all()
    assert (model.silent_for[fired] == 0).all() and (model.silent_for[silent] == BATCH).all()
    model.eval()
    loss_of(model, x)
    assert (model.silent_for[silent] == BATCH).all()


def test_batchtopk_keeps_k_per_row_on_average_in_training_and_by_its_threshold_later():
    model, x = sae(kind="batchtopk", n_latents=24), embeddings(400)
    assert model.width == 4 * K
    logged = train(model, steps=300)
    training_l0 = logged["l0"].item()
    model.eval()
    code = model.encode(x).code
    l0 = (code.indices != PADDING).sum(dim=1).float()
    assert training_l0 == pytest.approx(K, abs=1e-6)
    assert l0.mean().item() == pytest.approx(K, rel=0.15)
    assert l0.std() > 0.3  # rows differ: that is what batchtopk is for
    assert (code.values[code.indices != PADDING] > model.threshold).all()


def test_batchtopk_gradient_flows_through_kept_latents_only():
    model, x = sae(kind="batchtopk"), embeddings()
    code = model._encode_training(x).code
    assert (code.values > 0).sum() == K * BATCH
    pre = torch.relu((standardised(x) - model.bias) @ model.encoder.T + model.encoder_bias)
    cut = pre.flatten().topk(K * BATCH).values[-1]
    kept = torch.where(pre >= cut, pre, 0.0)
    assert ((pre >= cut).sum(dim=1) <= model.width).all()
    got, want = (
        torch.autograd.grad(one.square().sum(), model.encoder) for one in (code.values, kept)
    )
    torch.testing.assert_close(got, want)


def test_basic_keeps_every_positive_latent_and_l1_thins_them():
    x = embeddings()
    model = sae(kind="basic", k=999)
    code = model._encode_training(x).code
    pre = standardised(x) @ model.encoder.T
    assert (code.indices != PADDING).sum() == (pre > 0).sum()
    assert code.indices.shape[1] == (pre > 0).sum(dim=1).max()
    l0 = {l1: train(sae(kind="basic", l1=l1))["l0"] for l1 in (0.0, 0.1)}
    assert l0[0.1] < 0.6 * l0[0.0]


def test_compat_paper_compares_the_output_with_the_wrong_target():
    """By hand: one row, one atom. The corrected loss is 0 where the paper's is not."""
    x = torch.tensor([[1.0, 3.0]])  # mean 2, std sqrt 2: u = (-0.7071, 0.7071)
    root = 0.5**0.5
    losses = {}
    for compat in ("corrected", "paper"):
        model = make_sae(2, SAEConfig(k=1, n_latents=1, compat=compat), seed=0)
        with torch.no_grad():
            model.dictionary.copy_(torch.tensor([[-root, root]]))
            model.encoder.copy_(model.dictionary)
            model.bias.zero_()
        losses[compat] = loss_of(model, x)[0].item()
    # code = u . atom = 1, output u' = u; the paper compares 2 + sqrt(2) u = (1, 3) with u instead
    assert losses["corrected"] == pytest.approx(0.0, abs=1e-10)
    assert losses["paper"] == pytest.approx(((1 + root) ** 2 + (3 - root) ** 2) / 2, rel=1e-5)


def test_compat_paper_starts_untied_without_bias_or_auxk():
    model = sae(compat="paper", dead_after=1)
    model.start_from(embeddings())
    model.silent_for[:] = 5
    _, logged = loss_of(model, embeddings())
    assert not model.bias.any() and logged["aux"] == 0
    assert not torch.equal(model.encoder, model.dictionary)
    # METHOD.md 3.1: Kaiming-uniform of (d, L), whose fan is its second dimension
    assert 0.9 * (6 / 24) ** 0.5 < model.encoder.abs().max() <= (6 / 24) ** 0.5


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "basic"])
@pytest.mark.parametrize("compat", ["corrected", "paper"])
def test_nothing_changes_the_batch(kind, compat):
    model, x = sae(kind=kind, compat=compat), embeddings()
    before = x.clone()
    model.start_from(x)
    loss_of(model, x)[0].backward()
    model.decode(model.encode(x))
    assert torch.equal(x, before)


def test_training_recovers_planted_atoms():
    generator = torch.Generator().manual_seed(1)
    atoms = torch.nn.functional.normalize(torch.randn(16, D, generator=generator), dim=1)
    on = (torch.rand(800, 16, generator=generator) < 0.12).float()
    x = (on * (1 + torch.rand(800, 16, generator=generator))) @ atoms
    x = x[on.sum(dim=1) > 0]
    model = sae(standardize=False, n_latents=32, k=4, dead_after=2000)
    first = sae(standardize=False, n_latents=32, k=4)
    first.start_from(x)
    start = loss_of(first, x)[0].item()
    end = train(model, steps=500, x=x)["distance"].item()
    assert end < 0.2 * start
    closest = (atoms @ model.dictionary.detach().T).max(dim=1).values
    assert (closest > 0.9).float().mean() > 0.7


def test_k_above_the_number_of_latents_is_an_error():
    with pytest.raises(ValueError, match=r"k must be in \[1, n_latents=96\], got 97"):
        make_sae(D, SAEConfig(k=97))


def test_decode_puts_mean_and_std_back():
    model, x = sae(), embeddings()
    model.start_from(x)
    u, _ = dense_output(model, standardised(x))
    want = x.mean(dim=1, keepdim=True) + x.std(dim=1, keepdim=True) * u
    torch.testing.assert_close(model.decode(model.encode(x)), want)
    bare = ops.sparse_decode(model.encode(x).code, model.dictionary, model.bias)
    torch.testing.assert_close(bare, u)


def test_wide_loss_adds_the_distance_of_four_k_by_hand():
    x, model = embeddings(), sae(wide_loss=0.125, aux_coefficient=0.0)
    model.start_from(x)
    with torch.no_grad():
        model.encoder_bias.normal_(generator=torch.Generator().manual_seed(1))
    u = standardised(x)
    narrow, _ = dense_output(model, u)
    model.config = SAEConfig(k=4 * K, n_latents=24)
    wide, _ = dense_output(model, u)
    model.config = SAEConfig(k=K, n_latents=24, wide_loss=0.125, aux_coefficient=0.0)
    want = (narrow - u).square().mean() + 0.125 * (wide - u).square().mean()
    loss, logged = loss_of(model, x)
    torch.testing.assert_close(loss, want)
    assert float(logged["l0"]) == K  # the narrow code is watched
    expected = torch.autograd.grad(want, list(model.parameters()))
    for one, other in zip(torch.autograd.grad(loss, list(model.parameters())), expected,
                          strict=True):  # fmt: skip
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    assert model.eval().encode(x).code.indices.shape[1] == K == model.network().width
    everything = sae(wide_loss=0.1, k=20)  # 4 k is more than there are
    assert torch.isfinite(loss_of(everything, x)[0])


def test_wide_loss_goes_with_topk_alone():
    for options in ({"kind": "batchtopk"}, {"kind": "basic"}, {"compat": "paper"}):
        with pytest.raises(ValueError, match="wide_loss must be None or 0 with (kind|compat)"):
            SAEConfig(wide_loss=0.1, **options)
    for wrong in (-0.1, float("nan")):
        with pytest.raises(ValueError, match=r"wide_loss must be None or in \[0, inf\], got"):
            SAEConfig(wide_loss=wrong)


def test_wide_loss_falls_to_nothing_over_the_steps_it_is_given():
    x, model = embeddings(), sae(wide_loss=0.5, aux_coefficient=0.0)
    plain, model.wide_until = sae(aux_coefficient=0.0), 40

    def loss(one, step):
        return one.loss(x, generator=torch.Generator(), step=step)[0].item()

    base = loss(plain, 0)
    whole = loss(model, 0) - base
    assert whole > 0.01 and model.wide_weight(0) == 0.5 and model.wide_weight(10) == 0.375
    assert loss(model, 10) - base == pytest.approx(0.75 * whole, rel=1e-4)
    assert loss(model, 40) == loss(model, 1000) == base
    assert model.eval().wide_weight(0) == 0 and loss(model, 0) == loss(plain.eval(), 0)


@pytest.mark.parametrize("standardize", [True, False])
def test_noise_is_what_the_encoder_sees_and_no_part_of_the_target(standardize):
    x, model = embeddings(), sae(noise=0.5, aux_coefficient=0.0, standardize=standardize)

    def loss(seed):
        return model.loss(x, generator=torch.Generator().manual_seed(seed), step=0)[0].item()

    drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
    seen = x + 0.5 * x.std(dim=1, keepdim=True) * drawn
    u, target = (standardised(one) if standardize else one for one in (seen, x))
    expected = (dense_output(model, u)[0] - target).square().mean().item()
    assert loss(7) == pytest.approx(expected, rel=1e-5)
    assert loss(7) == loss(7) != loss(8)
    model.eval()
    u = standardised(x) if standardize else x
    calm = (dense_output(model, u)[0] - u).square().mean().item()
    assert loss(7) == loss(8) == pytest.approx(calm, rel=1e-5)


@pytest.mark.parametrize("name", ["wide_loss", "noise", "spare"])
def test_what_few_rows_are_given_is_not_of_the_published_kind(name):
    with pytest.raises(ValueError, match=f"{name} must be None or 0 with compat 'paper', got 0.5"):
        SAEConfig(compat="paper", **{name: 0.5})
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=rf"{name} must be None or in \[0, "):
            SAEConfig(**{name: wrong})
