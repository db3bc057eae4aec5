"""How an op reaches its device: guard, stream, errors, what is never waited for, composition."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from folded_model import Model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from cfsae_fast import _C, ops, reference
from cfsae_fast.ops import Code, Knobs, Rows, device, device_checks


@pytest.fixture
def draw():
    return torch.Generator().manual_seed(7)


def encode_arguments(draw, batch=20, dim=12, n_latents=60, k=5):
    sizes = [(batch, dim), (n_latents, dim), (n_latents,), (dim,)]
    return *(torch.randn(*size, generator=draw) for size in sizes), k


def some_knobs(weights=(0.5,)):
    n = len(weights)
    return Knobs(torch.tensor([0, n]), torch.arange(n, dtype=torch.int32),
                 torch.tensor(weights), torch.full((n,), 2, dtype=torch.uint8))  # fmt: skip


def test_without_the_switch_the_cpu_answers(kernels, draw):
    kernels.begin()
    ops.topk_encode(*encode_arguments(draw))
    assert kernels.launches() == 0
    with device.emulate(kernels):
        ops.topk_encode(*encode_arguments(draw))
    assert kernels.launches() > 0


def test_a_launch_goes_to_the_tensors_device_and_the_one_before_comes_back(kernels):
    memory = torch.zeros(8)
    array = kernels.DeviceArray(memory.data_ptr(), (8,), "float32")
    kernels.begin()
    kernels.adam(array, array, array, array, 0.1, 0.9, 0.9, 1e-8, 0.0, 1, kernels.Queue(1, 0))
    assert kernels.launched_on() == [1]
    assert kernels.current_device() == 0
    with pytest.raises(RuntimeError, match="adam could not be launched"):
        kernels.adam(array, array, array, array, 0.1, 0.9, 0.9, 1e-8, 0.0, 1, kernels.Queue(2, 0))


def test_an_op_goes_to_the_current_stream_of_its_tensors_device(monkeypatch):
    said = []
    queue = SimpleNamespace(Queue=lambda index, stream: (index, stream), op=said.append)
    monkeypatch.setattr(device, "_kernels", lambda: queue)
    streams = {"cuda:1": 77, "cuda:0": 78}
    monkeypatch.setattr(torch.cuda, "current_stream",
                        lambda of: SimpleNamespace(cuda_stream=streams[str(of)]))  # fmt: skip
    with FakeTensorMode():
        for name in streams:
            device._Call(torch.empty(3, device=name), "x").run("op")
    assert said == [(1, 77), (0, 78)]


def test_a_failed_launch_and_exhausted_memory_are_exceptions_and_the_next_call_works(
    emulated, draw
):
    arguments = encode_arguments(draw)
    whole = ops.topk_encode(*arguments).code
    n_launches = emulated.launches()
    assert n_launches > 3
    for launch in range(n_launches):
        for out_of_memory, error in ((False, RuntimeError), (True, MemoryError)):
            emulated.begin(fail_launch=launch, out_of_memory=out_of_memory)
            with pytest.raises(error):
                ops.topk_encode(*arguments)
            emulated.begin()
            assert torch.equal(ops.topk_encode(*arguments).code.values, whole.values)


def test_a_failed_launch_in_the_backward_pass_is_an_exception(emulated, draw):
    embedding, encoder, bias, centre, k = encode_arguments(draw)
    encoder.requires_grad_()
    loss = ops.topk_encode(embedding, encoder, bias, centre, k).code.values.sum()
    emulated.begin(fail_launch=2)
    with pytest.raises(RuntimeError, match="topk_encode_backward could not be launched"):
        loss.backward()
    assert encoder.grad is None


def test_a_real_door_without_a_device_says_so():
    if not hasattr(_C, "cuda") or torch.cuda.is_available():
        pytest.skip("needs an engine with kernels and no device")
    array = _C.cuda.DeviceArray(256, (2,), "float32")
    with pytest.raises(RuntimeError, match="adam could not be launched on the device: .*CUDA"):
        _C.cuda.adam(array, array, array, array, 0.1, 0.9, 0.9, 1e-8, 0.0, 1, _C.cuda.Queue(0, 0))


@pytest.fixture
def cpu_build(monkeypatch):
    """An engine built without kernels."""
    info = {"why": "nvcc was not found on PATH"}
    monkeypatch.setattr(device, "_C", SimpleNamespace(build_info=lambda: info))


def test_a_cuda_tensor_without_kernels_says_how_to_build(cpu_build):
    with FakeTensorMode():  # the one way to have a CUDA tensor without CUDA
        tensor = torch.empty(3, 2, device="cuda")
    for ask in (lambda: device.serves(tensor), lambda: device.place("cuda")):
        with pytest.raises(NotImplementedError, match="no CUDA kernels.*nvcc.*CFSAE_CUDA=1 pip"):
            ask()
    assert not device.serves(torch.empty(3))


def test_a_device_must_be_known_and_present(emulated):
    assert device.place("cuda") == torch.device("cpu")  # emulated
    with pytest.raises(NotImplementedError, match="device must be cpu or cuda, got mps"):
        device.place("mps")


def test_all_arguments_lie_on_one_device(emulated):
    with pytest.raises(ValueError, match="encoder must be on cpu as embedding is, got meta"):
        device.topk_encode(torch.zeros(2, 3), torch.zeros(4, 3, device="meta"), torch.zeros(4),
                           torch.zeros(3), 2)  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_are_refused(emulated, draw, dtype):
    embedding, *rest = encode_arguments(draw)
    with pytest.raises(TypeError, match=f"embedding must be float32, got {str(dtype)[6:]}"):
        ops.topk_encode(embedding.to(dtype), *rest)


def test_too_many_knobs_for_a_block_are_refused(emulated):
    n = 2048
    code = Code(torch.zeros(1, 1, dtype=torch.int32), torch.ones(1, 1))
    knobs = some_knobs([0.1] * n)
    with pytest.raises(ValueError, match="k \\+ knobs of a row at most 2048"):
        ops.steer(code, knobs, n_latents=n)


def test_ids_out_of_range_count_as_padding_and_checked_refuses_them(emulated, draw):
    weight = torch.randn(4, 6, generator=draw, requires_grad=True)
    rows = Rows(torch.tensor([0, 3]), torch.tensor([1, 900, -7], dtype=torch.int32))
    out = ops.encode_rows(rows, weight)
    assert torch.equal(out[0], weight[1])
    (grad,) = torch.autograd.grad(out.sum(), weight)
    assert torch.equal(grad, torch.eye(4)[1][:, None].expand(4, 6))
    code = Code(torch.tensor([[2, 77]], dtype=torch.int32), torch.tensor([[2.0, 9.0]]))
    assert torch.equal(ops.sparse_decode(code, weight)[0], 2 * weight[2])
    moved = device.steer_decode(torch.zeros(1, 6), code, some_knobs(), weight.detach(), None, None,
                                mode="reconstruct")  # fmt: skip
    torch.testing.assert_close(moved[0], 2 * weight[2] + 0.5 * weight[0])
    with ops.checked():
        with pytest.raises(ValueError, match=r"rows.items must lie in \[0, 4\), got 900"):
            ops.encode_rows(rows, weight)
        with pytest.raises(ValueError, match=r"code.indices must lie in \[-1, 4\), got 77"):
            ops.sparse_decode(code, weight)


@pytest.mark.parametrize("precision", ops.PRECISIONS)
@pytest.mark.parametrize("batch", [3, 40])
def test_every_precision_answers(emulated, draw, precision, batch):
    embedding, encoder, bias, centre, k = encode_arguments(draw, batch)
    got = ops.topk_encode(embedding, encoder, bias, centre, k, precision=precision)
    want = reference.topk_encode(embedding.double(), encoder.double(), bias.double(),
                                 centre.double(), k)  # fmt: skip
    same = (got.code.indices == want.code.indices).double().mean()
    assert same == 1 if precision in ("exact", "fp32") else same > 0.7
    found = ops.recommend(embedding, encoder, 7, precision=precision)
    true = reference.recommend(embedding.double(), encoder.double(), 7)
    assert (found.ids == true.ids).double().mean() >= (0.7 if precision not in
                                                       ("exact", "fp32") else 1)  # fmt: skip


def test_an_unknown_precision_is_refused_on_both_sides(kernels, draw):
    with pytest.raises(ValueError, match="precision must be one of .*got 'half'"):
        ops.topk_encode(*encode_arguments(draw), precision="half")
    with device.emulate(kernels), pytest.raises(ValueError, match="precision must be"):
        device.topk_encode(*encode_arguments(draw), precision="half")


def test_a_compiled_step_equals_the_plain_one(emulated, draw):
    embedding, encoder, bias, centre, k = encode_arguments(draw)
    rows = Rows(torch.tensor([0, 2, 3]), torch.tensor([0, 3, 1], dtype=torch.int32))

    def step(weight, encoder):
        code, stats = ops.topk_encode(ops.encode_rows(rows, weight), encoder, bias, centre, k)
        return ops.sparse_decode(code, encoder, centre, stats).square().sum()

    answers = []
    for run in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        leaves = embedding.clone().requires_grad_(), encoder.clone().requires_grad_()
        emulated.begin()
        loss = run(*leaves)
        loss.backward()
        assert emulated.launches() > 20  # forward and backward, on the device
        answers.append((loss.detach(), *(leaf.grad for leaf in leaves)))
    assert all(torch.equal(one, other) for one, other in zip(*answers, strict=True))


class NothingWaits(TorchDispatchMode):
    """Refuses what makes the host wait for a device, and sizes that only it could know."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waits = ("_local_scalar_dense", "nonzero", "equal", "_to_copy", "masked_select", "unique")
        assert not any(word in str(func) for word in waits), f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


