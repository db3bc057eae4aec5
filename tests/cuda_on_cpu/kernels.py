"""The ops of api.h's cuda:: half on the emulator, with the arguments of `cfsae_fast.reference`.

Arrays are copied to the emulated device, where each lies between gaps that nothing may touch;
results and workspaces start poisoned and count as unwritten.
"""

from __future__ import annotations

import ctypes
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_double,
    c_float,
    c_int32,
    c_int64,
    c_size_t,
    c_uint64,
    c_void_p,
)
from pathlib import Path

import numpy as np
import torch

from cfsae_fast.ops.containers import Code, Encoded, Knobs, Recommended, Rows, Stats
from cfsae_fast.ops.folded import FoldedSide

FP32, EXACT, TF32, BF16 = 0, 1, 2, 3
STATUS = {0: "ok", 1: "out of memory", 2: "too large", 3: "launch failed"}


class EmulatorError(Exception):
    """A kernel did what a GPU leaves undefined."""


class StatusError(Exception):
    """An op returned a status other than ok."""


def _view(name: str, **fields):
    return type(name, (Structure,), {"_fields_": list(fields.items())})


_Matrix = _view("_Matrix", data=c_void_p, n_rows=c_int64, dim=c_int64)
_Rows = _view("_Rows", n_rows=c_int64, offsets=c_void_p, items=c_void_p, values=c_void_p)
_Code = _view("_Code", n_rows=c_int64, k=c_int64, indices=c_void_p, values=c_void_p)
_Stats = _view("_Stats", mean=c_void_p, std=c_void_p)
_Knobs = _view("_Knobs", n_rows=c_int64, offsets=c_void_p, latents=c_void_p, weights=c_void_p,
               kinds=c_void_p)  # fmt: skip
_Execution = _view("_Execution", stream=c_void_p, workspace=c_void_p)
_EncodeGrads = _view("_EncodeGrads", **{name: c_void_p for name in
                     ("in_values", "in_mean", "in_std",
                      "embedding", "encoder", "bias", "centre")})  # fmt: skip
_DecodeGrads = _view("_DecodeGrads", **{name: c_void_p for name in
                     ("values", "dictionary", "bias", "mean", "std")})  # fmt: skip
_Adam = _view("_Adam", lr=c_float, beta1=c_float, beta2=c_float, epsilon=c_float,
              weight_decay=c_float, step=c_int64)  # fmt: skip


_Folded = _view("_Folded", values=c_void_p, scales=c_void_p, errors=c_void_p, n_rows=c_int64,
                dim=c_int64, sums=c_void_p, shifts=c_void_p, norms=4 * c_double)  # fmt: skip


