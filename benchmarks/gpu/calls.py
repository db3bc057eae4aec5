"""Every op as it is timed: ours, and the ways that torch and others have to the same answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.gpu.inputs import Inputs
from benchmarks.gpu.roofline import FEW, Shape
from cfsae_fast import ops
from cfsae_fast.ops import device as on_device

Call = Callable[[], Any]


class Op(NamedTuple):
    """name as roofline.costs has it; peers: name -> the same answer by other means."""

    name: str
    ours: Call
    peers: dict[str, Call]


def all_of(given: Inputs, shape: Shape, *, compiled: bool) -> list[Op]:
    """The ops at one shape; compiled: with torch.compile of each peer beside it."""
    found = [
        *_encoding(given, shape), *_decoding(given), *_steering(given, shape),
        *_recommending(given, shape), *_folded(given, shape), *_training(given),
    ]  # fmt: skip
    if compiled:
        for op in found:  # the folded ops' peers are those of the dense ones once more
            again = op.name.startswith("folded")
            if "eager" in op.peers and op.peers["eager"].__name__ != "step" and not again:
                op.peers["compile"] = torch.compile(op.peers["eager"])
    return found


def _encoding(g: Inputs, shape: Shape) -> list[Op]:
    weights = {"per_sample_weights": g.rows.values, "mode": "sum"}
    gradient = torch.ones_like(g.embedding)

    def backward():
        wanted = {"wanted": (True, False, False)}
        return on_device.encode_rows_backward(g.rows, g.items, gradient, **wanted)

    def eager():
        return functional.embedding_bag(g.rows.items, g.items, g.rows.offsets[:-1], **weights)

    rows = Op("encode_rows", lambda: ops.encode_rows(g.rows, g.items), {"eager": eager})
    encode = (g.embedding, g.encoder, g.encoder_bias, g.bias, shape.k)
    dense = _dense_encode(g, g.embedding, shape)
    few = ("fp32",) if shape.batch <= FEW else ("exact", "tf32", "bf16", "fp32")
    scans = [
        Op(f"topk_encode {name}", lambda name=name: ops.topk_encode(*encode, precision=name),
           {"eager": dense} | ({"eager tf32": in_tf32(dense)} if name != "fp32" else {}))
        for name in few
    ]  # fmt: skip
    upstream = torch.ones_like(g.code.values)

    def encode_backward():
        return on_device.topk_encode_backward(
            g.embedding, g.encoder, g.bias, g.code.indices, g.stats, upstream, None,
            wanted=(True,) * 4,
        )  # fmt: skip

    return [rows, Op("encode_rows backward", backward, {}), *scans,
            Op("topk_encode backward", encode_backward, {})]  # fmt: skip


def _dense_encode(g: Inputs, embedding: Tensor, shape: Shape) -> Call:
    def dense():
        mean, std = embedding.mean(1, keepdim=True), embedding.std(1, keepdim=True) + 1e-7
        product = torch.addmm(g.encoder_bias, (embedding - mean) / std - g.bias, g.encoder.T)
        return torch.relu(product).topk(shape.k, dim=1)

    return dense


def _decoding(g: Inputs) -> list[Op]:
    def eager():
        told = functional.embedding_bag(
            g.code.indices, g.dictionary, per_sample_weights=g.code.values, mode="sum"
        )
        return g.stats.mean[:, None] + g.stats.std[:, None] * (told + g.bias)

    def backward():
        return on_device.sparse_decode_backward(
            g.code, g.dictionary, g.bias, g.stats, g.embedding, wanted=(True,) * 5
        )

    ours = Op("sparse_decode", lambda: ops.sparse_decode(g.code, g.dictionary, g.bias, g.stats),
              {"eager": eager} | _sparsify(g))  # fmt: skip
    return [ours, Op("sparse_decode backward", backward, {})]


def _sparsify(g: Inputs) -> dict[str, Call]:
    """sparsify's Triton decoder, where it is installed and there is a GPU."""
    if g.dictionary.device.type != "cuda":
        return {}
    try:
        from sparsify.xformers import xformers_embedding_bag
    except ImportError:
        return {}

    def sparsify():
        told = xformers_embedding_bag(g.code.indices.long(), g.dictionary, g.code.values)
        return g.stats.mean[:, None] + g.stats.std[:, None] * (told + g.bias)

    return {"sparsify": sparsify}


