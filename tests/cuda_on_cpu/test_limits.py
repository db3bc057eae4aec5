"""Kernels at their limits: the largest sizes, full shared memory, values of exactly zero, ids just
out of range, and how many launches an op takes."""

from __future__ import annotations

from ctypes import byref, c_int64, c_void_p

import kernels
import pytest
import torch
from drawing import Draw
from kernels import BF16, EXACT, FP32, TF32, StatusError

from benchmarks.gpu import roofline
from cfsae_fast import reference
from cfsae_fast.inference import CFAENetwork, FoldedTables, SAENetwork
from cfsae_fast.ops.containers import Code, Knobs, Rows, Stats

NOTHING = c_void_p(None)


def of_size(n_rows: int, dim: int):
    """A matrix of this size that nobody may read."""
    return byref(kernels._Matrix(None, n_rows, dim))


def code_of_size(n_rows: int, k: int):
    return byref(kernels._Code(n_rows, k, None, None))


def refused(device, name: str, *arguments) -> str:
    """The status of a call whose first launch fails; what is too large never gets that far."""
    device.begin(0, fail_launch=0)
    with pytest.raises(StatusError) as error:
        device.call(name, *arguments, byref(kernels._Execution(None, None)))
    return str(error.value)


LARGEST = 2**31 - 1


def scan(device, n_rows: int, k: int) -> str:
    out = code_of_size(1, k)
    return refused(device, "recommend", of_size(1, 4), of_size(n_rows, 4), NOTHING, NOTHING,
                   NOTHING, out, 0)  # fmt: skip


def folded(device, n_rows: int, k: int) -> str:
    side = kernels._Folded(None, None, None, 7, n_rows, None, None)
    return refused(device, "folded_recommend", code_of_size(1, 3), byref(kernels._Stats()),
                   byref(side), of_size(1, 4), of_size(n_rows, 4), NOTHING, NOTHING, NOTHING,
                   code_of_size(1, k))  # fmt: skip


@pytest.mark.parametrize("op", [scan, folded])
def test_as_many_rows_as_an_id_can_name_and_as_many_results_as_a_key_array_holds(device, op):
    assert op(device, LARGEST, 5) == "launch failed"
    assert op(device, LARGEST + 1, 5) == "too large"
    assert op(device, LARGEST, 2**24) == "launch failed"
    assert op(device, LARGEST, 2**24 + 1) == "too large"


def grouped(device, n_entries: int, n_targets: int) -> str:
    rows = byref(kernels._Rows(1, None, None, None))
    grad_weight = c_void_p(256)
    return refused(device, "encode_rows_backward", rows, c_int64(n_entries), of_size(n_targets, 4),
                   of_size(1, 4), grad_weight, NOTHING, NOTHING)  # fmt: skip


def test_as_many_entries_as_32_bits_count(device):
    assert grouped(device, 2**32 - 1, 5) == "launch failed"
    assert grouped(device, 2**32, 5) == "too large"
    assert grouped(device, 7, LARGEST) == "launch failed"
    assert grouped(device, 7, LARGEST + 1) == "too large"


def gathered(device, n_rows: int, dim: int) -> str:
    rows = byref(kernels._Rows(n_rows, None, None, None))
    return refused(device, "encode_rows", rows, of_size(5, dim), NOTHING, NOTHING)


def test_a_grid_as_large_as_cuda_allows(device):
    assert gathered(device, LARGEST, 6) == "launch failed"
    assert gathered(device, LARGEST + 1, 6) == "too large"
    across = 65535 * 128 * 4  # columns of a row of blocks, four a thread
    assert gathered(device, 1, across) == "launch failed"
    assert gathered(device, 1, across + 4) == "too large"


def steered(device, k: int, most_knobs: int, fused: bool) -> str:
    knobs = byref(kernels._Knobs(1, None, None, None, None))
    given = (code_of_size(1, k), knobs, c_int64(most_knobs))
    if not fused:
        return refused(device, "steer", *given, code_of_size(1, k))
    rest = (of_size(9, 4), NOTHING, byref(kernels._Stats()), 0, NOTHING)
    return refused(device, "steer_decode", of_size(1, 4), *given, *rest)


