"""Floor 1: the ops themselves: numpy arrays in, numpy arrays out; torch tensors likewise.

Station: all arrows from `CSR -> CFAE.encode` to `scores -> top-N`, one function each.

What each op means stands in `cfsae_fast.reference`, in a few lines of PyTorch. Common to all:
float32 values, int32 indices, int64 offsets; arguments are never changed; threads=0 means
get_threads(), and the thread count never changes a result. Wrong dtypes raise TypeError, wrong
shapes and indices out of range ValueError; tensors on CUDA a NotImplementedError where the engine
was built without kernels. With torch tensors, arrays among the arguments are taken as tensors.

On CUDA everything is queued on the current stream, and all arguments lie on one device, but for
knobs, which are best left on the CPU. What only the device could read is not checked: an id out of
range counts as padding there; inside `ops.checked()` it is an error again.
"""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np

from cfsae_fast.ops import engine
from cfsae_fast.ops.containers import Array, Code, Encoded, Knobs, Recommended, Rows, Stats
from cfsae_fast.ops.screens import Screen

# How CUDA multiplies queries with rows. exact: on tensor cores, and what is not proven there again
# in fp32, so that the answer is fp32's; fp32: on the cores; tf32, bf16: on tensor cores, unproven:
# near ties may fall the other way, which training does not mind. Sums are fp32 in each of them.
PRECISIONS = ("exact", "fp32", "tf32", "bf16")


def encode_rows(rows: Rows, weight: Array, bias: Array | None = None, *, threads: int = 0) -> Array:
    """Sum weighted embeddings of each row's items: bias + sum_j value_j * weight[item_j].

    rows of B; weight (I, d); bias (d,) -> (B, d). An empty row gives the bias.
    Differentiable in weight, bias and rows.values.
    """
    return _home("autograd", weight=weight).encode_rows(rows, weight, bias, threads=threads)


def topk_encode(
    embedding: Array,
    encoder: Array,
    bias: Array,
    centre: Array,
    k: int,
    *,
    standardize: bool = True,
    precision: str = "exact",
    screen: Screen | None = None,
    threads: int = 0,
) -> Encoded:
    """Keep the k largest strictly positive of (u - centre) @ encoder.T + bias in each row.

    u = (embedding - mean) / std, std being the row's unbiased deviation + 1e-7 (1 where d = 1);
    standardize=False: u = embedding, stats None. A NaN is never kept; the (B, L) product is never
    stored. embedding (B, d); encoder (L, d); bias (L,); centre (d,); k in [1, L] -> code (B, k),
    stats (B,). Differentiable in all four arrays through code.values, stats.mean and stats.std.
    precision: what tensors on CUDA are multiplied in (see PRECISIONS); the CPU is always exact.
    screen: Screen(encoder), to go faster where many calls share an encoder (numpy only).
    """
    home = _home("autograd", embedding=embedding)
    return home.topk_encode(
        embedding, encoder, bias, centre, k, standardize=standardize, threads=threads,
        **_precision(precision, home), **_screen(screen, home),
    )  # fmt: skip


def sparse_decode(
    code: Code,
    dictionary: Array,
    bias: Array | None = None,
    stats: Stats | None = None,
    *,
    threads: int = 0,
) -> Array:
    """Decode sparse codes: mean + std * (bias + sum_j value_j * dictionary[index_j]).

    code (B, k); dictionary (L, d); bias (d,); stats (B,) or None: mean 0, std 1 -> (B, d).
    Differentiable in code.values, dictionary, bias and stats.
    """
    return _home("autograd", dictionary=dictionary).sparse_decode(
        code, dictionary, bias, stats, threads=threads
    )


def steer(code: Code, knobs: Knobs, *, n_latents: int, threads: int = 0) -> Code:
    """Turn each row's knobs: scale, then mix, then add (the formulas stand at `Knobs`).

    code (B, k); knobs of B rows, or of one for all -> (B, k + m), m being the largest number of
    distinct latents a row turns. Sorted by value descending, ties to the smaller index; exact
    zeros become padding, which stands after negative values. Not differentiable.
    """
    return _home("serving", code_values=code.values).steer(
        code, knobs, n_latents=n_latents, threads=threads
    )


def steer_decode(
    embedding: Array,
    code: Code,
    knobs: Knobs,
    dictionary: Array,
    bias: Array | None,
    stats: Stats | None,
    *,
    mode: str,
    threads: int = 0,
) -> Array:
    """Turn the knobs and decode in one pass; z' is the steered code. Not differentiable.

    mode "reconstruct": mean + std * (z' @ dictionary + bias); mode "residual": embedding + std *
    ((z' - z) @ dictionary), and a row without knobs keeps its embedding bit for bit.
    embedding (B, d); code (B, k); dictionary (L, d); bias (d,); stats (B,) or None -> (B, d).
    """
    return _home("serving", embedding=embedding).steer_decode(
        embedding, code, knobs, dictionary, bias, stats, mode=mode, threads=threads
    )


def recommend(
    embedding: Array,
    items: Array,
    n: int,
    *,
    bias: Array | None = None,
    seen: Rows | None = None,
    allowed: Array | None = None,
    precision: str = "exact",
    screen: Screen | None = None,
    threads: int = 0,
) -> Recommended:
    """Rank the n best items of embedding @ items.T + bias in each row, ties to the smaller id.

    Items in the row of `seen`, items whose `allowed` is False, and scores of NaN or -inf are never
    returned; where fewer than n remain, ids are -1 and scores -inf. The (B, I) scores are never
    stored. embedding (B, d); items (I, d); bias (I,); allowed (I,) bool or uint8; n >= 1, above I
    too -> ids (B, n), scores (B, n). Not differentiable.
    precision: what tensors on CUDA are multiplied in (see PRECISIONS); the CPU is always exact.
    screen: Screen(items), to go faster where many calls share the items (numpy only).
    """
    home = _home("serving", embedding=embedding)
    return home.recommend(
        embedding, items, n, bias=bias, seen=seen, allowed=allowed, threads=threads,
        **_precision(precision, home), **_screen(screen, home),
    )  # fmt: skip


def _precision(precision: str, home: ModuleType) -> dict[str, str]:
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}")
    return {} if home is engine else {"precision": precision}


def _screen(screen: Screen | None, home: ModuleType) -> dict[str, Screen]:
    if screen is None:
        return {}
    if home is not engine:
        raise TypeError("screen must be None where torch tensors are passed, got a Screen")
    return {"screen": screen}


def _home(for_tensors: str, **named: Array) -> ModuleType:
    """The module that serves this kind of array: engine for numpy, `for_tensors` for torch."""
    ((name, array),) = named.items()
    if isinstance(array, np.ndarray):
        return engine
    torch = sys.modules.get("torch")  # a tensor cannot come from a torch that is not loaded
    if torch is not None and isinstance(array, torch.Tensor):
        from cfsae_fast.ops import autograd, serving

        return {"autograd": autograd, "serving": serving}[for_tensors]
    raise TypeError(f"{name} must be a numpy array or a torch tensor, got {type(array).__name__}")
