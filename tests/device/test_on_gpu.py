"""What only a GPU can show: graphs replayed, other streams, answers of the real kernels."""

from __future__ import annotations

import pytest
import torch

from cfsae_fast import ops, reference
from cfsae_fast.ops import Rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def arguments(batch=100):
    torch.manual_seed(3)
    sizes = [(batch, 48), (400, 48), (400,), (48,)]
    return *(torch.randn(*size, device="cuda") for size in sizes), 8


def test_a_graph_replays_the_op_on_new_inputs():
    embedding, *rest = arguments()
    ops.topk_encode(embedding, *rest)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = ops.topk_encode(embedding, *rest).code
    embedding.copy_(torch.randn_like(embedding))
    graph.replay()
    want = ops.topk_encode(embedding, *rest).code
    assert torch.equal(recorded.indices, want.indices)
    assert torch.equal(recorded.values, want.values)


def test_an_op_waits_for_its_stream_and_no_other():
    embedding, *rest = arguments()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        late = embedding.clone()
        for _ in range(50):
            late = late @ torch.eye(48, device="cuda")
        got = ops.topk_encode(late, *rest).code
    side.synchronize()
    there = [one.double().cpu() for one in (late, *rest[:3])]
    want = reference.topk_encode(*there, rest[3]).code
    assert torch.equal(got.indices.cpu(), want.indices)


def test_a_compiled_step_trains():
    embedding, encoder, bias, centre, k = arguments()
    rows = Rows(torch.tensor([0, 2, 3], device="cuda"),
                torch.tensor([0, 3, 1], dtype=torch.int32, device="cuda"))  # fmt: skip

    def step(weight, encoder):
        code, stats = ops.topk_encode(ops.encode_rows(rows, weight), encoder, bias, centre, k)
        return ops.sparse_decode(code, encoder, centre, stats).square().sum()

    found = []
    for run in (step, torch.compile(step, fullgraph=True)):
        leaves = embedding.clone().requires_grad_(), encoder.clone().requires_grad_()
        run(*leaves).backward()
        found.append([leaf.grad for leaf in leaves])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
