"""Floor 6: trains what a cell needs, and keeps what neighbouring cells share.

Station: interactions -> CFAE -> SAE -> labels, from checkpoints where there are some.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from cfsae_fast.config import TrainConfig
from cfsae_fast.data import Filters, MinItemInteractions, MinUserInteractions, MinValue, load
from cfsae_fast.errors import require_extra
from cfsae_fast.evaluation.experiments.cells import Cell, Grid
from cfsae_fast.evaluation.protocol import Protocol, prepare
from cfsae_fast.recommender import Fitted
from cfsae_fast.recommender.labelling import label


class Bench:
    """Keeps the last data set, CFAE and embeddings: neighbouring cells share them."""

    def __init__(self, grid: Grid, folder: Path, progress: bool) -> None:
        self.grid, self.folder, self.progress = grid, folder, progress
        self._cut: tuple[Any, Protocol] | None = None
        self._base: tuple[Any, Any] | None = None

    def cut(self, cell: Cell) -> Protocol:
        at = (cell.data, cell.seed, cell.compat)
        if self._cut is None or self._cut[0] != at:
            steps = _filters(self.grid.filters)
            dataset = load(cell.data, tags="both")
            how = {"seed": cell.seed, "min_tag": self.grid.min_tag, "compat": cell.compat}
            found = prepare(dataset, filters=steps, **how)
            self._cut = at, found
        return self._cut[1]

    def base(self, cell: Cell) -> Any:
        """The cell's CFAE, trained, or read from its checkpoint."""
        require_extra("torch", extra="train", purpose="running experiments")
        from cfsae_fast import training

        if self._base is None or self._base[0] != cell.base:
            cut, (config, _) = self.cut(cell), self.grid.training(cell)
            found = training.fit_cfae(
                cut.train.rows(), cut.train.n_items, self.grid.cfae(cell, cut.train.n_items),
                config, validation=self._held(cut, config),
                run_dir=self._runs(cell) / "cfae", resume=True, progress=self.progress,
            )  # fmt: skip
            self._base = cell.base, found
        return self._base[1]

    def fitted(self, cell: Cell, *, labelled: bool = True) -> tuple[Fitted, Protocol]:
        """The cell's recommender, with labels if `labelled`, and the data that it is judged on."""
        from cfsae_fast import training
        from cfsae_fast.training import stages

        cut, module = self.cut(cell), self.base(cell)
        sae, config = self.grid.sae(cell), self.grid.training(cell)[1]
        source, rows, held = module, cut.train.rows(), self._held(cut, config)
        users = int(np.count_nonzero(np.diff(rows.offsets)))
        if config.monitor == "loss" and stages.histories_of(sae, module.d, users) == "full":
            source, rows = self._embedded(cell, "train"), None
            held = self._embedded(cell, "held") if config.patience else None
        trained = training.fit_sae(
            source, rows, sae, config, validation=held,
            run_dir=self._runs(cell) / f"sae-{self.grid.key(cell)}", resume=True,
            progress=self.progress,
        )  # fmt: skip
        networks = module.network(), trained.network()
        return assembled(cut, *networks, labelled=labelled), cut

    def _embedded(self, cell: Cell, which: str) -> np.ndarray:
        """Embeddings of the training or of the validation users' whole rows: one file on disk,
        mapped by every cell and by every worker, so that memory holds it once."""
        from cfsae_fast import training

        path = self._runs(cell) / f"{which}.npy"
        if not path.exists():
            cut = self.cut(cell)
            users = cut.split.train if which == "train" else cut.split.val
            rows = cut.dataset.interactions.select_users(users).rows()
            used = rows.take(np.flatnonzero(np.diff(rows.offsets)))
            part = path.with_suffix(f".{os.getpid()}.part.npy")
            np.save(part, training.embed(self.base(cell), used))
            part.replace(path)
        return np.load(path, mmap_mode="r")

    def _held(self, cut: Protocol, config: TrainConfig) -> Any:
        """Validation users, with whole rows where the loss is watched; nobody where training does
        not stop early by the loss, and so the last epoch counts."""
        from cfsae_fast import training

        inputs, targets = cut.validation.inputs, cut.validation.targets
        keep = np.flatnonzero(targets.counts_per_user() > 0)
        if config.monitor == "loss":
            if not config.patience:
                return None
            inputs = cut.dataset.interactions.select_users(cut.split.val)
        return training.HeldOut(inputs.rows(keep), targets.rows(keep))

    def _runs(self, cell: Cell) -> Path:
        return self.folder / "runs" / self.grid.base_key(cell)


def assembled(cut: Protocol, cfae: Any, sae: Any, *, labelled: bool) -> Fitted:
    """A recommender of two trained networks over the cut's training users."""
    embedding = cfae.encode(cut.train.rows())
    fitted = Fitted(
        cfae=cfae,
        sae=sae,
        user_ids=cut.train.user_ids,
        item_ids=cut.train.item_ids,
        histories=cut.train.rows(),
        cold=embedding.mean(axis=0, dtype=np.float64).astype(np.float32),
        titles=None if cut.dataset.titles is None else np.array(cut.dataset.titles),
    )
    if not labelled or cut.tags is None:
        return fitted
    return label(fitted, cut.tags, with_toward=False)


def _filters(settings: dict[str, Any]) -> Filters:
    kinds = {
        "min_value": MinValue,
        "min_item": MinItemInteractions,
        "min_user": MinUserInteractions,
    }
    unknown = sorted(set(settings) - set(kinds))
    if unknown:
        raise ValueError(f"filters must be among {list(kinds)}, got unknown {unknown}")
    return Filters(*(kind(settings[name]) for name, kind in kinds.items() if name in settings))
