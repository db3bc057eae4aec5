"""Floor 1: the ops on tensors of a CUDA device: results and workspaces from torch, kernels queued.

Station: all arrows from `CSR -> CFAE.encode` to `scores -> top-N`, with their backward halves.

The signatures are those of `engine` and `folded`. Everything goes to the device's current stream;
nothing waits, but where knobs lie on the device: their number must be known, so they are read back
and checked, except while a CUDA graph is captured, where they are trusted. Rows and codes on the
device are never read back: ids out of range count as padding there, and `ops.checked` makes them
errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from cfsae_fast import _C
from cfsae_fast.ops import device_checks
from cfsae_fast.ops.containers import Code, Encoded, Knobs, Recommended, Rows, Stats
from cfsae_fast.ops.folded import FoldedSide, FoldedTable

_emulated: ModuleType | None = None  # the kernels of an emulated device whose memory is the CPU's


def serves(tensor: Any) -> bool:
    """Whether the kernels answer for this tensor.

    Raises:
        NotImplementedError: it lies on a CUDA device and the engine was built without kernels.
    """
    kind = tensor.device.type
    if kind == "cuda":
        _kernels()
    return kind == "cuda" or (kind == "cpu" and _emulated is not None)


@contextmanager
def emulate(kernels: ModuleType) -> Iterator[None]:
    """Send tensors on the CPU to `kernels`, compiled for an emulated device (for tests)."""
    global _emulated
    before, _emulated = _emulated, kernels
    try:
        yield
    finally:
        _emulated = before


def place(name: str) -> torch.device:
    """The device of that name, where the ops can run; under `emulate`, cuda is the CPU.

    Raises:
        NotImplementedError: no kernels were built for it.
        RuntimeError: it is CUDA, and torch finds no such device.
    """
    device = torch.device(name)
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise NotImplementedError(f"device must be cpu or cuda, got {name}")
    _kernels()
    if _emulated is not None:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"device must be present, got {name}: torch {torch.__version__} finds no CUDA device"
        )
    return torch.device("cuda", device.index or 0)


def encode_rows(rows: Rows, weight: Tensor, bias: Tensor | None = None, *, threads: int = 0):
    at = _Call(weight, "weight", rows=rows, bias=bias)
    device_checks.rows(rows, len(weight), "rows")
    out = weight.new_empty(max(0, rows.offsets.shape[0] - 1), *weight.shape[1:])
    at.run("encode_rows", *at(*rows, weight, bias, out))
    return out


def encode_rows_backward(rows: Rows, weight: Tensor, grad: Tensor, *, wanted, threads: int = 0):
    at = _Call(weight, "weight", rows=rows, grad=grad)
    grads = _wanted(weight, (weight.shape, weight.shape[1:], rows.items.shape), wanted)
    if grads[2] is not None:
        grads[2].zero_()  # entries outside the offsets
    n_bytes = at.kernels.encode_rows_backward_bytes(len(rows.items), len(weight))
    at.run("encode_rows_backward", *at(*rows, weight, grad, *grads, at.scratch(n_bytes)))
    return grads


def topk_encode(
    embedding: Tensor,
    encoder: Tensor,
    bias: Tensor,
    centre: Tensor,
    k: int,
    *,
    standardize: bool = True,
    precision: str = "exact",
    threads: int = 0,
) -> Encoded:
    at = _Call(embedding, "embedding", encoder=encoder, bias=bias, centre=centre)
    if not 1 <= k <= len(encoder):
        raise ValueError(f"k must be in [1, n_latents={len(encoder)}], got {k}")
    n = len(embedding)
    code = _empty_code(embedding, n, k)
    stats = Stats(embedding.new_empty(n), embedding.new_empty(n)) if standardize else None
    sizes = (n, _width(embedding), len(encoder), k)
    scratch = at.scratch(at.kernels.topk_encode_bytes(*sizes, precision))
    arrays = at(embedding, encoder, bias, centre, *code, *(stats or (None, None)))
    at.run("topk_encode", *arrays, precision, *at(scratch))
    return Encoded(code, stats)


def topk_encode_backward(
    embedding: Tensor,
    encoder: Tensor,
    centre: Tensor,
    indices: Tensor,
    stats: Stats | None,
    grad_values: Tensor,
    grad_stats: Stats | None,
    *,
    wanted,
    threads: int = 0,
):
    at = _Call(embedding, "embedding", encoder=encoder, centre=centre, stats=stats)
    shapes = (embedding.shape, encoder.shape, encoder.shape[:1], embedding.shape[1:])
    grads = _wanted(embedding, shapes, wanted)
    sizes = (*embedding.shape, len(encoder), indices.shape[1])
    scratch = at.scratch(at.kernels.topk_encode_backward_bytes(*sizes))
    none = (None, None)
    arrays = (embedding, encoder, centre, indices, grad_values, *(stats or none))
    at.run("topk_encode_backward", *at(*arrays, *(grad_stats or none), *grads, scratch))
    return grads


def sparse_decode(
    code: Code,
    dictionary: Tensor,
    bias: Tensor | None = None,
    stats: Stats | None = None,
    *,
    threads: int = 0,
) -> Tensor:
    at = _Call(dictionary, "dictionary", code=code, bias=bias, stats=stats)
    device_checks.code(code, len(dictionary))
    out = dictionary.new_empty(len(code.indices), *dictionary.shape[1:])
    at.run("sparse_decode", *at(*code, dictionary, bias, *(stats or (None, None)), out))
    return out


def sparse_decode_backward(
    code: Code,
    dictionary: Tensor,
    bias: Tensor | None,
    stats: Stats | None,
    grad: Tensor,
    *,
    wanted,
    threads: int = 0,
):
    at = _Call(dictionary, "dictionary", code=code, bias=bias, stats=stats, grad=grad)
    n = code.indices.shape[:1]
    shapes = (code.values.shape, dictionary.shape, dictionary.shape[1:], n, n)
    grads = _wanted(dictionary, shapes, wanted)
    n_bytes = at.kernels.sparse_decode_backward_bytes(*code.indices.shape, len(dictionary))
    arrays = (*code, dictionary, bias, *(stats or (None, None)), grad, *grads)
    at.run("sparse_decode_backward", *at(*arrays, at.scratch(n_bytes)))
    return grads


def steer(code: Code, knobs: Knobs, *, n_latents: int, threads: int = 0) -> Code:
    at = _Call(code.indices, "code.indices", code=code)
    device_checks.code(code, n_latents)
    n, k = len(code.indices), _width(code.indices)
    read = device_checks.knobs(knobs, n, n_latents, code.indices.device, must_know=True)
    out = _empty_code(code.values, n, k + read.width)
    at.run("steer", *at(*code, *read.knobs), read.most, *at(*out))
    return out


def steer_decode(
    embedding: Tensor,
    code: Code,
    knobs: Knobs,
    dictionary: Tensor,
    bias: Tensor | None,
    stats: Stats | None,
    *,
    mode: str,
    threads: int = 0,
) -> Tensor:
    at = _Call(embedding, "embedding", code=code, dictionary=dictionary, bias=bias, stats=stats)
    device_checks.code(code, len(dictionary))
    read = device_checks.knobs(knobs, len(embedding), len(dictionary), embedding.device)
    out = torch.empty_like(embedding, memory_format=torch.contiguous_format)
    arrays = at(embedding, *code, *read.knobs)
    rest = at(dictionary, bias, *(stats or (None, None)))
    at.run("steer_decode", *arrays, read.most, *rest, mode, *at(out))
    return out


def recommend(
    embedding: Tensor,
    items: Tensor,
    n: int,
    *,
    bias: Tensor | None = None,
    seen: Rows | None = None,
    allowed: Tensor | None = None,
    precision: str = "exact",
    threads: int = 0,
) -> Recommended:
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    at = _Call(embedding, "embedding", items=items, bias=bias, seen=seen, allowed=allowed)
    if seen is not None:
        device_checks.rows(seen, len(items), "seen")
    ids, scores = _empty_code(embedding, len(embedding), n)
    sizes = (len(embedding), _width(embedding), len(items), n)
    scratch = at.scratch(at.kernels.recommend_bytes(*sizes, precision))
    of_seen = (None, None) if seen is None else seen[:2]
    at.run("recommend", *at(embedding, items, bias, *of_seen, _as_bytes(allowed), ids, scores),
           precision, *at(scratch))  # fmt: skip
    return Recommended(ids, scores)


def folded_topk_encode(
    rows: Rows,
    folded: FoldedSide,
    embedding: Tensor,
    encoder: Tensor,
    bias: Tensor,
    centre: Tensor,
    k: int,
    *,
    standardize: bool = True,
    threads: int = 0,
) -> Encoded:
    at = _Call(embedding, "embedding", rows=rows, folded=folded[1:3], table=folded.table,
               encoder=encoder, bias=bias, centre=centre)  # fmt: skip
    if not 1 <= k <= len(encoder):
        raise ValueError(f"k must be in [1, n_latents={len(encoder)}], got {k}")
    device_checks.rows(rows, len(folded.table.values), "rows")
    n = len(embedding)
    code = _empty_code(embedding, n, k)
    stats = Stats(embedding.new_empty(n), embedding.new_empty(n)) if standardize else None
    sizes = (n, _width(embedding), len(encoder), k)
    scratch = at.scratch(at.kernels.folded_topk_encode_bytes(*sizes))
    arrays = at(embedding, encoder, bias, centre, *code, *(stats or (None, None)), scratch)
    at.run("folded_topk_encode", *at(*rows, *at.side(folded)), folded.norms, *arrays)
    return Encoded(code, stats)


def folded_recommend(
    code: Code,
    stats: Stats | None,
    folded: FoldedSide,
    embedding: Tensor,
    items: Tensor,
    n: int,
    *,
    bias: Tensor | None = None,
    seen: Rows | None = None,
    allowed: Tensor | None = None,
    threads: int = 0,
) -> Recommended:
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    at = _Call(embedding, "embedding", code=code, stats=stats, folded=folded[1:3],
               table=folded.table, items=items, bias=bias, seen=seen, allowed=allowed)  # fmt: skip
    device_checks.code(code, len(folded.table.values))
    if seen is not None:
        device_checks.rows(seen, len(items), "seen")
    ids, scores = _empty_code(embedding, len(embedding), n)
    scratch = at.scratch(at.kernels.folded_recommend_bytes(len(embedding), len(items), n))
    of_seen = (None, None) if seen is None else seen[:2]
    arrays = at(embedding, items, bias, *of_seen, _as_bytes(allowed), ids, scores, scratch)
    at.run("folded_recommend", *at(*code, *(stats or (None, None)), *at.side(folded)),
           folded.norms, *arrays)  # fmt: skip
    return Recommended(ids, scores)


def folded_scores(code: Code, table: FoldedTable, *, threads: int = 0) -> Tensor:
    at = _Call(code.values, "code.values", code=code, table=table)
    device_checks.code(code, len(table.values))
    out = code.values.new_empty(len(code.indices), *table.values.shape[1:])
    at.run("folded_scores", *at(*code, *table, out))
    return out


def adam_(grad: Tensor, parameters: Tensor, first: Tensor, second: Tensor, *, step: int, lr: float,
          betas: tuple[float, float], eps: float, weight_decay: float) -> None:  # fmt: skip
    """One AdamW step of flat tensors (n,) in one pass; parameters and both moments change."""
    at = _Call(parameters, "parameters", grad=grad, first=first, second=second)
    at.run("adam", *at(grad, parameters, first, second), lr, *betas, eps, weight_decay, step)


class _Call:
    """One op's way to the device: all arguments lie where the first one does."""

    def __init__(self, like: Tensor, name: str, **arguments: Any) -> None:
        self.kernels, self.device = _kernels(), like.device
        for other, argument in arguments.items():
            for one in argument if isinstance(argument, tuple) else (argument,):
                lies = like.device if one is None else getattr(one, "device", "cpu")
                if lies != like.device:
                    raise ValueError(
                        f"{other} must be on {like.device} as {name} is, got {lies}; "
                        f"move it with .to({str(like.device)!r})"
                    )

    def __call__(self, *tensors: Tensor | None) -> list[Any]:
        """The tensors as the kernels' door takes them; they must outlive the call that takes it."""
        return [
            None
            if one is None
            else self.kernels.DeviceArray(one.data_ptr(), tuple(one.shape), str(one.dtype)[6:])
            for one in tensors
        ]

    @staticmethod
    def side(folded: FoldedSide) -> tuple[Tensor, ...]:
        return *folded.table, folded.sums, folded.shifts

    def scratch(self, n_bytes: int) -> Tensor:
        """The op's workspace; its memory is the stream's again once the op is queued."""
        self._scratch = torch.empty(n_bytes, dtype=torch.uint8, device=self.device)
        return self._scratch

    def run(self, name: str, *arguments: Any) -> None:
        index, stream = self.device.index or 0, 0
        if self.device.type == "cuda":
            stream = torch.cuda.current_stream(self.device).cuda_stream
        getattr(self.kernels, name)(*arguments, self.kernels.Queue(index, stream))


def _kernels() -> ModuleType:
    found = _emulated or getattr(_C, "cuda", None)
    if found is None:
        raise NotImplementedError(
            "tensors must be on the CPU, got cuda: this build of the engine has no CUDA kernels "
            f"({_C.build_info()['why']}); put nvcc 12 or newer on PATH and build anew with "
            "CFSAE_CUDA=1 pip install --no-build-isolation --force-reinstall --no-deps ."
        )
    return found


def _width(tensor: Tensor) -> int:
    return tensor.shape[1] if tensor.dim() > 1 else 0  # the kernels' door refuses the shape


def _as_bytes(mask: Tensor | None) -> Tensor | None:
    return mask.view(torch.uint8) if mask is not None and mask.dtype == torch.bool else mask


def _empty_code(like: Tensor, n: int, k: int) -> Code:
    shape = {"size": (n, k), "device": like.device}
    return Code(torch.empty(dtype=torch.int32, **shape), torch.empty(dtype=torch.float32, **shape))


def _wanted(like: Tensor, shapes, wanted) -> list[Tensor | None]:
    return [
        torch.empty(shape, dtype=torch.float32, device=like.device) if want else None
        for shape, want in zip(shapes, wanted, strict=True)
    ]