def test_what_a_graph_records_never_waits(emulated, draw, monkeypatch):
    """Every op, forward and backward, with its knobs on the device, as inside a capture."""
    folded = Model(2)
    summed = folded.embedding()
    told_of = ops.topk_encode(summed, *folded.encoding)
    monkeypatch.setattr(device_checks, "capturing", lambda: True)
    embedding, encoder, bias, centre, k = encode_arguments(draw)
    rows = Rows(torch.tensor([0, 2, 3]), torch.tensor([0, 3, 1], dtype=torch.int32))
    seen = Rows(torch.zeros(21, dtype=torch.int64), torch.zeros(0, dtype=torch.int32))
    knobs, all_of = some_knobs((0.5, -0.2)), {"wanted": (True,) * 5}
    with NothingWaits():
        out = device.encode_rows(rows, embedding)
        device.encode_rows_backward(rows, embedding, out, wanted=(True,) * 3)
        code, stats = device.topk_encode(embedding, encoder, bias, centre, k)
        device.topk_encode_backward(embedding, encoder, centre, code.indices, stats, code.values,
                                    stats, wanted=(True,) * 4)  # fmt: skip
        told = device.sparse_decode(code, encoder, centre, stats)
        device.sparse_decode_backward(code, encoder, centre, stats, told, **all_of)
        moved = device.steer_decode(embedding, code, knobs, encoder, None, stats, mode="residual")
        found = device.recommend(moved, encoder, 4, seen=seen)
        device.folded_topk_encode(folded.rows, folded.encode_side, summed, *folded.encoding)
        device.folded_recommend(*told_of, folded.decode_side, summed, folded.items, 4,
                                seen=folded.seen)  # fmt: skip
        device.folded_scores(told_of.code, folded.decode_side.table)
        with pytest.raises(RuntimeError, match="steer must know .* call steer_decode"):
            device.steer(code, knobs, n_latents=60)
    monkeypatch.undo()
    again = ops.steer_decode(embedding, code, knobs, encoder, None, stats, mode="residual")
    assert torch.equal(moved, again)
    assert found.ids.shape == (20, 4)


