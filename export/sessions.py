"""Room 3: opening an exported model in onnxruntime, and a request as its inputs.

Station: history and knobs, on their way into the graph.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import cfsae_fast
from cfsae_fast import steering
from cfsae_fast.errors import require_extra
from cfsae_fast.export.files import manifest_path, read_manifest
from cfsae_fast.export.functions import ADD_RELATIVE
from cfsae_fast.ids import Id
from cfsae_fast.recommender import SteerableRecommender, inputs, pipeline, probing
from cfsae_fast.recommender.fitted import Fitted

LIBRARY = "libcfsae_ort.so"
_ERRORS_ALONE = 3  # onnxruntime would warn of every input that has a default


def custom_ops_path() -> Path:
    """The library for `SessionOptions.register_custom_ops_library`: the engine's kernels.

    Raises:
        FileNotFoundError: the package was built without it.
    """
    path = Path(cfsae_fast.__file__).with_name(LIBRARY)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; build the package again")
    return path


def open_session(
    path: str | os.PathLike, *, custom_ops: bool = True, threads: int = 0, verify: bool = True
) -> Any:
    """An onnxruntime.InferenceSession of an exported model.

    custom_ops: run the engine's kernels instead of standard ops. threads: of the session's pool, 0
    for onnxruntime's choice. verify: compare checksums with the manifest first.

    Raises:
        ModelFormatError: the manifest is missing, or a file is not what was exported.
        MissingExtraError: onnxruntime is not installed (extra "onnx").
    """
    runtime = require_extra("onnxruntime", extra="onnx", purpose="running an exported model")
    if verify or manifest_path(path).exists():
        read_manifest(path, verify=verify)
    options = runtime.SessionOptions()
    options.log_severity_level = _ERRORS_ALONE
    options.intra_op_num_threads = threads
    if custom_ops:
        options.register_custom_ops_library(str(custom_ops_path()))
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feeds(
    recommender: SteerableRecommender | Fitted,
    histories: Sequence[Sequence[Id]],
    *,
    n: int = 10,
    steer: Any = None,
    deny: Sequence[Id] = (),
) -> dict[str, np.ndarray]:
    """A request of external ids and wishes as the graph's inputs, all of them.

    histories: lists of item ids; steer: as in `SteerableRecommender.recommend`, one wish for all or
    a list with one for each. `toward` becomes plain adds (kind 3), as far as each history's own
    embedding is to go: whose knobs they are, no other history may have.

    Raises:
        UnknownIdError, UnknownConceptError, ValueError: naming the argument.
    """
    fitted = recommender if isinstance(recommender, Fitted) else recommender.fitted
    positions = [fitted.item_ids.index(list(history)) for history in histories]
    wishes = steering.per_row(steer, len(positions))
    resolved = [fitted.resolved(wish) for wish in wishes]
    kinds = [np.where(row.relative, ADD_RELATIVE, row.kinds) for row in resolved]
    pulls = [1.0] * len(resolved)
    if any(row.is_pulled for row in resolved):
        request = inputs.of_histories(
            [list(one) for one in histories], fitted.item_ids, unknown="error"
        )
        pulls = probing.pulls(fitted, pipeline.embed(fitted, request)).tolist()
    # the graph multiplies by the code's sum, and the kinds say where
    knobs = [row.at(1.0, pull) for row, pull in zip(resolved, pulls, strict=True)]
    return {
        "items": _joined(positions, np.int64),
        "offsets": _offsets(positions),
        "knob_latents": _joined([row.latents for row in knobs], np.int64),
        "knob_weights": _joined([row.weights for row in knobs], np.float32),
        "knob_kinds": _joined(kinds, np.int64),
        "knob_offsets": _offsets(kinds),
        "alpha": np.array(1, dtype=np.float32),
        "deny": fitted.item_ids.index(list(deny)).astype(np.int64),
        "n": np.array(n, dtype=np.int64),
    }


def _joined(rows: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([*rows, np.empty(0)]).astype(dtype)


def _offsets(rows: list[np.ndarray]) -> np.ndarray:
    return np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