class Result:
    """An array on the device that an op writes."""

    def __init__(self, address: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.address, self.shape, self.dtype = address, shape, dtype

    def read(self) -> torch.Tensor:
        out = torch.empty(self.shape, dtype=self.dtype)
        if out.numel():
            ctypes.memmove(out.data_ptr(), self.address, out.numel() * out.element_size())
        return out


class Device:
    """One emulated device; begin() before each op picks the schedule and forgets all arrays."""

    def __init__(self, library: Path) -> None:
        self.door = ctypes.CDLL(str(library))
        self.door.door_message.restype = ctypes.c_char_p
        self.door.door_allocate.restype = c_void_p
        self.door.door_launches.restype = c_int64
        for name in ("encode_rows_backward", "topk_encode", "topk_encode_backward",
                     "sparse_decode_backward", "recommend", "folded_topk_encode",
                     "folded_recommend"):  # fmt: skip
            getattr(self.door, f"door_{name}_bytes").restype = c_int64
        self.offset = 0
        self.begin(0)

    def begin(self, seed: int, *, fail_launch: int = -1, misaligned: bool = False) -> None:
        """misaligned: arrays start at 4 but not at 16 bytes, as slices of tensors do."""
        self.door.door_begin(c_uint64(seed), c_int64(fail_launch))
        self.offset = 4 if misaligned else 0

    @property
    def launches(self) -> int:
        return self.door.door_launches()

    def _allocate(self, n_bytes: int, aligned: bool = False) -> int:
        offset = 0 if aligned else self.offset
        address = self.door.door_allocate(c_size_t(max(n_bytes, 1)), c_size_t(offset))
        if not address:
            raise MemoryError("the emulated device is full")
        return address

    def put(self, array) -> int | None:
        """The address of a copy on the device; None stays None."""
        if array is None:
            return None
        array = np.ascontiguousarray(array.detach().numpy() if torch.is_tensor(array) else array)
        wide = array.dtype.itemsize == 8
        address = self._allocate(array.nbytes, aligned=wide)
        ctypes.memmove(address, array.ctypes.data, array.nbytes)
        self.door.door_mark_written(c_void_p(address), c_size_t(array.nbytes))
        return address

    def result(self, *shape: int, dtype=torch.float32) -> Result:
        n_bytes = int(np.prod(shape)) * torch.empty(0, dtype=dtype).element_size()
        return Result(self._allocate(n_bytes), shape, dtype)

    def execution(self, workspace_bytes: int = 0):
        return byref(_Execution(None, self._allocate(workspace_bytes, aligned=True)))

    def call(self, name: str, *arguments) -> None:
        status = getattr(self.door, f"door_{name}")(*arguments)
        if status == -1:
            raise EmulatorError(self.door.door_message().decode())
        if status != 0:
            raise StatusError(STATUS[status])

    def bytes_of(self, name: str, *sizes: int) -> int:
        return getattr(self.door, f"door_{name}_bytes")(*map(c_int64, sizes))

    def matrix(self, array):
        return byref(_Matrix(self.put(array), *array.shape))

    def rows(self, rows: Rows):
        arrays = (self.put(array) for array in rows)
        return _Rows(len(rows.offsets) - 1, *arrays)

    def code(self, code: Code):
        return byref(_Code(*code.indices.shape, self.put(code.indices), self.put(code.values)))

    def stats(self, stats: Stats | None):
        mean, std = (None, None) if stats is None else stats
        return byref(_Stats(self.put(mean), self.put(std)))

    def knobs(self, knobs: Knobs):
        arrays = (self.put(array) for array in knobs)
        return byref(_Knobs(len(knobs.offsets) - 1, *arrays))

    def folded(self, side: FoldedSide, *norms: float):
        """norms: those that the op's struct holds, in its order."""
        table = [self.put(array) for array in side.table]
        places = map(self.put, (side.sums, side.shifts))
        return byref(_Folded(*table, *side.table.values.shape, *places, (4 * c_double)(*norms)))

    def code_out(self, n_rows: int, k: int):
        indices, values = self.result(n_rows, k, dtype=torch.int32), self.result(n_rows, k)
        return byref(_Code(n_rows, k, indices.address, values.address)), indices, values


def _address(result: Result | None):
    return c_void_p(None if result is None else result.address)


def _pointer(address: int | None):
    return c_void_p(address)


def encode_rows(device: Device, rows: Rows, weight, bias=None):
    out = device.result(len(rows.offsets) - 1, weight.shape[1])
    device.call("encode_rows", byref(device.rows(rows)), device.matrix(weight),
                _pointer(device.put(bias)), _address(out), device.execution())  # fmt: skip
    return out.read()


def encode_rows_backward(device: Device, rows: Rows, weight, grad):
    """Gradients of weight, bias and the values of every entry that the rows hold."""
    n = len(rows.items)
    results = (device.result(*weight.shape), device.result(weight.shape[1]),
               device.result(len(rows.items)))  # fmt: skip
    n_bytes = device.bytes_of("encode_rows_backward", n, len(weight))
    device.call("encode_rows_backward", byref(device.rows(rows)), c_int64(n), device.matrix(weight),
                device.matrix(grad), *map(_address, results),
                device.execution(n_bytes))  # fmt: skip
    return tuple(result.read() for result in results)


def topk_encode(device: Device, embedding, encoder, bias, centre, k, *, standardize=True,
                precision=FP32) -> Encoded:  # fmt: skip
    n, dim = embedding.shape
    out, indices, values = device.code_out(n, k)
    mean, std = (device.result(n), device.result(n)) if standardize else (None, None)
    n_bytes = device.door.door_topk_encode_bytes(
        c_int64(n), c_int64(dim), c_int64(len(encoder)), c_int64(k), c_int32(precision)
    )
    device.call("topk_encode", device.matrix(embedding), device.matrix(encoder),
                _pointer(device.put(bias)), _pointer(device.put(centre)), out, _address(mean),
                _address(std), c_int32(precision), device.execution(n_bytes))  # fmt: skip
    stats = Stats(mean.read(), std.read()) if standardize else None
    return Encoded(Code(indices.read(), values.read()), stats)


def topk_encode_backward(device: Device, embedding, encoder, centre, code, stats, grads):
    """grads: of values, mean, std. Gradients of embedding, encoder, bias, centre."""
    n, dim = embedding.shape
    results = (device.result(n, dim), device.result(*encoder.shape), device.result(len(encoder)),
               device.result(dim))  # fmt: skip
    arrived = [device.put(grad) for grad in grads]
    n_bytes = device.bytes_of("topk_encode_backward", n, dim, len(encoder), code.indices.shape[1])
    addresses = [result.address for result in results]
    device.call("topk_encode_backward", device.matrix(embedding), device.matrix(encoder),
                _pointer(device.put(centre)), device.code(code), device.stats(stats),
                byref(_EncodeGrads(*arrived, *addresses)), device.execution(n_bytes))  # fmt: skip
    return tuple(result.read() for result in results)


def sparse_decode(device: Device, code, dictionary, bias=None, stats=None):
    out = device.result(len(code.indices), dictionary.shape[1])
    device.call("sparse_decode", device.code(code), device.matrix(dictionary),
                _pointer(device.put(bias)), device.stats(stats), _address(out),
                device.execution())  # fmt: skip
    return out.read()


def sparse_decode_backward(device: Device, code, dictionary, bias, stats, grad):
    """Gradients of values, dictionary, bias, mean and std."""
    n, k = code.indices.shape
    results = (device.result(n, k), device.result(*dictionary.shape),
               device.result(dictionary.shape[1]), device.result(n), device.result(n))  # fmt: skip
    n_bytes = device.bytes_of("sparse_decode_backward", n, k, len(dictionary))
    device.call("sparse_decode_backward", device.code(code), device.matrix(dictionary),
                _pointer(device.put(bias)), device.stats(stats), device.matrix(grad),
                byref(_DecodeGrads(*(result.address for result in results))),
                device.execution(n_bytes))  # fmt: skip
    return tuple(result.read() for result in results)


def most_knobs(knobs: Knobs) -> int:
    return int((knobs.offsets[1:] - knobs.offsets[:-1]).max()) if len(knobs.offsets) > 1 else 0


def steer(device: Device, code: Code, knobs: Knobs, width: int) -> Code:
    out, indices, values = device.code_out(len(code.indices), width)
    device.call("steer", device.code(code), device.knobs(knobs), c_int64(most_knobs(knobs)), out,
                device.execution())  # fmt: skip
    return Code(indices.read(), values.read())


def steer_decode(device: Device, embedding, code, knobs, dictionary, bias, stats, *, mode):
    out = device.result(*embedding.shape)
    device.call("steer_decode", device.matrix(embedding), device.code(code), device.knobs(knobs),
                c_int64(most_knobs(knobs)), device.matrix(dictionary), _pointer(device.put(bias)),
                device.stats(stats), c_int32(("residual", "reconstruct").index(mode)),
                _address(out), device.execution())  # fmt: skip
    return out.read()


def recommend(device: Device, embedding, items, n, *, bias=None, seen=None, allowed=None,
              precision=FP32) -> Recommended:  # fmt: skip
    out, ids, scores = device.code_out(len(embedding), n)
    n_bytes = device.door.door_recommend_bytes(
        c_int64(len(embedding)), c_int64(items.shape[1]), c_int64(len(items)), c_int64(n),
        c_int32(precision),
    )  # fmt: skip
    view = POINTER(_Rows)() if seen is None else byref(device.rows(seen))
    device.call("recommend", device.matrix(embedding), device.matrix(items),
                _pointer(device.put(bias)), view, _pointer(device.put(allowed)), out,
                c_int32(precision), device.execution(n_bytes))  # fmt: skip
    return Recommended(ids.read(), scores.read())


def folded_topk_encode(device: Device, rows: Rows, folded: FoldedSide, embedding, encoder, bias,
                       centre, k, *, standardize=True) -> Encoded:  # fmt: skip
    n, dim = embedding.shape
    out, indices, values = device.code_out(n, k)
    mean, std = (device.result(n), device.result(n)) if standardize else (None, None)
    item, latent, _, offset = folded.norms
    n_bytes = device.bytes_of("folded_topk_encode", n, dim, len(encoder), k)
    device.call("folded_topk_encode", byref(device.rows(rows)),
                device.folded(folded, item, latent, offset), device.matrix(embedding),
                device.matrix(encoder), _pointer(device.put(bias)), _pointer(device.put(centre)),
                out, _address(mean), _address(std), device.execution(n_bytes))  # fmt: skip
    stats = Stats(mean.read(), std.read()) if standardize else None
    return Encoded(Code(indices.read(), values.read()), stats)


def folded_recommend(device: Device, code, stats, folded: FoldedSide, embedding, items, n, *,
                     bias=None, seen=None, allowed=None) -> Recommended:  # fmt: skip
    atom, item, sae_bias, offset = folded.norms
    out, ids, scores = device.code_out(len(embedding), n)
    view = POINTER(_Rows)() if seen is None else byref(device.rows(seen))
    n_bytes = device.bytes_of("folded_recommend", len(embedding), len(items), n)
    device.call("folded_recommend", device.code(code), device.stats(stats),
                device.folded(folded, atom, item, sae_bias, offset), device.matrix(embedding),
                device.matrix(items), _pointer(device.put(bias)), view,
                _pointer(device.put(allowed)), out, device.execution(n_bytes))  # fmt: skip
    return Recommended(ids.read(), scores.read())


def folded_scores(device: Device, code: Code, folded: FoldedSide) -> torch.Tensor:
    out = device.result(len(code.indices), folded.table.values.shape[1])
    device.call("folded_scores", device.code(code), device.folded(folded), _address(out),
                device.execution())  # fmt: skip
    return out.read()


def adam(device: Device, grad, parameters, first, second, *, step, lr, betas, eps, weight_decay):
    """The parameters and both moments after one step."""
    arrays = [device.put(array) for array in (grad, parameters, first, second)]
    settings = _Adam(lr, *betas, eps, weight_decay, step)
    device.call("adam", byref(settings), c_int64(len(grad)), *map(_pointer, arrays),
                device.execution())  # fmt: skip
    return tuple(Result(address, (len(grad),), torch.float32).read() for address in arrays[1:])


def keep_above(device: Device, code: Code, threshold: float) -> Code:
    n, k = code.indices.shape
    addresses = [device.put(code.indices), device.put(code.values)]
    device.call("keep_above", byref(_Code(n, k, *addresses)), c_float(threshold),
                device.execution())  # fmt: skip
    dtypes = (torch.int32, torch.float32)
    return Code(
        *(Result(one, (n, k), dtype).read() for one, dtype in zip(addresses, dtypes, strict=True))
    )


def widen(device: Device, ids: torch.Tensor) -> torch.Tensor:
    out = device.result(len(ids), dtype=torch.int64)
    device.call("widen", _pointer(device.put(ids)), c_int64(len(ids)), _address(out),
                device.execution())  # fmt: skip
    return out.read()
