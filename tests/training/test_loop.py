"""The loop: early stopping, the best epoch kept, schedules, records, errors."""

import json

import pytest
import torch
from torch import nn

from cfsae_fast.config import TrainConfig
from cfsae_fast.training import Validation, train
from cfsae_fast.training.checkpoints import RunFolder


class Walker(nn.Module):
    """Weight w falls by lr at every step (its gradient is 1 and Adam takes the sign)."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.order = []

    def loss(self, batch, *, generator, step):
        self.order += [f"loss {step}"]
        self.drawn = torch.rand(1, generator=generator).item()
        return self.weight.sum() * batch, {"loss": self.weight.detach().sum() * batch}

    def before_step(self):
        assert self.weight.grad is not None
        self.order += ["before"]

    def after_step(self):
        self.order += ["after"]


class Ones:
    steps_per_pass = 2

    def batch(self, step):
        return 1.0


def config(**options):
    return TrainConfig(**{"epochs": 6, "lr": 0.1, "patience": 0, "batch_size": 1} | options)


def test_runs_all_epochs_and_keeps_the_last_weights_without_validation():
    model = Walker()
    history = train(model, Ones(), config(patience=1))
    assert model.weight.item() == pytest.approx(-0.1 * 2 * 6)
    assert [one["epoch"] for one in history.records] == [1, 2, 3, 4, 5, 6]
    assert [one["step"] for one in history.records] == [2, 4, 6, 8, 10, 12]
    assert model.order[:6] == ["loss 0", "before", "after", "loss 1", "before", "after"]
    assert not model.training and history.best_epoch is None and not history.stopped_early
    assert history.records[0]["loss"] == pytest.approx(-0.05)  # mean of 0 and -0.1


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_stops_after_patience_epochs_and_restores_the_best(higher_is_better):
    model, sign = Walker(), 1 if higher_is_better else -1
    values = iter([0.1, 0.3, 0.3, 0.2, 0.9])  # an equal value is no improvement
    validation = Validation(lambda _: sign * next(values), "value", higher_is_better)
    history = train(model, Ones(), config(patience=2), validation=validation)
    assert history.stopped_early and len(history.records) == 4
    assert (history.best_epoch, history.best_value) == (2, sign * 0.3)
    assert model.weight.item() == pytest.approx(-0.1 * 2 * 2)
    assert [one["value"] for one in history.records] == [sign * v for v in (0.1, 0.3, 0.3, 0.2)]


def test_patience_zero_never_stops_but_keeps_the_best():
    model, values = Walker(), iter([0.1, 0.5, 0.2, 0.2, 0.2, 0.2])
    history = train(model, Ones(), config(), validation=Validation(lambda _: next(values)))
    assert len(history.records) == 6 and not history.stopped_early
    assert model.weight.item() == pytest.approx(-0.4)


def test_epochs_before_since_are_measured_and_neither_kept_nor_waited_for():
    model, values = Walker(), iter([0.9, 0.8, 0.1, 0.3, 0.2, 0.2])
    validation = Validation(lambda _: next(values), "value", since=5)  # two steps an epoch
    history = train(model, Ones(), config(patience=2), validation=validation)
    assert [one["value"] for one in history.records] == [0.9, 0.8, 0.1, 0.3, 0.2, 0.2]
    assert (history.best_epoch, history.best_value, history.stopped_early) == (4, 0.3, True)
    assert model.weight.item() == pytest.approx(-0.1 * 2 * 4)


def test_since_none_keeps_the_last():
    model, values = Walker(), iter([0.9, 0.1, 0.1, 0.1, 0.1, 0.1])
    validation = Validation(lambda _: next(values), since=None)
    history = train(model, Ones(), config(patience=2), validation=validation)
    assert len(history.records) == 6 and history.best_epoch is None and not history.stopped_early
    assert model.weight.item() == pytest.approx(-0.1 * 2 * 6)


def test_validation_sees_the_model_in_eval_mode_without_gradients():
    def measure(model):
        assert not model.training and not torch.is_grad_enabled()
        return 1.0

    train(Walker(), Ones(), config(), validation=Validation(measure))


def test_cosine_rate_falls_from_lr_to_nothing():
    history = train(Walker(), Ones(), config(lr_decay="cosine"))
    rates = [one["lr"] for one in history.records]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(0.1 * (1 + 0.9659258) / 2)  # the second of twelve steps
    assert rates[-1] < 0.002


def test_steps_per_epoch_overrides_a_pass():
    history = train(Walker(), Ones(), config(steps_per_epoch=5, epochs=2))
    assert history.records[-1]["step"] == 10


def test_divergence_and_undefined_validation_are_errors():
    class Broken(Walker):
        def loss(self, batch, *, generator, step):
            loss, logged = super().loss(batch, generator=generator, step=step)
            return loss, {"loss": logged["loss"] / 0}

    with pytest.raises(FloatingPointError, match="loss must stay finite.* in epoch 1; lower lr"):
        train(Broken(), Ones(), config())
    nowhere = Validation(lambda _: float("nan"), "ndcg@20")
    with pytest.raises(FloatingPointError, match="ndcg@20 must stay finite, got nan"):
        train(Walker(), Ones(), config(), validation=nowhere)


def test_metrics_are_one_json_line_per_epoch(tmp_path):
    seen = []
    history = train(
        Walker(), Ones(), config(), folder=RunFolder(tmp_path / "run", {}), on_epoch=seen.append
    )
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history.records == seen
    assert {"epoch", "step", "loss", "lr", "seconds"} <= set(history.records[0])
    assert not list((tmp_path / "run").rglob("*.pt"))


def test_resume_needs_a_folder():
    with pytest.raises(ValueError, match="resume must come with run_dir, got None"):
        train(Walker(), Ones(), config(), resume=True)
