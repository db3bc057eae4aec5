"""Floor 2: folded tables on disk, memory-mapped when read, so that server processes share pages.

Station: none of its own; it keeps what `FoldedTables` built for the stations.

A folder of .npy files and `folded.json`, which names the weights that the tables were made of:
tables of other weights are refused. Sizes are checked on reading, contents are not (that would read
every page); where the contents are in doubt, fold the model again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from cfsae_fast import io
from cfsae_fast.errors import ModelFormatError
from cfsae_fast.inference.cfae import CFAENetwork
from cfsae_fast.inference.folded import FoldedTables
from cfsae_fast.inference.sae import SAENetwork

DESCRIPTION = "folded.json"


def save_tables(tables: FoldedTables, path: str | os.PathLike, *, weights: str) -> Path:
    """Write the folder `path` whole, or leave what is there. weights: what they were made of."""
    path = Path(path)
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        arrays = tables.to_arrays()
        for name, array in arrays.items():
            np.save(fresh / f"{name}.npy", array, allow_pickle=False)
        io.write_json(fresh / DESCRIPTION, {"weights": weights, "arrays": sorted(arrays)})
        fresh.chmod(0o755)
        shutil.rmtree(path, ignore_errors=True)  # a process that mapped it keeps its pages
        os.rename(fresh, path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return path


def load_tables(
    path: str | os.PathLike, cfae: CFAENetwork, sae: SAENetwork, *, weights: str
) -> FoldedTables:
    """Map what `save_tables` wrote, read-only.

    Raises:
        ModelFormatError: damaged, or made of other weights.
    """
    path = Path(path)
    described = io.read_json(path / DESCRIPTION)
    if described.get("weights") != weights:
        raise ModelFormatError(
            f"{path} holds tables of other weights; delete it, or fold the model again"
        )
    arrays = {}
    for name in described.get("arrays", ()):
        try:
            mapped = np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ModelFormatError(
                f"{path / name}.npy is damaged ({error}); delete the folder, or fold again"
            ) from error
        arrays[name] = np.asarray(mapped)
    return FoldedTables.from_arrays(arrays, cfae, sae)