@pytest.mark.parametrize("fused", [False, True])
def test_as_many_slots_as_shared_memory_holds(device, fused):
    assert steered(device, 2000, 48, fused) == "launch failed"
    assert steered(device, 2000, 49, fused) == "too large"


def test_steer_decode_takes_a_row_that_fills_all_slots(device):
    draw = Draw(3)
    code = Code(torch.arange(40, dtype=torch.int32).flip(0)[None], draw.normal(1, 40).abs())
    latents = torch.arange(40, 64, dtype=torch.int32)  # 64 slots, every one a latent of its own
    knobs = Knobs(torch.tensor([0, 24]), latents, draw.normal(24),
                  torch.full((24,), 2, dtype=torch.uint8))  # fmt: skip
    dictionary, embedding = draw.normal(64, 5), draw.normal(1, 5)
    stats = draw.stats(1)
    for seed in range(4):
        device.begin(seed)
        got = kernels.steer_decode(device, embedding, code, knobs, dictionary, None, stats,
                                   mode="residual")  # fmt: skip
        want = reference.steer_decode(embedding, code, knobs, dictionary, None, stats,
                                      mode="residual")  # fmt: skip
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_an_index_just_out_of_range_counts_as_padding(device):
    draw = Draw(4)
    code = Code(torch.tensor([[6, 2, 0]], dtype=torch.int32), torch.tensor([[3.0, 2.0, 1.0]]))
    inside = Code(torch.tensor([[-1, 2, 0]], dtype=torch.int32), torch.tensor([[0.0, 2.0, 1.0]]))
    dictionary, embedding = draw.normal(6, 5), draw.normal(1, 5)
    knobs = Knobs(torch.tensor([0, 1]), torch.zeros(1, dtype=torch.int32), torch.ones(1),
                  torch.full((1,), 2, dtype=torch.uint8))  # fmt: skip
    device.begin(1)
    got = kernels.steer_decode(device, embedding, code, knobs, dictionary, None, None,
                               mode="reconstruct")  # fmt: skip
    want = reference.steer_decode(embedding, inside, knobs, dictionary, None, None,
                                  mode="reconstruct")  # fmt: skip
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    device.begin(1)
    assert torch.equal(kernels.sparse_decode(device, code, dictionary),
                       kernels.sparse_decode(device, inside, dictionary))  # fmt: skip


@pytest.mark.parametrize("precision", [FP32, EXACT, TF32, BF16])
@pytest.mark.parametrize("batch", [3, 20])
def test_what_is_exactly_zero_is_not_kept(device, batch, precision):
    """The ReLU: with k above the number of positive values, zeros must not fill the rest."""
    draw = Draw(batch)
    encoder = draw.normal(140, 8)
    encoder[::2] = 0.0
    embedding, zeros = draw.normal(batch, 8), (torch.zeros(140), torch.zeros(8))
    device.begin(2)
    code = kernels.topk_encode(device, embedding, encoder, *zeros, 120, standardize=False,
                               precision=precision).code  # fmt: skip
    assert (code.values[code.indices >= 0] > 0).all()
    assert (code.values[code.indices < 0] == 0).all()
    assert not (code.indices[code.indices >= 0] % 2 == 0).any()


