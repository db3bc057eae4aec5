"""Both stages end to end on planted tastes: learning, determinism, bad input."""

import numpy as np
import pytest
import torch

from cfsae_fast.config import CFAEConfig, SAEConfig, TrainConfig
from cfsae_fast.models import CFAES
from cfsae_fast.ops import Rows
from cfsae_fast.training import HeldOut, embed, fit_cfae, fit_sae, ndcg_of, stages
from cfsae_fast.training.samplers import ArraySampler, EmbeddingSampler
from cfsae_fast.training.stages import histories_of

N_ITEMS, TASTES, USERS = 60, 6, 240


def planted(seed: int, users: int = USERS) -> list[np.ndarray]:
    """Each user takes 7 of the 10 items of one taste and 2 of another's."""
    rng = np.random.default_rng(seed)
    by_taste = rng.permutation(np.arange(N_ITEMS)).reshape(TASTES, -1)
    by_taste = np.arange(N_ITEMS).reshape(TASTES, -1)
    out = []
    for _ in range(users):
        one, other = rng.choice(TASTES, size=2, replace=False)
        out.append(
            np.concatenate(
                [rng.permutation(by_taste[one])[:7], rng.permutation(by_taste[other])[:2]]
            )
        )
    return out


def rows_of(histories) -> Rows:
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in histories])]).astype(np.int64)
    return Rows(offsets, np.concatenate(histories).astype(np.int32))


def held_out(seed: int = 9) -> HeldOut:
    histories = planted(seed, users=40)
    return HeldOut(rows_of([one[2:] for one in histories]), rows_of([one[:2] for one in histories]))


ROWS = rows_of(planted(0))


def quick_cfae(model: str = "elsa", **options):
    config = CFAEConfig(model=model, d=12, hidden=24, dropout=0.3)
    training = TrainConfig(**{"epochs": 8, "batch_size": 32, "lr": 0.02, "patience": 0} | options)
    return config, training


def quick_sae(**options):
    training = TrainConfig(epochs=4, steps_per_epoch=60, batch_size=32, lr=0.01, patience=0)
    return SAEConfig(**{"k": 3, "n_latents": 24, "dead_after": 2000} | options), training


@pytest.fixture(scope="module")
def elsa():
    return fit_cfae(ROWS, N_ITEMS, *quick_cfae(), validation=held_out())


@pytest.mark.parametrize("model", sorted(CFAES))
def test_cfae_finds_the_tastes(model):
    records = []
    config, training = quick_cfae(model)
    cfae = fit_cfae(ROWS, N_ITEMS, config, training, validation=held_out(), on_epoch=records.append)
    best = max(one["ndcg@20"] for one in records)
    assert best > 0.6  # 2 targets among the 3 unseen items of the taste, of 60
    assert ndcg_of(cfae, held_out()) == pytest.approx(best)
    assert not cfae.training


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "basic"])
def test_sae_keeps_what_the_cfae_knows(elsa, kind):
    records = []
    sae = fit_sae(elsa, ROWS, *quick_sae(kind=kind), validation=held_out(), on_epoch=records.append)
    assert records[-1]["ndcg@20"] > 0.9 * ndcg_of(elsa, held_out())
    assert records[-1]["distance"] < 0.5 * records[0]["distance"] or records[0]["distance"] < 0.1
    x = torch.from_numpy(embed(elsa, ROWS))
    with torch.no_grad():
        error = (sae.decode(sae.encode(x)) - x).square().sum() / (x - x.mean(0)).square().sum()
    assert error < 0.4


@pytest.mark.parametrize("loss", ["l2", "cosine"])
def test_sae_fits_any_matrix(loss):
    array = np.random.default_rng(0).standard_normal((300, 6)).astype(np.float64)
    records = []
    config, _ = quick_sae(loss=loss)
    training = TrainConfig(epochs=3, steps_per_epoch=15, batch_size=32, lr=0.003)
    sae = fit_sae(
        array, None, config, training, validation=array[:50] + 0.01, on_epoch=records.append
    )
    assert sae.d == 6 and records[-1]["validation_loss"] < records[0]["validation_loss"]
    from_tensor = fit_sae(torch.from_numpy(array), None, config, training)
    last = fit_sae(array, None, config, training)
    assert torch.equal(from_tensor.encoder, last.encoder)


def test_loss_can_be_monitored_instead():
    config, training = quick_cfae(monitor="loss")
    records = []
    cfae = fit_cfae(ROWS, N_ITEMS, config, training, validation=held_out(), on_epoch=records.append)
    assert records[-1]["validation_loss"] < records[0]["validation_loss"]
    sae_config, _ = quick_sae()
    fit_sae(cfae, ROWS, sae_config, training, validation=held_out(), on_epoch=records.append)
    assert "validation_loss" in records[-1] and "ndcg@20" not in records[-1]


