"""Floor 4: what a training run leaves on disk after every epoch, to go on bit for bit.

A checkpoint is one directory (safetensors + JSON, no pickle), exchanged in one step: a kill at any
moment leaves the last whole one. metrics.jsonl holds one line per epoch and is brought in line with
the checkpoint on resume.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cfsae_fast import io
from cfsae_fast.training.adam import AdamW

KIND = "checkpoint"


@dataclass
class Progress:
    """Where a run stands. Values are of the validation; records are the lines of metrics.jsonl."""

    epoch: int = 0
    step: int = 0
    best_value: float | None = None
    best_epoch: int | None = None
    stopped_early: bool = False
    records: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class RunFolder:
    """The folder of one run: checkpoint/ and metrics.jsonl.

    fingerprint: what must be equal for a resumed run to mean the same run (configs, digests).
    """

    path: Path
    fingerprint: dict[str, Any]

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def write(
        self,
        model: nn.Module,
        optimizer: AdamW,
        progress: Progress,
        best: dict[str, Tensor] | None,
    ) -> None:
        """Save the epoch just ended; `best` only where it is not the model as it is now."""
        files: dict[str, Any] = {
            "state.json": {"fingerprint": self.fingerprint, **vars(progress)},
            "model.safetensors": to_arrays(model.state_dict()),
            "optimizer.safetensors": to_arrays(optimizer.state()),
        }
        if best is not None and progress.best_epoch != progress.epoch:
            files["best.safetensors"] = to_arrays(best)
        io.write_directory(self.checkpoint, files, kind=KIND)
        self._write_metrics(progress.records[-1:], "a")

    def read(
        self, model: nn.Module, optimizer: AdamW
    ) -> tuple[Progress, dict[str, Tensor] | None] | None:
        """Put model and optimiser where the checkpoint stands; None if there is none yet.

        Raises:
            ModelFormatError: the checkpoint is damaged.
            ValueError: it belongs to a run with other settings or data.
        """
        if not io.is_directory_of(self.checkpoint, kind=KIND):
            return None
        files = io.read_directory(self.checkpoint, kind=KIND)
        state = files["state.json"]
        self._check_same_run(state.pop("fingerprint"))
        progress = Progress(**state)
        model.load_state_dict(to_state(files["model.safetensors"]))
        optimizer.load(to_state(files["optimizer.safetensors"]))
        best = files.get("best.safetensors")
        if best is None and progress.best_epoch is not None:
            best = files["model.safetensors"]
        self._write_metrics(progress.records, "w")
        return progress, None if best is None else to_state(best)

    def start_anew(self) -> None:
        """Make the folder, and drop the metrics of an earlier run in it."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._write_metrics([], "w")

    def _check_same_run(self, saved: dict[str, Any]) -> None:
        now = json.loads(json.dumps(self.fingerprint))
        different = sorted(key for key in {*saved, *now} if saved.get(key) != now.get(key, None))
        if different:
            listed = ", ".join(f"{key}: {saved.get(key)!r} then, {now.get(key)!r} now"
                               for key in different)  # fmt: skip
            raise ValueError(
                f"resume must go on with the run in {self.path}, got other settings or data "
                f"({listed}); pass those of the run, or resume=False to start anew"
            )

    def _write_metrics(self, records: list[dict[str, Any]], mode: str) -> None:
        with open(self.metrics, mode, encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)


def to_arrays(state: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """A state dict as numpy arrays."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}


def to_state(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Inverse of `to_arrays`; the tensors own their memory."""
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