def test_a_folded_code_does_not_keep_what_is_exactly_zero(device):
    """A latent whose value is 0 survives the tables, is computed, and is padding all the same."""
    draw = Draw(5)
    items, encoder = draw.normal(30, 6), draw.normal(40, 6)
    encoder[::2] = 0.0
    bias, centre = torch.where(torch.arange(40) % 2 == 0, 0.0, draw.normal(40)), draw.normal(6)
    cfae = CFAENetwork("elsa", items.numpy(), items.numpy())
    arrays = (encoder.numpy(), bias.numpy(), encoder.numpy(), centre.numpy())
    side = FoldedTables.build(cfae, SAENetwork("topk", *arrays, 36, 36)).encode_side
    rows = Rows(torch.tensor([0, 9, 20]), draw.integers(30, 20).to(torch.int32), draw.normal(20))
    embedding = reference.encode_rows(rows, items)
    device.begin(2)
    got = kernels.folded_topk_encode(device, rows, side, embedding, encoder, bias, centre, 36)
    device.begin(2)
    want = kernels.topk_encode(device, embedding, encoder, bias, centre, 36)
    assert torch.equal(got.code.indices, want.code.indices)
    assert (got.code.indices >= 0).any()
    assert not (got.code.indices[got.code.indices >= 0] % 2 == 0).any()


def test_as_many_survivors_as_are_worth_rescoring(device):
    """68 ties survive the tables, as many as may: one more and the dense scan answers. Latent 68,
    which only a dense scan would find (no table knows of its bias), tells which one did."""
    encoder = torch.ones(69, 4)
    encoder[68] = -1.0
    items, centre, bias = torch.ones(3, 4), torch.zeros(4), torch.zeros(69)
    cfae = CFAENetwork("elsa", items.numpy(), items.numpy())
    arrays = (encoder.numpy(), bias.numpy(), encoder.numpy(), centre.numpy())
    sae = SAENetwork("topk", *arrays, 1, 1, standardize=False)
    side = FoldedTables.build(cfae, sae).encode_side
    rows = Rows(torch.tensor([0, 2]), torch.tensor([0, 1], dtype=torch.int32))
    embedding = reference.encode_rows(rows, items)
    bias[68] = 1e6
    for k, latent in ((1, 0), (2, 0), (60, 0)):  # 4 k + 64 may survive
        device.begin(3)
        code = kernels.folded_topk_encode(device, rows, side, embedding, encoder, bias, centre, k,
                                          standardize=False).code  # fmt: skip
        assert code.indices[0, 0] == latent
    encoder = torch.cat([encoder[:1], encoder])  # 69 ties
    bias = torch.cat([bias[:1], bias])
    arrays = (encoder.numpy(), torch.zeros(70).numpy(), encoder.numpy(), centre.numpy())
    sae = SAENetwork("topk", *arrays, 1, 1, standardize=False)
    side = FoldedTables.build(cfae, sae).encode_side
    device.begin(3)
    code = kernels.folded_topk_encode(device, rows, side, embedding, encoder, bias, centre, 1,
                                      standardize=False).code  # fmt: skip
    assert code.indices[0, 0] == 69


def test_exact_rescores_up_to_512_latents_a_row(device):
    draw = Draw(9)
    embedding, encoder, zeros = draw.normal(17, 4), draw.normal(600, 4), draw.normal(600)
    for k, count in ((512, 10), (513, 5)):  # beyond, the fp32 scan answers
        found = launches(device, kernels.topk_encode, embedding, encoder, zeros, torch.zeros(4), k,
                         precision=EXACT)  # fmt: skip
        assert found == count


def test_entries_behind_the_last_row_count_for_nothing(device):
    draw = Draw(2)
    rows = draw.rows(3, 9, 5)
    longer = rows._replace(
        items=torch.cat([rows.items, torch.tensor([4, 4, 7], dtype=torch.int32)]),
        values=torch.cat([rows.values, torch.full((3,), 1e6)]),
    )
    weight, grad = draw.normal(9, 4), draw.normal(3, 4)
    for given in (rows, longer):
        device.begin(1)
        got = kernels.encode_rows_backward(device, given, weight, grad)[0]
        want = torch.zeros(9, 4)
        owner = torch.repeat_interleave(torch.arange(3), rows.offsets.diff())
        taken = slice(int(rows.offsets[0]), int(rows.offsets[-1]))
        want.index_add_(0, rows.items[taken].long(), rows.values[taken, None] * grad[owner])
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", [FP32, EXACT])
@pytest.mark.parametrize("batch", [2, 20])
def test_more_results_than_rows_and_candidates(device, batch, precision):
    draw = Draw(batch)
    embedding, items = draw.normal(batch, 6), draw.normal(20, 6)
    device.begin(3)
    got = kernels.recommend(device, embedding, items, 150, precision=precision)
    want = reference.recommend(embedding, items, 150)
    assert torch.equal(got.ids, want.ids)
    torch.testing.assert_close(got.scores, want.scores, rtol=1e-4, atol=1e-4)