# Memory, copies and waiting are for the runtime's door alone, whose words platform.h lends it.
DOOR = {"platform.h", "runtime_door.cu"}
RAW = ("cudaMalloc", "Synchronize", "cudaFree", "cudaMemcpy(", "cudaMemset(")
LENT = ("allocate_on(", "release_on(", "copy_on(", "wait_for(",
        "allocate(", "release(", "copy_in(", "copy_out(")  # fmt: skip


def test_kernels_neither_wait_nor_allocate():
    saying = {
        path.name for path in building_sources() if any(w in path.read_text() for w in RAW + LENT)
    }
    assert saying == DOOR


def building_sources():
    import building

    found = [*(building.ROOT / "csrc" / "cuda").iterdir()]
    assert len(found) > 20
    return found


def test_adam_is_torchs(emulated, draw):
    parameter = torch.nn.Parameter(torch.randn(300, generator=draw))
    theirs = torch.optim.AdamW([parameter], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    mine, first, second = parameter.detach().clone(), torch.zeros(300), torch.zeros(300)
    for step in range(1, 4):
        parameter.grad = torch.randn(300, generator=draw)
        theirs.step()
        device.adam_(parameter.grad, mine, first, second, step=step, lr=0.01, betas=(0.9, 0.99),
                     eps=1e-8, weight_decay=0.1)  # fmt: skip
    torch.testing.assert_close(mine, parameter.detach())
