"""Floor 4: one training loop for both stages.

Station: interactions -> CFAE, embeddings -> SAE; never part of serving. Every random number is a
function of (seed, step), so a resumed run ends with the weights of an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cfsae_fast.config import TrainConfig
from cfsae_fast.ops.settings import one_pool
from cfsae_fast.training.adam import AdamW
from cfsae_fast.training.checkpoints import Progress, RunFolder
from cfsae_fast.training.memory import kept_memory
from cfsae_fast.training.precision import products
from cfsae_fast.training.progress import Report, progress_bar
from cfsae_fast.training.randomness import torch_generator
from cfsae_fast.training.samplers import Sampler


class Trainable(Protocol):
    """What the loop asks of a model, besides being an nn.Module."""

    def loss(
        self, batch: Any, *, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]: ...
    def before_step(self) -> None: ...
    def after_step(self) -> None: ...


@dataclass(frozen=True)
class Validation:
    """What is measured after each epoch: value = measure(model), logged under `name`.

    since: steps before which an epoch is measured and no more; of those that end later the best
    one's weights are kept, and they may stop early. None: the last epoch's weights are kept.
    """

    measure: Callable[[Any], float]
    name: str = "validation"
    higher_is_better: bool = True
    since: float | None = 0


@dataclass(frozen=True)
class History:
    """What a run did: one record per epoch, and which epoch's weights were kept."""

    records: list[dict[str, Any]]
    best_epoch: int | None
    best_value: float | None
    stopped_early: bool


def train(
    model: nn.Module,
    sampler: Sampler,
    config: TrainConfig,
    *,
    validation: Validation | None = None,
    folder: RunFolder | None = None,
    resume: bool = False,
    show_progress: bool = False,
    title: str = "training",
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> History:
    """Train `model` (in place) and leave it with the best epoch's weights, in eval mode.

    Without validation, or where it keeps none, all epochs run and the last weights stay. folder:
    where every epoch leaves a checkpoint and a line of metrics.jsonl; resume goes on from there (or
    starts, if there is none). on_epoch gets each epoch's record as it is written.

    Raises:
        FloatingPointError: the loss or the validation value is not finite.
        ValueError: resume was asked for without a folder, or of a run with other settings.
    """
    if resume and folder is None:
        raise ValueError("resume must come with run_dir, got None; pass the run's folder")
    run = _Run(model, sampler, config, validation, folder)
    run.start(resume)
    total = config.epochs * run.steps_per_epoch
    shown = progress_bar(title, total=total, show=show_progress)
    with kept_memory(), one_pool(), shown as report:
        while run.goes_on():
            record = run.epoch(report)
            if on_epoch is not None:
                on_epoch(record)
    run.optimizer.zero_grad()
    if run.best is not None:
        model.load_state_dict(run.best)
    model.eval()
    done = run.progress
    return History(done.records, done.best_epoch, done.best_value, done.stopped_early)


class _Run:
    def __init__(
        self,
        model: Trainable,
        sampler: Sampler,
        config: TrainConfig,
        validation: Validation | None,
        folder: RunFolder | None,
    ) -> None:
        self.model, self.sampler, self.config = model.to(config.device), sampler, config
        self.validation, self.folder = validation, folder
        self.steps_per_epoch = config.steps_per_epoch or sampler.steps_per_pass
        self.optimizer = AdamW(
            model.parameters(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
        )
        self.progress, self.best = Progress(), None

    def start(self, resume: bool) -> None:
        found = self.folder.read(self.model, self.optimizer) if resume else None
        if found is not None:
            self.progress, self.best = found
        elif self.folder is not None:
            self.folder.start_anew()

    def goes_on(self) -> bool:
        return self.progress.epoch < self.config.epochs and not self.progress.stopped_early

    def epoch(self, report: Report) -> dict[str, Any]:
        started, progress = time.perf_counter(), self.progress
        self.model.train()
        sums: dict[str, Tensor] = {}
        for _ in range(self.steps_per_epoch):
            for name, value in self._step(progress.step).items():
                sums[name] = sums[name] + value if name in sums else value
            progress.step += 1
            report(progress.step, _describe(progress))
        progress.epoch += 1
        means = {name: float(total) / self.steps_per_epoch for name, total in sums.items()}
        record = {"epoch": progress.epoch, "step": progress.step, **means}
        self._check_finite("loss", means["loss"])
        if self.validation is not None:
            record[self.validation.name] = self._validate()
        record["lr"] = self._lr(progress.step - 1)
        record["seconds"] = round(time.perf_counter() - started, 3)
        progress.records.append(record)
        if self.folder is not None:
            self.folder.write(self.model, self.optimizer, progress, self.best)
        return record

    def _step(self, step: int) -> dict[str, Tensor]:
        self.optimizer.lr = self._lr(step)
        batch = self.sampler.batch(step)
        with products(self.config):
            loss, logged = self.model.loss(
                batch, generator=torch_generator(self.config.seed, step), step=step
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.model.before_step()
        self.optimizer.step()
        self.model.after_step()
        return logged

    def _lr(self, step: int) -> float:
        if self.config.lr_decay == "constant":
            return self.config.lr
        share = step / (self.config.epochs * self.steps_per_epoch)
        return self.config.lr * (1 + math.cos(math.pi * share)) / 2

    def _validate(self) -> float:
        self.model.eval()
        with torch.no_grad():
            value = float(self.validation.measure(self.model))
        self._check_finite(self.validation.name, value)
        progress, since = self.progress, self.validation.since
        if since is None or progress.step < since:
            return value
        sign = 1 if self.validation.higher_is_better else -1
        if progress.best_value is None or sign * value > sign * progress.best_value:
            progress.best_value, progress.best_epoch = value, progress.epoch
            self.best = {name: one.clone() for name, one in self.model.state_dict().items()}
        waited = progress.epoch - progress.best_epoch
        progress.stopped_early = bool(self.config.patience) and waited >= self.config.patience
        return value

    def _check_finite(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{name} must stay finite, got {value} in epoch {self.progress.epoch}; "
                f"lower lr (now {self.config.lr}) or check the data"
            )


def _describe(progress: Progress) -> str:
    if not progress.records:
        return f"epoch {progress.epoch + 1}"
    last = progress.records[-1]
    shown = {key: value for key, value in last.items() if key not in ("epoch", "step", "seconds")}
    parts = [
        f"{key} {value:.4g}" for key, value in list(shown.items())[:1] + list(shown.items())[-2:-1]
    ]
    return f"epoch {progress.epoch + 1}, last: " + ", ".join(parts)