def test_gradients_of_constant_rows_are_finite(device):
    """A row whose deviation is 0: what would go to it by way of its std is left out."""
    draw = Draw(6)
    embedding = torch.tensor([0.5, -0.25, 0.0, 2.0])[:, None].expand(4, 8).clone()
    embedding[2] = draw.normal(8)
    encoder, centre = draw.normal(9, 8), draw.normal(8)
    code = draw.code(4, 3, 9, padded=0.0)
    stats = Stats(embedding.double().mean(1).float(), (embedding.double().std(1) + 1e-7).float())
    grads = [draw.normal(4, 3), draw.normal(4), draw.normal(4)]
    device.begin(1)
    got = kernels.topk_encode_backward(device, embedding, encoder, centre, code, stats, grads)
    assert all(one.isfinite().all() for one in got)
    du = grads[0].double()[:, :, None] * encoder.double()[code.indices.long()]
    du = du.sum(1) / stats.std.double()[:, None]
    want = du - du.mean(1, keepdim=True) + grads[1].double()[:, None] / 8
    for row in (0, 1, 3):
        scale = float(du[row].abs().max())
        torch.testing.assert_close(got[0][row].double(), want[row], rtol=1e-4, atol=1e-5 * scale)


def launches(device, op, *arguments, **options) -> int:
    device.begin(0)
    op(device, *arguments, **options)
    return device.launches


def test_an_op_takes_as_many_launches_as_its_roofline_says(device):
    few, many = (roofline.costs(roofline.Shape(batch)) for batch in (1, 512))
    draw = Draw(8)
    rows, items = draw.rows(17, 300, 5), draw.normal(300, 6)  # two passes of the sort, as there
    embedding, bias, centre = draw.normal(17, 6), draw.normal(300), draw.normal(6)
    code, stats = draw.code(17, 4, 300), draw.stats(17)
    encode = embedding, items, bias, centre, 4
    found = {"encode_rows": launches(device, kernels.encode_rows, rows, items)}
    names = {"fp32": FP32, "exact": EXACT, "tf32": TF32, "bf16": BF16}
    for name, precision in names.items():
        found[f"topk_encode {name}"] = launches(device, kernels.topk_encode, *encode,
                                                precision=precision)  # fmt: skip
        found[f"recommend {name}"] = launches(device, kernels.recommend, embedding, items, 5,
                                              precision=precision)  # fmt: skip
    found["sparse_decode"] = launches(device, kernels.sparse_decode, code, items, None, stats)
    found["sparse_decode backward"] = launches(
        device, kernels.sparse_decode_backward, code, items, centre, stats, embedding
    )
    found["topk_encode backward"] = launches(
        device, kernels.topk_encode_backward, embedding, items, centre, code, stats,
        [code.values, None, None],
    )  # fmt: skip
    grad = draw.normal(17, 6)
    found["encode_rows backward"] = launches(
        device, kernels.encode_rows_backward, rows, items, grad
    )
    found["encode_rows backward"] -= 2  # of bias and values, which training does not ask for
    knobs = draw.knobs(17, 300, 3)
    found["steer"] = launches(device, kernels.steer, code, knobs, 7)
    found["steer_decode"] = launches(device, kernels.steer_decode, embedding, code, knobs, items,
                                     None, stats, mode="residual")  # fmt: skip
    assert found == {name: many[name].launches for name in found}
    both = found.keys() & few.keys()
    assert {name: found[name] for name in both} == {name: few[name].launches for name in both}