def _steering(g: Inputs, shape: Shape) -> list[Op]:
    moved = [one.to(g.embedding.device) for one in g.knobs]
    offsets, latents, weights, kinds = moved
    row = torch.repeat_interleave(torch.arange(shape.batch, device=latents.device), offsets.diff())
    of_kind = [(row[kinds == kind], latents[kinds == kind].long(), weights[kinds == kind])
               for kind in range(3)]  # fmt: skip

    def eager():
        code = g.embedding.new_zeros(shape.batch, shape.latents)
        before = code.scatter(1, g.code.indices.long(), g.code.values)
        after = before.clone()
        mix, scale, add = of_kind
        after[scale[0], scale[1]] *= scale[2]
        total = after.sum(1)
        share = torch.zeros_like(total).index_add_(0, mix[0], mix[2])
        after = after * (1 - share)[:, None]
        after.index_put_(mix[:2], total[mix[0]] * mix[2], accumulate=True)
        after.index_put_(add[:2], add[2], accumulate=True)
        return g.embedding + g.stats.std[:, None] * ((after - before) @ g.dictionary)

    def ours():
        return ops.steer_decode(g.embedding, g.code, g.knobs, g.dictionary, None, g.stats,
                                mode="residual")  # fmt: skip

    steer = Op("steer", lambda: ops.steer(g.code, g.knobs, n_latents=shape.latents), {})
    return [steer, Op("steer_decode", ours, {"eager": eager})]


def _recommending(g: Inputs, shape: Shape) -> list[Op]:
    seen, eager = g.rows._replace(values=None), _dense_top(g, g.embedding, shape)
    few = ("fp32",) if shape.batch <= FEW else ("exact", "tf32", "bf16", "fp32")
    found = []
    for name in few:
        peers: dict[str, Call] = {"eager": eager}
        if name != "fp32":
            peers["eager tf32"] = in_tf32(eager)
        found.append(Op(f"recommend {name}", lambda name=name: ops.recommend(
            g.embedding, g.items, shape.n, seen=seen, precision=name), peers))  # fmt: skip
    return found


def _dense_top(g: Inputs, embedding: Tensor, shape: Shape) -> Call:
    rows = torch.arange(shape.batch, device=g.items.device)
    owner = torch.repeat_interleave(rows, g.rows.offsets.diff())

    def eager():
        scores = embedding @ g.items.T
        scores[owner, g.rows.items.long()] = -torch.inf
        return scores.topk(shape.n, dim=1)

    return eager


def _folded(g: Inputs, shape: Shape) -> list[Op]:
    """By tables of products, beside the dense ways to the same answers."""
    encode, decode = g.model.encode_side, g.model.decode_side
    rest = (g.encoder, g.encoder_bias, g.bias, shape.k)
    told = ops.sparse_decode(g.code, g.dictionary, g.bias, g.stats)
    seen = g.rows._replace(values=None)
    return [
        Op("folded_topk_encode", lambda: ops.folded_topk_encode(g.rows, encode, g.summed, *rest),
           {"eager": _dense_encode(g, g.summed, shape)}),
        Op("folded_recommend", lambda: ops.folded_recommend(
            g.code, g.stats, decode, told, g.items, shape.n, seen=seen),
           {"eager": _dense_top(g, told, shape)}),
        Op("folded_scores", lambda: ops.folded_scores(g.code, decode.table), {}),
    ]  # fmt: skip


def _training(g: Inputs) -> list[Op]:
    """AdamW over encoder and dictionary."""
    wide = [g.encoder.clone().flatten(), g.dictionary.clone().flatten()]
    grads = [0.01 * one for one in wide]
    moments = [(torch.zeros_like(one), torch.zeros_like(one)) for one in wide]
    theirs = [torch.nn.Parameter(one.clone()) for one in wide]
    for parameter, grad in zip(theirs, grads, strict=True):
        parameter.grad = grad.clone()
    optimizer = torch.optim.AdamW(theirs, lr=1e-3, weight_decay=0.0, fused=True)

    def ours():
        for one, grad, (first, second) in zip(wide, grads, moments, strict=True):
            on_device.adam_(grad, one, first, second, step=1, lr=1e-3, betas=(0.9, 0.999),
                            eps=1e-8, weight_decay=0.0)  # fmt: skip

    def step():
        optimizer.step()

    return [Op("adam", ours, {"eager": step})]


def faiss_top(g: Inputs, shape: Shape) -> Call | None:
    """faiss's flat index on this GPU, without seen items; None where faiss-gpu is not installed."""
    try:
        import faiss

        resources = faiss.StandardGpuResources()
    except (ImportError, AttributeError):
        return None
    index = faiss.GpuIndexFlatIP(resources, shape.d)
    index.add(g.items.cpu().numpy())
    queries = g.embedding.cpu().numpy()
    return lambda: index.search(queries, shape.n)


def in_tf32(call: Call) -> Call:
    """The call with cuBLAS on tensor cores."""

    def run() -> tuple[Tensor, ...] | Tensor:
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            return call()
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before

    run.__name__ = "in_tf32"
    return run
