"""Room 3: the arrays of a graph on their way into its file, or end to end into one beside it.

Station: none of its own. A graph is built with tensors that hold no data. A protobuf message ends
at 2 GB and every step over messages would copy it, so arrays go straight from memory to the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

PAGE = 4096  # bytes; sessions map a tensor's pages
SMALL = 1024  # bytes, below which an array stays in the graph
LARGEST_GRAPH = (2 << 30) - (16 << 20)  # bytes of weights; nodes, functions and metadata come too

Arrays = Mapping[str, np.ndarray]


def empty_tensor(onnx: Any, name: str, array: np.ndarray, data_type: int | None = None) -> Any:
    """The TensorProto of an array, without its data. data_type: where numpy has no such type."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype) if data_type is None else data_type
    return onnx.TensorProto(name=name, data_type=kind, dims=array.shape)


def size_of(arrays: Arrays) -> int:
    """Bytes of all."""
    return sum(array.nbytes for array in arrays.values())


def checksum(arrays: Arrays) -> str:
    """SHA-256 of names and contents."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(name.encode())
        digest.update(_bytes(array))
    return digest.hexdigest()


def put_inside(model: Any, arrays: Arrays) -> None:
    """Fill the model's tensors.

    Raises:
        ValueError: protobuf could not hold them.
    """
    if (size := size_of(arrays)) > LARGEST_GRAPH:
        raise ValueError(
            f"external must be True or None for {size:,} bytes of weights, got False; a graph "
            f"holds at most {LARGEST_GRAPH:,}"
        )
    for tensor in model.graph.initializer:
        if tensor.name in arrays:
            tensor.raw_data = _bytes(arrays[tensor.name]).tobytes()


def put_beside(onnx: Any, model: Any, arrays: Arrays, path: Path) -> None:
    """Write the arrays to `path`, and where each stands into the model's tensors."""
    with path.open("wb") as stream:
        for tensor in model.graph.initializer:
            array = arrays.get(tensor.name)
            if array is None:
                continue
            if array.nbytes < SMALL:
                tensor.raw_data = _bytes(array).tobytes()
                continue
            stream.write(bytes(-stream.tell() % PAGE))
            place = {"location": path.name, "offset": stream.tell(), "length": array.nbytes}
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            stream.write(_bytes(array))


def _bytes(array: np.ndarray) -> np.ndarray:
    """The memory of an array, not copied where it is contiguous (n,) uint8."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
