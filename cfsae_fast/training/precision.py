"""Floor 4: what a run multiplies in.

Station: none of its own; the loop asks for every forward pass, a backward pass does as its forward.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch

from cfsae_fast import ops
from cfsae_fast.config import TrainConfig
from cfsae_fast.models.cosine_head import int16_products


def decided(config: TrainConfig, *, model: str) -> TrainConfig:
    """`config` with precision auto replaced by what it means here, which a resumed run must share.

    bf16 where the device multiplies it faster than fp32; on a CPU for ELSA alone, whose quality was
    seen not to change, and for ELSA int16 where the CPU is faster at that.

    Raises:
        ValueError: int16 was asked for another model than ELSA.
    """
    if config.precision == "int16" and model != "elsa":
        raise ValueError(
            f"precision must be auto, fp32 or bf16 for {model}, got 'int16', which is for elsa"
        )
    if config.precision != "auto":
        return config
    kind = torch.device(config.device).type
    if kind == "cuda":
        return replace(config, precision="bf16" if torch.cuda.is_bf16_supported() else "fp32")
    on_cpu = _fastest_on_cpu() if kind == "cpu" and model == "elsa" else "fp32"
    return replace(config, precision=on_cpu)


def _fastest_on_cpu() -> str:
    """bf16 with AMX; int16 with AVX-512 VNNI; else fp32.

    A core of an Intel Xeon whose AMX is hidden: 87 GFLOP/s in bf16, 178 in fp32, 382 in int16.
    Two cores of a Zen 4, a step of 1,024 users, in bf16, fp32, int16: 46, 91, 45 ms (I 7,390, d
    256) and 891, 1,666, 822 ms (I 40,857, d 1024); int16 is the more exact of the fast ones.
    """
    found = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.4 cannot say
    if found.get("amx_bf16"):
        return "bf16"
    return "int16" if "avx512vnni" in ops.build_info()["isa"] else "fp32"


def products(config: TrainConfig) -> AbstractContextManager:
    """The context of a forward pass: products in what config.precision (decided) says."""
    if config.precision == "bf16":
        return torch.autocast(torch.device(config.device).type, dtype=torch.bfloat16)
    return int16_products() if config.precision == "int16" else nullcontext()