@pytest.mark.parametrize("model", ["elsa", "multvae"])
def test_same_seed_same_weights(model):
    config, training = quick_cfae(model, epochs=2)
    other = TrainConfig(**{**vars(training), "seed": 7})
    first, second, third = (
        fit_cfae(ROWS, N_ITEMS, config, one) for one in (training, training, other)
    )
    states = [one.state_dict() for one in (first, second, third)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(first.items, third.items)
    saes = [fit_sae(first, ROWS, *quick_sae()) for _ in range(2)]
    assert torch.equal(saes[0].encoder, saes[1].encoder)


def test_training_leaves_the_cfae_frozen_and_the_global_generator_alone(elsa):
    before, state = elsa.items.detach().clone(), torch.get_rng_state()
    fit_sae(elsa, ROWS, *quick_sae())
    assert torch.equal(elsa.items, before) and elsa.directions.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_histories_follow_the_number_of_users(elsa, monkeypatch):
    config = SAEConfig(n_latents=100)
    assert histories_of(config, 8, 1599) == "mixed" and histories_of(config, 8, 1600) == "full"
    assert histories_of(SAEConfig(), 8, 16 * 64 - 1) == "mixed"
    assert histories_of(SAEConfig(), 8, 1024) == "full"
    used = []
    for kind in (EmbeddingSampler, ArraySampler):
        real = kind.batch
        monkeypatch.setattr(
            kind, "batch",
            lambda self, step, real=real: used.append(type(self)) or real(self, step),
        )  # fmt: skip
    expected = {"part": EmbeddingSampler, "mixed": EmbeddingSampler, "full": ArraySampler}
    for histories, sampler in expected.items():
        used.clear()
        fit_sae(elsa, ROWS, *quick_sae(histories=histories))
        assert set(used) == {sampler}


def test_users_without_interactions_are_skipped():
    gaps = Rows(np.repeat(ROWS.offsets, 2)[: 2 * USERS], ROWS.items[: ROWS.offsets[USERS - 1]])
    config, training = quick_cfae(epochs=1)
    fit_sae(fit_cfae(gaps, N_ITEMS, config, training), gaps, *quick_sae())


@pytest.mark.parametrize(
    "rows, words",
    [
        (Rows(np.array([0]), np.zeros(0, np.int32)), "at least one row"),
        (Rows(np.array([0, 0]), np.zeros(0, np.int32)), "at least one interaction"),
        (Rows(np.array([0, 1]), np.array([60], np.int32)), r"items in \[0, n_items=60\), got 60"),
        (Rows(np.array([0, 1]), np.array([-1], np.int32)), r"items in \[0, n_items=60\), got -1"),
        (
            Rows(np.array([0, 1]), np.array([1], np.int32), np.array([np.nan], np.float32)),
            "finite values, got nan at entry 0",
        ),
    ],
)
def test_bad_rows_are_refused(rows, words):
    with pytest.raises(ValueError, match=words):
        fit_cfae(rows, N_ITEMS, *quick_cfae())


def broken(value: float) -> np.ndarray:
    array = np.ones((5, 4), np.float32)
    array[3, 1] = value
    return array


@pytest.mark.parametrize(
    "source, words",
    [
        (broken(np.nan), "finite float32 numbers, got nan in row 3"),
        (broken(np.inf), "finite float32 numbers, got inf in row 3"),
        (np.full((2, 4), 1e300), "finite float32 numbers, got inf in row 0"),
        (np.zeros((0, 4), np.float32), r"matrix of embeddings \(n, d\).*\(0, 4\)"),
        (np.zeros(4, np.float32), r"matrix of embeddings \(n, d\).*\(4,\)"),
        (np.array([["a"]]), "of numbers"),
    ],
)
def test_bad_embeddings_are_refused(source, words):
    with pytest.raises(ValueError, match=words):
        fit_sae(source, None, *quick_sae())


def test_a_cfae_with_broken_weights_is_refused(elsa):
    cfae = fit_cfae(ROWS, N_ITEMS, *quick_cfae(epochs=1))
    with torch.no_grad():
        cfae.directions[:] = float("nan")
    for histories in ("part", "full"):
        with pytest.raises(ValueError, match="finite float32 numbers, got nan in row 0"):
            fit_sae(cfae, ROWS, *quick_sae(histories=histories))


def test_arguments_that_do_not_go_together(elsa):
    array = np.ones((5, 4), np.float32)
    with pytest.raises(ValueError, match="rows must come with a CFAE, got None"):
        fit_sae(elsa)
    with pytest.raises(ValueError, match="rows must be None where source is a matrix"):
        fit_sae(array, ROWS)
    with pytest.raises(ValueError, match=r"k must be in \[1, n_latents=16\], got 17"):
        fit_sae(np.ones((5, 2), np.float32), None, SAEConfig(k=17))
    with pytest.raises(ValueError, match=r"validation must be a matrix of embeddings \(n, 4\)"):
        fit_sae(array, None, *quick_sae(), validation=array[:, :2])


def test_one_and_the_same_embedding_does_not_break_it():
    sae = fit_sae(np.ones((5, 4), np.float32), None, *quick_sae())
    assert all(torch.isfinite(one).all() for one in sae.parameters())


def test_an_sae_keeps_its_last_epoch_or_the_best_once_the_loss_of_four_k_has_fallen(monkeypatch):
    """Its early epochs do well at validation with latents that fire beyond the first k alone."""
    found = []

    def watched(model, sampler, config, *, validation, **options):
        found.append((validation.since, model.wide_until))

    monkeypatch.setattr(stages, "train", watched)
    array = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    for patience, wide_loss in ((0, 0.25), (3, 0.25), (3, 0.0)):
        config = SAEConfig(k=2, n_latents=8, wide_loss=wide_loss)
        training = TrainConfig(epochs=10, steps_per_epoch=4, patience=patience)
        fit_sae(array, None, config, training, validation=array)
    falls = stages.WIDE_SHARE * 40
    assert found == [(None, falls), (falls, falls), (0, np.inf)]
