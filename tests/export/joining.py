"""What Triton does with requests between clients and the runtime, as its configuration says.

Written after the sources of triton-inference-server/backend (BackendInputCollector, which joins,
and BackendOutputResponder, which splits) and onnxruntime_backend, which checks when it loads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
KINDS = {"TYPE_INT64": np.int64, "TYPE_INT32": np.int32, "TYPE_FP32": np.float32}
OF_RUNTIME = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}


class Batcher:
    """One model of a parsed config.pbtxt (schema: model_config_pb2), in an open session."""

    def __init__(self, schema: Any, config: Any, session: Any) -> None:
        self.schema, self.config, self.session = schema, config, session
        self._check_as_loaded()

    def _check_as_loaded(self) -> None:
        """What the backend refuses to load."""
        config, given = self.config, {one.name: one for one in self.session.get_inputs()}
        assert len(given) == len(config.input) + len(config.batch_input)
        for one in config.input:
            assert self._type(one.data_type) == OF_RUNTIME[given[one.name].type]
            shape = [one if isinstance(one, int) else -1 for one in given[one.name].shape]
            assert shape == ([-1] if one.allow_ragged_batch else [-1, *one.dims])
        for one in config.batch_input:
            (name,) = one.target_name
            assert self._type(one.data_type) == OF_RUNTIME[given[name].type] == np.int32
            assert one.source_input[0] in {other.name for other in config.input}
        found = {one.name: one for one in self.session.get_outputs()}
        for one in config.output:
            assert self._type(one.data_type) == OF_RUNTIME[found[one.name].type]
            shape = [one if isinstance(one, int) else -1 for one in found[one.name].shape]
            assert shape == [-1, *one.dims]

    def _type(self, kind: int) -> type:
        return KINDS[self.schema.DataType.Name(kind)]

    def answer(self, requests: list[Arrays]) -> list[Arrays]:
        """Each request's part of one run over all of them."""
        for request in requests:  # what Triton's core refuses before it batches
            assert {one.name for one in self.config.input} == set(request)
            assert len({len(array) for array in request.values()}) == 1
        names = [one.name for one in self.config.output]
        whole = dict(zip(names, self.session.run(names, self._joined(requests)), strict=True))
        assert sum(_rows(one) for one in requests) <= self.config.max_batch_size
        parts, first = [], 0
        for request in requests:
            last = first + _rows(request)
            assert all(len(array) >= last for array in whole.values()), "rows are missing"
            parts.append({name: array[first:last] for name, array in whole.items()})
            first = last
        return parts

    def _joined(self, requests: list[Arrays]) -> Arrays:
        made = {}
        for one in self.config.input:
            arrays = [request[one.name] for request in requests]
            flat = [array.reshape(-1) for array in arrays] if one.allow_ragged_batch else arrays
            made[one.name] = np.concatenate(flat).astype(self._type(one.data_type))
        for one in self.config.batch_input:
            kind = self.schema.BatchInput.Kind.Name(one.kind)
            sources = [request[one.source_input[0]] for request in requests]
            made[one.target_name[0]] = BATCH_INPUTS[kind](sources).astype(np.int32)
        return made


def _rows(request: Arrays) -> int:
    return len(next(iter(request.values())))


def _item_shapes(sources: list[np.ndarray]) -> np.ndarray:
    """(rows of all requests, dimensions of one): every row's shape."""
    return np.array([array.shape[1:] for array in sources for _ in range(len(array))])


BATCH_INPUTS: dict[str, Callable[[list[np.ndarray]], np.ndarray]] = {
    "BATCH_ITEM_SHAPE": _item_shapes,
}
