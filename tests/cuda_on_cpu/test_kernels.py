"""Every kernel against the fp64 reference, under adversarial schedules, at hostile small shapes."""

from __future__ import annotations

import kernels
import pytest
import torch
from drawing import Draw
from kernels import BF16, EXACT, FP32, TF32

from cfsae_fast import reference
from cfsae_fast.ops.containers import Code, Knobs, Rows, Stats

SEEDS = range(21)  # 0 runs in order; the others take the three random schedules in turn


def wide(value):
    """Floats as float64, containers field by field."""
    if isinstance(value, tuple):
        return type(value)(*(wide(field) for field in value))
    return value.double() if torch.is_tensor(value) and value.is_floating_point() else value


def close(got, want, tolerance=2e-5):
    torch.testing.assert_close(got.double(), want.double(), rtol=tolerance, atol=tolerance)


def same_code(got: Code, want: Code, tolerance=2e-5):
    assert torch.equal(got.indices, want.indices)
    close(got.values, want.values, tolerance)


def begin(device, seed):
    device.begin(seed, misaligned=seed % 2 == 1)


def grads_of(out, inputs, grads):
    """Gradients of sum(out * grad) by autograd; zeros where there is no path."""
    total = sum((o * g).sum() for o, g in zip(out, grads, strict=True))
    found = torch.autograd.grad(total, inputs, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


ROWS = [(0, 4, 3), (1, 1, 1), (5, 7, 33), (9, 40, 128), (3, 300, 516)]


@pytest.mark.parametrize("seed", SEEDS)
def test_encode_rows_and_backward(device, seed):
    n_rows, n_items, dim = ROWS[seed % len(ROWS)]
    draw = Draw(seed)
    rows = draw.rows(n_rows, n_items, 12, values=seed % 3 != 0)
    weight, bias = draw.normal(n_items, dim), draw.normal(dim) if seed % 2 else None
    begin(device, seed)
    close(kernels.encode_rows(device, rows, weight, bias), reference.encode_rows(
        wide(rows), wide(weight), None if bias is None else wide(bias)))  # fmt: skip

    grad = draw.normal(n_rows, dim)
    leaves = [
        wide(weight).requires_grad_(),
        torch.zeros(dim).double().requires_grad_(),
        torch.ones(len(rows.items)).double() if rows.values is None else wide(rows.values),
    ]
    leaves[2].requires_grad_()
    out = reference.encode_rows(Rows(rows.offsets, rows.items, leaves[2]), *leaves[:2])
    want = grads_of([out], leaves, [wide(grad)])
    begin(device, seed)
    got = kernels.encode_rows_backward(device, rows, weight, grad)
    first = int(rows.offsets[0])
    close(got[0], want[0])
    close(got[1], want[1])
    close(got[2][first:], want[2][first:])


@pytest.mark.parametrize("seed", range(4))
def test_gradients_of_entries_that_fill_many_tiles_of_the_sort(device, seed):
    n_rows, n_items, dim = 3, 700, 2  # two passes of eight bits, several tiles of 2048 entries
    draw = Draw(seed)
    offsets = torch.tensor([0, 2500, 2500, 4800])
    rows = Rows(offsets, draw.integers(n_items, 4800).to(torch.int32), draw.normal(4800))
    grad = draw.normal(n_rows, dim)
    begin(device, seed)
    got = kernels.encode_rows_backward(device, rows, torch.zeros(n_items, dim), grad)[0]
    owner = torch.repeat_interleave(torch.arange(n_rows), offsets.diff())
    want = torch.zeros(n_items, dim).double()
    want.index_add_(0, rows.items.long(), wide(rows.values)[:, None] * wide(grad)[owner])
    close(got, want, 1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_sparse_decode_and_backward(device, seed):
    n_rows, n_latents, dim = ROWS[seed % len(ROWS)]
    k = min(n_latents, (1, 4, 33)[seed % 3])
    draw = Draw(seed)
    code = draw.code(n_rows, k, n_latents, padded=1.0 if seed % 7 == 6 else 0.2)
    dictionary, bias = draw.normal(n_latents, dim), draw.normal(dim) if seed % 2 else None
    stats = draw.stats(n_rows) if seed % 3 else None
    begin(device, seed)
    got = kernels.sparse_decode(device, code, dictionary, bias, stats)
    wide_bias = None if bias is None else wide(bias)
    wide_stats = None if stats is None else wide(stats)
    close(got, reference.sparse_decode(wide(code), wide(dictionary), wide_bias, wide_stats))

    grad, own = draw.normal(n_rows, dim), stats or Stats(torch.zeros(n_rows), torch.ones(n_rows))
    own_bias = torch.zeros(dim) if bias is None else bias
    leaves = [wide(x).requires_grad_() for x in (code.values, dictionary, own_bias, *own)]
    out = reference.sparse_decode(Code(code.indices, leaves[0]), *leaves[1:3], Stats(*leaves[3:]))
    want = grads_of([out], leaves, [wide(grad)])
    want[0] = torch.where(code.indices == -1, 0.0, want[0])
    begin(device, seed)
    got = kernels.sparse_decode_backward(device, code, dictionary, bias, stats, grad)
    for mine, true in zip(got, want, strict=True):
        close(mine, true, 5e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_steer_and_steer_decode(device, seed):
    n_rows, n_latents, dim = [(0, 4, 3), (1, 1, 1), (6, 9, 33), (7, 40, 128), (2, 90, 1100)][
        seed % 5
    ]
    draw = Draw(seed)
    code = draw.code(n_rows, min(n_latents, 1 + seed % 20), n_latents)
    if seed % 4 == 3:
        code.values[:, 0] = float("nan")  # counts as 0
    shared = seed % 3 == 2
    knobs = draw.knobs(1 if shared else n_rows, n_latents, (0, 3, 12)[seed % 3])
    dictionary, bias = draw.normal(n_latents, dim), draw.normal(dim) if seed % 2 else None
    embedding, stats = draw.normal(n_rows, dim), draw.stats(n_rows) if seed % 5 else None
    want = reference.steer(wide(code), wide(knobs), n_latents=n_latents)
    begin(device, seed)
    same_code(kernels.steer(device, code, knobs, want.indices.shape[1]), want)
    for mode in ("residual", "reconstruct"):
        begin(device, seed)
        got = kernels.steer_decode(device, embedding, code, knobs, dictionary, bias, stats,
                                   mode=mode)  # fmt: skip
        want = reference.steer_decode(
            wide(embedding), wide(code), wide(knobs), wide(dictionary),
            None if bias is None else wide(bias), None if stats is None else wide(stats), mode=mode,
        )  # fmt: skip
        close(got, want, 5e-5)
        if mode == "residual" and not shared:
            untouched = knobs.offsets[1:] == knobs.offsets[:-1]
            assert torch.equal(got[untouched], embedding[untouched])


def test_steer_refuses_more_slots_than_shared_memory_holds(device):
    device.begin(0)
    code = Code(torch.zeros(1, 2048, dtype=torch.int32), torch.zeros(1, 2048))
    knobs = Knobs(torch.tensor([0, 1]), torch.zeros(1, dtype=torch.int32), torch.ones(1),
                  torch.zeros(1, dtype=torch.uint8))  # fmt: skip
    with pytest.raises(kernels.StatusError, match="too large"):
        kernels.steer(device, code, knobs, 2049)


def test_steer_takes_a_row_that_fills_all_slots_and_pads_a_wider_result(device):
    draw = Draw(1)
    code = draw.code(1, 1048, 1500, padded=0.0)
    ordered = code.values[0].argsort(descending=True)
    code = Code(code.indices[:, ordered], code.values[:, ordered])
    latents = torch.arange(1000, dtype=torch.int32)
    knobs = Knobs(torch.tensor([0, 1000]), latents, draw.normal(1000),
                  torch.full((1000,), 2, dtype=torch.uint8))  # fmt: skip
    want = reference.steer(wide(code), knobs._replace(weights=wide(knobs.weights)), n_latents=1500)
    device.begin(2)
    got = kernels.steer(device, code, knobs, 2055)
    width = want.indices.shape[1]
    same_code(Code(got.indices[:, :width], got.values[:, :width]), want)
    assert (got.indices[:, width:] == -1).all()
    assert (got.values[:, width:] == 0).all()


# batch, dim, latents, k: each kernel of the scan, its tails, k = L, more than one split
SCANS = [(0, 8, 20, 4), (1, 1, 1, 1), (3, 33, 130, 7), (16, 20, 300, 32), (17, 40, 129, 129),
         (65, 12, 260, 5), (2, 64, 700, 100)]  # fmt: skip


@pytest.mark.parametrize("precision", [FP32, EXACT])
@pytest.mark.parametrize("seed", SEEDS)
def test_topk_encode(device, seed, precision):
    n_rows, dim, n_latents, k = SCANS[seed % len(SCANS)]
    draw = Draw(seed)
    embedding, encoder = draw.normal(n_rows, dim) + seed, draw.normal(n_latents, dim)
    bias, centre = draw.normal(n_latents), draw.normal(dim)
    standardize = seed % 3 != 0
    begin(device, seed)
    got = kernels.topk_encode(device, embedding, encoder, bias, centre, k,
                              standardize=standardize, precision=precision)  # fmt: skip
    want = reference.topk_encode(*map(wide, (embedding, encoder, bias, centre)), k,
                                 standardize=standardize)  # fmt: skip
    same_code(got.code, want.code, 5e-5)
    if standardize:
        close(got.stats.mean, want.stats.mean)
        close(got.stats.std, want.stats.std)


@pytest.mark.parametrize("precision", [FP32, EXACT])
@pytest.mark.parametrize("seed", range(4))
def test_a_block_that_scans_several_tiles_keeps_the_best_of_all(device, seed, precision):
    n_items, dim = 64 * 128 + 200, 4  # 64 shares at most: two tiles each, the last one short
    draw = Draw(seed)
    embedding, items = draw.normal(17, dim), draw.normal(n_items, dim)
    seen = draw.rows(17, n_items, 400, values=False)
    allowed = (draw.normal(n_items) > -0.5).to(torch.uint8)
    begin(device, seed)
    got = kernels.recommend(device, embedding, items, 9, seen=seen, allowed=allowed,
                            precision=precision)  # fmt: skip
    want = reference.recommend(wide(embedding), wide(items), 9, seen=seen, allowed=allowed)
    assert torch.equal(got.ids, want.ids)
    close(got.scores, want.scores)


def rounded(value):
    return value.to(torch.bfloat16).double()


@pytest.mark.parametrize("seed", SEEDS)
def test_topk_encode_on_tensor_cores_is_near(device, seed):
    draw = Draw(seed)
    embedding, encoder = draw.normal(33, 24), draw.normal(140, 24)
    arguments = (embedding, encoder, draw.normal(140), draw.normal(24), 6)
    device.begin(seed)
    got = kernels.topk_encode(device, *arguments, precision=TF32)
    want = reference.topk_encode(*arguments)
    assert (got.code.indices == want.code.indices).double().mean() > 0.9
    close(got.code.values, want.code.values, 2e-2)


@pytest.mark.parametrize("seed", SEEDS)
def test_scans_in_bf16_are_those_of_rounded_operands(device, seed):
    n_rows, dim, n_items, n = SCANS[seed % len(SCANS)]
    draw = Draw(seed)
    embedding, items = draw.normal(n_rows, dim), draw.normal(n_items, dim)
    seen = draw.rows(n_rows, n_items, 20, values=False)
    begin(device, seed)
    got = kernels.recommend(device, embedding, items, n, seen=seen, precision=BF16)
    round_ = rounded if n_rows > 16 else wide  # few queries take the fp32 kernel
    want = reference.recommend(round_(embedding), round_(items), n, seen=seen)
    assert torch.equal(got.ids, want.ids)
    close(got.scores, want.scores, 5e-5)
    bias, centre = draw.normal(n_items), draw.normal(dim)
    begin(device, seed)
    code = kernels.topk_encode(device, embedding, items, bias, centre, n, standardize=False,
                               precision=BF16).code  # fmt: skip
    scores = round_(embedding - centre) @ round_(items).T + wide(bias)
    values, indices = scores.clamp(min=0).topk(n, dim=1)
    close(code.values, values, 5e-5)
    assert torch.equal(torch.where(code.indices < 0, 0, code.indices),
                       torch.where(values > 0, indices, 0).to(torch.int32))  # fmt: skip


@pytest.mark.parametrize("precision", [FP32, EXACT])
@pytest.mark.parametrize("batch", [2, 18])
def test_topk_encode_breaks_ties_and_drops_nan(device, batch, precision):
    encoder = torch.eye(4)[torch.arange(150) % 4] * 1.0  # many rows alike
    encoder[8] = float("nan")
    embedding = torch.arange(batch * 4.0).reshape(batch, 4) % 5 - 1
    zeros = torch.zeros(150), torch.zeros(4)
    for seed in range(4):
        device.begin(seed)
        got = kernels.topk_encode(device, embedding, encoder, *zeros, 40, standardize=False,
                                  precision=precision)  # fmt: skip
        want = reference.topk_encode(embedding, encoder, *zeros, 40, standardize=False)
        assert torch.equal(got.code.indices, want.code.indices)
        assert torch.equal(got.code.values, want.code.values)


def test_an_unproven_row_is_scanned_again_in_fp32(device):
    """Rows that differ only below tf32's precision: the bound must refuse, the rescan decide."""
    draw = Draw(5)
    encoder = draw.normal(1, 16) + 1e-5 * draw.normal(400, 16)
    embedding = encoder[:1] + 1e-3 * draw.normal(20, 16)
    zeros = torch.zeros(400), torch.zeros(16)
    device.begin(1)
    got = kernels.topk_encode(device, embedding, encoder, *zeros, 8, standardize=False,
                              precision=EXACT)  # fmt: skip
    device.begin(1)
    fp32 = kernels.topk_encode(device, embedding, encoder, *zeros, 8, standardize=False)
    assert torch.equal(got.code.indices, fp32.code.indices)
    assert torch.equal(got.code.values, fp32.code.values)
    device.begin(1)
    near = kernels.topk_encode(device, embedding, encoder, *zeros, 8, standardize=False,
                               precision=TF32)  # fmt: skip
    assert not torch.equal(near.code.indices, fp32.code.indices)  # or this test proves nothing


@pytest.mark.parametrize("seed", SEEDS)
def test_topk_encode_backward(device, seed):
    n_rows, dim, n_latents, k = SCANS[seed % len(SCANS)]
    k = min(k, 33)
    draw = Draw(seed)
    embedding, encoder = draw.normal(n_rows, dim), draw.normal(n_latents, dim)
    bias, centre = draw.normal(n_latents), draw.normal(dim)
    leaves = [wide(x).requires_grad_() for x in (embedding, encoder, bias, centre)]
    standardize = seed % 3 != 0
    code, stats = reference.topk_encode(*leaves, k, standardize=standardize)
    outs = [code.values] if stats is None else [code.values, stats.mean, stats.std]
    grads = [draw.normal(*out.shape) for out in outs]
    want = grads_of(outs, leaves, [wide(grad) for grad in grads])
    plain = Code(code.indices, code.values.detach().float())
    kept = None if stats is None else Stats(*(x.detach().float() for x in stats))
    begin(device, seed)
    got = kernels.topk_encode_backward(device, embedding, encoder, centre, plain, kept,
                                       [*grads, None, None][:3])  # fmt: skip
    for mine, true in zip(got, want, strict=True):
        close(mine, true, 2e-4)


@pytest.mark.parametrize("precision", [FP32, EXACT])
@pytest.mark.parametrize("seed", SEEDS)
def test_recommend(device, seed, precision):
    n_rows, dim, n_items, n = SCANS[seed % len(SCANS)]
    draw = Draw(seed)
    embedding, items = draw.normal(n_rows, dim), draw.normal(n_items, dim)
    bias = draw.normal(n_items) if seed % 2 else None
    seen = draw.rows(n_rows, n_items, min(2 * n_items, 90), values=False) if seed % 3 else None
    allowed = (draw.normal(n_items) > -0.5).to(torch.uint8) if seed % 4 else None
    if n_items > 10:
        items[10] = float("nan") if precision == FP32 else float("-inf")
    begin(device, seed)
    got = kernels.recommend(device, embedding, items, n + 3, bias=bias, seen=seen, allowed=allowed,
                            precision=precision)  # fmt: skip
    want = reference.recommend(wide(embedding), wide(items), n + 3,
                               bias=None if bias is None else wide(bias), seen=seen,
                               allowed=allowed)  # fmt: skip
    assert torch.equal(got.ids, want.ids)
    close(got.scores, want.scores, 5e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_adam_is_torchs_adamw(device, seed):
    draw = Draw(seed)
    n = (1, 255, 1024, 2049)[seed % 4]
    parameter = torch.nn.Parameter(draw.normal(n))
    optimizer = torch.optim.AdamW([parameter], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    state = [parameter.detach().clone(), torch.zeros(n), torch.zeros(n)]
    for step in range(1, 4):
        parameter.grad = draw.normal(n)
        optimizer.step()
        begin(device, seed)
        state = kernels.adam(device, parameter.grad, *state, step=step, lr=0.01,
                             betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)  # fmt: skip
    close(state[0], parameter.detach(), 1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_ids_widen_and_codes_lose_what_is_no_larger_than_a_threshold(device, seed):
    n, draw = (0, 1, 255, 256, 257, 900)[seed % 6], Draw(seed)
    ids = draw.integers(2**31 - 1, n).to(torch.int32) - 2**30
    begin(device, seed)
    assert torch.equal(kernels.widen(device, ids), ids.long())
    code = draw.code(max(1, n // 3), 3, 7)
    threshold = float(code.values.median())  # a value of the code: it goes as well
    begin(device, seed)
    got = kernels.keep_above(device, code, threshold)
    kept = code.values > threshold
    assert torch.equal(got.indices, torch.where(kept, code.indices, -1))
    assert torch.equal(got.values, torch.where(kept, code.values, 0.0))


def test_the_same_answer_under_every_schedule_bit_for_bit(device):
    draw = Draw(0)
    embedding, encoder = draw.normal(20, 30), draw.normal(200, 30)
    rows = draw.rows(20, 9, 15)
    answers = set()
    for seed in range(8):
        device.begin(seed)
        code = kernels.topk_encode(device, embedding, encoder, torch.zeros(200), torch.zeros(30),
                                   9, precision=EXACT).code  # fmt: skip
        device.begin(seed)
        grad = kernels.encode_rows_backward(device, rows, torch.zeros(9, 30), embedding)[0]
        answers.add((code.values.numpy().tobytes(), grad.numpy().tobytes()))
    assert len(answers) == 1


def test_a_failed_launch_becomes_a_status_and_the_next_call_works(device):
    draw = Draw(0)
    arguments = (draw.normal(20, 8), draw.normal(50, 8), torch.zeros(50), torch.zeros(8), 4)
    device.begin(0)
    whole = kernels.topk_encode(device, *arguments, precision=EXACT)
    for launch in range(device.launches):
        device.begin(0, fail_launch=launch)
        with pytest.raises(kernels.StatusError, match="launch failed"):
            kernels.topk_encode(device, *arguments, precision=EXACT)
    device.begin(0)
    again = kernels.topk_encode(device, *arguments, precision=EXACT)
    assert torch.equal(again.code.values, whole.code.values)
