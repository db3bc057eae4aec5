"""The rungs of ELSA's loss and gradient: torch's passes, the engine's, scores kept or not, products
in int16, and whose threads the engine takes.

Also tried, 2 threads of an Intel Xeon, I 7390, d 256, ms a step of 66 before int16: tiles of 1,024
or 2,048 items instead of 8,192: 71 to 78; products in bf16 where the processor has no AMX: 23 ms
each instead of 13; a heap of the C library that is never trimmed: 62.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import torch

from benchmarks import record, timing
from benchmarks.answers import require
from benchmarks.train_elsa import OurStep, draw_rows
from cfsae_fast.models import cosine_head, elsa
from cfsae_fast.ops.settings import one_pool


def rungs(n_items: int, d: int, batch: int, history: int) -> dict[str, Callable[[], torch.Tensor]]:
    """Loss and gradient of one batch, by each rung."""
    step, rows = OurStep(n_items, d), draw_rows(batch, n_items, history)
    plain, own_arrays = cosine_head.CosineHead, cosine_head._arrays

    def run(precision="fp32", *, by_torch=False, threads=one_pool, **changed) -> torch.Tensor:
        step.config = replace(step.config, precision=precision)
        elsa.CosineHead = functools.partial(plain, **changed)
        cosine_head._arrays = (lambda *_: None) if by_torch else own_arrays
        try:
            with threads():
                loss = step.loss(rows)
                step.model.zero_grad(set_to_none=True)
                loss.backward()
        finally:
            elsa.CosineHead, cosine_head._arrays = plain, own_arrays
        return loss.detach()

    return {
        "torch passes": lambda: run(by_torch=True),
        "engine passes, scores computed twice": lambda: run(kept_bytes=0),
        "engine passes, scores kept": run,
        "int16, threads of its own": lambda: run("int16", threads=nullcontext),
        "int16, torch's threads": lambda: run("int16"),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = record.arguments("ladder.elsa_step", __doc__ or "")
    for name, value in (("items", 7390), ("d", 256), ("batch", 1024), ("history", 77)):
        parser.add_argument(f"--{name}", type=int, default=value)
    chosen = parser.parse_args(arguments)
    history = min(chosen.history, chosen.items // 2)
    ways = rungs(chosen.items, chosen.d, chosen.batch, history)
    with timing.threads(2):
        first = ways["torch passes"]()
        for name, way in ways.items():
            require(torch.allclose(way(), first, rtol=1e-2), name)
        timed = timing.interleaved(ways, seconds=2 if chosen.quick else 20, least=3)
    case = f"ELSA B={chosen.batch} I={chosen.items} d={chosen.d} threads=2"
    peer = {"peer": "torch passes", "peer_value": timed["torch passes"].p50}
    rows = [
        record.row(f"{case} {name}", "grad_ms", one.p50, higher_is_better=False, **peer)
        for name, one in timed.items()
    ]
    record.finish("ladder.elsa_step", rows, chosen.json)


if __name__ == "__main__":
    main()
