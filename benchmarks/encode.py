"""How long does topk_encode take for a batch of dense embeddings, against matmul + topk in torch?

Random unit latents and normal embeddings: the hardest case for the 8-bit screen's bounds. The
encoder's screen is kept from call to call, as SAENetwork keeps it for a model that serves; rows of
`screen made anew` are what training pays, whose encoder changes at every step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks import record, timing
from benchmarks.answers import require, same_top
from benchmarks.problems import unit_rows
from cfsae_fast import ops

TIE = 1e-5


def in_torch(x: torch.Tensor, encoder: torch.Tensor, bias: torch.Tensor, k: int):
    """Standardise, multiply, add, ReLU, top-k: values and latents."""
    mean, std = x.mean(dim=1, keepdim=True), x.std(dim=1, keepdim=True) + 1e-7
    return torch.relu(torch.addmm(bias, (x - mean) / std, encoder.T)).topk(k, dim=1)


def measure(batch: int, d: int, n_latents: int, k: int, threads: int, seconds: float) -> list[dict]:
    encoder, bias = unit_rows(n_latents, d, 1), np.zeros(n_latents, np.float32)
    x = np.random.default_rng(0).standard_normal((batch, d), dtype=np.float32)
    centre, tensors = np.zeros(d, np.float32), [torch.from_numpy(one) for one in (x, encoder, bias)]
    screen = ops.Screen.where_it_pays(encoder)
    ways: dict[str, Any] = {
        "ours": lambda: ops.topk_encode(x, encoder, bias, centre, k, screen=screen),
        "anew": lambda: ops.topk_encode(x, encoder, bias, centre, k),
        "torch": lambda: in_torch(*tensors, k),
    }
    with timing.threads(threads), torch.inference_mode():
        values, latents = ways["torch"]()
        for name in ("ours", "anew"):
            require(same_top(*ways[name]().code, latents, values, tie=TIE), "torch")
        timed = timing.interleaved(ways, seconds=seconds)
    case = f"B={batch} d={d} L={n_latents} k={k} threads={threads}"
    ours, anew, its = (timed[name] for name in ("ours", "anew", "torch"))
    peer = {"peer": "torch", "higher_is_better": False, "answer_checked": True}
    floor = 2e3 * batch * d * n_latents / (4e9 * timing.gigaflops(threads))
    return [
        record.row(case, "p50_ms", ours.p50, peer_value=its.p50, **peer),
        record.row(case, "p99_ms", ours.p99, peer_value=its.p99, **peer),
        record.row(f"{case} screen made anew", "p50_ms", anew.p50, peer_value=its.p50, **peer),
        record.row(case, "floor_ms", floor),  # bytes are multiplied 4 times as fast as floats
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = record.arguments("encode", __doc__ or "")
    for name, value in (("batch", 1024), ("d", 1024), ("k", 32)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--latents", type=int, nargs="*", default=[8192, 65536])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    chosen = parser.parse_args(arguments)
    latents = chosen.latents[:1] if chosen.quick else chosen.latents
    seconds = 2 if chosen.quick else 15
    rows = [
        one
        for n_latents in latents
        for threads in chosen.threads
        for one in measure(chosen.batch, chosen.d, n_latents, chosen.k, threads, seconds)
    ]
    record.finish("encode", rows, chosen.json)


if __name__ == "__main__":
    main()
