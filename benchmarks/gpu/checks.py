"""Every op against the fp64 reference on fresh random inputs, with poisoned results.

The reference runs on the CPU, whichever device is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.device import Device, poisoned
from benchmarks.gpu.inputs import Inputs, draw
from benchmarks.gpu.roofline import Shape
from cfsae_fast import ops, reference
from cfsae_fast.ops import Code, Stats

TOLERANCE = 2e-4
ROUGH = {"tf32": 0.9, "bf16": 0.7}  # the share of ids that unproven products must get right


def wide(value: Any) -> Any:
    """On the CPU, floats as float64; containers field by field."""
    if isinstance(value, tuple):
        return type(value)(*map(wide, value))
    if not torch.is_tensor(value):
        return value
    return value.double().cpu() if value.is_floating_point() else value.cpu()


def off(got: Tensor, want: Tensor) -> float:
    """The largest difference, relative where values are large; NaN counts as infinite."""
    got, want = got.cpu(), want.cpu()
    if got.shape != want.shape:
        return float("inf")
    error = ((got.double() - want).abs() / (1 + want.abs())).nan_to_num(torch.inf)
    both = torch.isinf(want) & (got.double() == want)  # scores of padding
    return float(error.masked_fill(both, 0).max()) if error.numel() else 0.0


def off_top(ids: Tensor, values: Tensor, want_ids: Tensor, want_values: Tensor) -> float:
    """As `off`, of sorted top lists; where ids differ their values must tie within TOLERANCE."""
    error = off(values, want_values)
    wrong = apart(ids, want_ids)
    return error if wrong < 1e-3 or error > TOLERANCE else max(error, wrong)


def apart(ids: Tensor, want: Tensor) -> float:
    """The share of ids that differ."""
    return float((ids.cpu() != want.cpu()).double().mean()) if ids.numel() else 0.0


def run(device: Device, shape: Shape, seed: int) -> dict[str, float]:
    """Per check the largest error; a check that is not within TOLERANCE fails (see `failed`)."""
    given = draw(shape, device.place, seed)
    found: dict[str, float] = {}
    with device.answering(), poisoned():
        for check in (_rows, _encoding, _decoding, _steering, _recommending, _folded, _adam):
            found.update(check(given, shape))
            device.wait()
    return found


def failed(found: dict[str, float]) -> list[str]:
    return [f"{name}: off by {error:.2g}" for name, error in found.items()
            if not error <= TOLERANCE]  # fmt: skip


def _gradients(op: Callable, leaves: list[Tensor], double: bool) -> tuple[Tensor, list[Tensor]]:
    """The result of op(*leaves), and gradients of the sum of its squares."""
    leaves = [(wide(one) if double else one).clone().requires_grad_() for one in leaves]
    out = op(*leaves)
    return out.detach(), list(torch.autograd.grad(out.square().sum() / out.numel(), leaves))


def _compared(name: str, op: Callable, g: Inputs, leaves: list[Tensor]) -> dict[str, float]:
    """op(module, given, *leaves) by ops and by the fp64 reference: result and gradients."""
    there = wide(g._replace(model=g.model._replace(encode_side=None, decode_side=None)))
    mine, own = _gradients(lambda *x: op(ops, g, *x), leaves, False)
    true, want = _gradients(lambda *x: op(reference, there, *x), leaves, True)
    scale = max(float(one.abs().max()) for one in want) or 1.0
    worst = max(off(a.cpu() / scale, b / scale) for a, b in zip(own, want, strict=True))
    return {name: off(mine, true), f"{name} backward": worst}


def _rows(g: Inputs, shape: Shape) -> dict[str, float]:
    def op(module, given, items, values):
        return module.encode_rows(given.rows._replace(values=values), items)

    return _compared("encode_rows", op, g, [g.items, g.rows.values])


def _encoding(g: Inputs, shape: Shape) -> dict[str, float]:
    encode = (g.embedding, g.encoder, g.encoder_bias, g.bias)
    want = reference.topk_encode(*map(wide, encode), shape.k)
    found = {}
    for precision in ops.PRECISIONS:
        code, stats = ops.topk_encode(*encode, shape.k, precision=precision)
        if precision in ROUGH:
            share = 1 - apart(code.indices, want.code.indices)
            found[f"topk_encode {precision}"] = 0.0 if share > ROUGH[precision] else 1 - share
            continue
        error = off_top(code.indices, code.values, want.code.indices, want.code.values)
        found[f"topk_encode {precision}"] = max(
            error, off(stats.mean, want.stats.mean), off(stats.std, want.stats.std)
        )

    def op(module, given, *leaves):  # what the code says of each row, and its stats
        (_, values), (mean, std) = module.topk_encode(*leaves, shape.k)
        return torch.cat([values, mean[:, None], std[:, None]], dim=1)

    found["topk_encode backward"] = _compared("", op, g, list(encode))[" backward"]
    return found


def _decoding(g: Inputs, shape: Shape) -> dict[str, float]:
    def op(module, given, values, dictionary, bias, mean, std):
        code = Code(given.code.indices, values)
        return module.sparse_decode(code, dictionary, bias, Stats(mean, std))

    leaves = [g.code.values, g.dictionary, g.bias, g.stats.mean, g.stats.std]
    return _compared("sparse_decode", op, g, leaves)


def _steering(g: Inputs, shape: Shape) -> dict[str, float]:
    got = ops.steer(g.code, g.knobs, n_latents=shape.latents)
    want = reference.steer(wide(g.code), wide(g.knobs), n_latents=shape.latents)
    found = {"steer": off_top(*got, *want)}
    for mode in ("residual", "reconstruct"):
        rest = (g.dictionary, g.bias, g.stats)
        mine = ops.steer_decode(g.embedding, g.code, g.knobs, *rest, mode=mode)
        true = reference.steer_decode(
            wide(g.embedding), wide(g.code), wide(g.knobs), *map(wide, rest), mode=mode
        )
        found[f"steer_decode {mode}"] = off(mine, true)
    return found


def _recommending(g: Inputs, shape: Shape) -> dict[str, float]:
    chance = torch.Generator().manual_seed(shape.items)
    allowed = (torch.rand(shape.items, generator=chance) < 0.9).to(g.items.device)
    seen, n = g.rows._replace(values=None), shape.n
    options = {"seen": seen, "allowed": allowed}
    there = {name: wide(one) for name, one in options.items()}
    want = reference.recommend(wide(g.embedding), wide(g.items), n, **there)
    found = {}
    for precision in ops.PRECISIONS:
        got = ops.recommend(g.embedding, g.items, n, precision=precision, **options)
        if precision in ROUGH:
            share = 1 - apart(got.ids, want.ids)
            found[f"recommend {precision}"] = 0.0 if share > ROUGH[precision] else 1 - share
        else:
            found[f"recommend {precision}"] = off_top(*got, *want)
    return found


def _folded(g: Inputs, shape: Shape) -> dict[str, float]:
    encode, decode = g.model.encode_side, g.model.decode_side
    given = (g.summed, g.encoder, g.encoder_bias, g.bias)
    code, stats = ops.folded_topk_encode(g.rows, encode, *given, shape.k)
    want = reference.topk_encode(*map(wide, given), shape.k)
    found = {"folded_topk_encode": max(
        off_top(code.indices, code.values, want.code.indices, want.code.values),
        off(stats.mean, want.stats.mean), off(stats.std, want.stats.std))}  # fmt: skip
    told = ops.sparse_decode(code, g.dictionary, g.bias, stats)
    options = {"seen": g.rows._replace(values=None)}
    got = ops.folded_recommend(code, stats, decode, told, g.items, shape.n, **options)
    true = reference.recommend(wide(told), wide(g.items), shape.n,
                               seen=wide(options["seen"]))  # fmt: skip
    found["folded_recommend"] = off_top(*got, *true)
    scores = ops.folded_scores(code, decode.table)[:2]  # two rows: all would fill the memory
    ids = code.indices[:2].clamp(min=0).long()
    weights = wide(code.values[:2]) * wide(decode.table.scales[ids])
    rows = wide(decode.table.values[ids]).double()
    found["folded_scores"] = off(scores, torch.einsum("bk,bki->bi", weights, rows))
    return found


def _adam(g: Inputs, shape: Shape) -> dict[str, float]:
    from cfsae_fast.ops import device as on_device

    settings = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}
    parameter = torch.nn.Parameter(wide(g.encoder).flatten())
    theirs = torch.optim.AdamW([parameter], **settings)
    mine = g.encoder.flatten().clone()
    first, second = torch.zeros_like(mine), torch.zeros_like(mine)
    for step in (1, 2):
        gradient = g.dictionary.flatten() * step
        parameter.grad = wide(gradient)
        theirs.step()
        on_device.adam_(gradient, mine, first, second, step=step, **settings)
    return {"adam": off(mine, parameter.detach())}
