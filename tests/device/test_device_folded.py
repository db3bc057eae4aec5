"""The folded ops on the emulated device: the dense answers, from the tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from folded_model import Model
from hypothesis import given, settings
from hypothesis import strategies as st

from cfsae_fast import ops
from cfsae_fast.ops import Code, device, folded_tensors


def same(got, want) -> None:
    assert all(torch.equal(mine, true) for mine, true in zip(got, want, strict=True))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**20), n_rows=st.integers(0, 4), n_items=st.integers(1, 150),
    dim=st.integers(1, 40), n_latents=st.integers(1, 150), standardize=st.booleans(),
)  # fmt: skip
def test_equal_to_the_dense_ops_in_fp32(
    kernels, seed, n_rows, n_items, dim, n_latents, standardize
):
    kernels.begin(seed)
    k = 1 + seed % min(n_latents, 20)
    with device.emulate(kernels):
        model = Model(seed, n_rows, n_items, dim, n_latents, k)
        embedding = model.embedding()
        how = {"standardize": standardize}
        got = ops.folded_topk_encode(model.rows, model.encode_side, embedding, *model.encoding,
                                     **how)  # fmt: skip
        want = ops.topk_encode(embedding, *model.encoding, precision="fp32", **how)
        same(got.code, want.code)
        same(got.stats or (), want.stats or ())
        moved = model.decoded(*want)
        allowed = torch.rand(n_items, generator=torch.Generator().manual_seed(seed)) < 0.8
        options = {"bias": model.item_bias, "seen": model.seen, "allowed": allowed}
        n = 1 + seed % (n_items + 3)
        found = ops.folded_recommend(*want, model.decode_side, moved, model.items, n, **options)
        same(found, ops.recommend(moved, model.items, n, precision="fp32", **options))


def test_tensors_on_the_cpu_get_what_arrays_get(kernels):
    kernels.begin()
    model = Model(3)
    embedding = model.embedding()
    code, stats = ops.folded_topk_encode(model.rows, model.encode_side, embedding, *model.encoding)
    assert kernels.launches() == 0
    arrays = [one.numpy() for one in (embedding, *model.encoding[:3])]
    want = ops.folded_topk_encode(type(model.rows)(*(one.numpy() for one in model.rows)),
                                  model.arrays.encode_side, *arrays, model.k)  # fmt: skip
    same(map(torch.from_numpy, want.code), code)
    moved = model.decoded(code, stats)
    found = ops.folded_recommend(code, stats, model.decode_side, moved, model.items, 9,
                                 seen=model.seen)  # fmt: skip
    same(found, ops.recommend(moved, model.items, 9, seen=model.seen))


def test_scores_of_codes_are_those_of_the_cpu(emulated):
    for n_items in (90, 91, 600):
        model = Model(4, n_items=n_items)
        code = ops.topk_encode(model.embedding(), *model.encoding).code
        code.indices[0, 0] = -1
        got = ops.folded_scores(code, model.decode_side.table)
        with device.emulate(None):
            arrays = Code(*(one.numpy() for one in code))
            want = ops.folded_scores(arrays, model.arrays.decode_side.table)
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=1e-5)


def arguments(model: Model):
    """What the three registered ops take."""
    side, other = model.encode_side, model.decode_side
    embedding = model.embedding()
    code, stats = ops.topk_encode(embedding, *model.encoding)
    moved = model.decoded(code, stats)
    return {
        folded_tensors._folded_topk_encode.overload: (
            *model.rows, *folded_tensors._flat(side), embedding, *model.encoding, True, 1,
        ),
        folded_tensors._folded_recommend.overload: (
            *code, *stats, *folded_tensors._flat(other), moved, model.items, 5, None,
            *model.seen[:2], None, 1,
        ),
        folded_tensors._folded_scores.overload: (*code, *other.table, 1),
    }  # fmt: skip


def test_opcheck(emulated):
    for op, given_ in arguments(Model(5)).items():
        torch.library.opcheck(op, given_)
    with device.emulate(None):
        for op, given_ in arguments(Model(6)).items():
            torch.library.opcheck(op, given_)


def test_a_compiled_request_equals_the_plain_one(emulated):
    model = Model(7)

    def answer(rows, items):
        embedding = ops.encode_rows(rows, items)
        code, stats = ops.folded_topk_encode(rows, model.encode_side, embedding, *model.encoding)
        moved = ops.sparse_decode(code, model.dictionary, model.bias, stats)
        return ops.folded_recommend(code, stats, model.decode_side, moved, items, 7)

    want = answer(model.rows, model.items)
    emulated.begin()
    got = torch.compile(answer, fullgraph=True, backend="aot_eager")(model.rows, model.items)
    assert emulated.launches() > 15
    same(got, want)


def test_a_failed_launch_and_exhausted_memory_are_exceptions_and_the_next_call_works(emulated):
    model = Model(8)
    embedding = model.embedding()
    code, stats = ops.topk_encode(embedding, *model.encoding)
    moved = model.decoded(code, stats)
    calls = {
        "folded_topk_encode": lambda: ops.folded_topk_encode(
            model.rows, model.encode_side, embedding, *model.encoding).code,
        "folded_recommend": lambda: ops.folded_recommend(
            code, stats, model.decode_side, moved, model.items, 4),
        "folded_scores": lambda: [ops.folded_scores(code, model.decode_side.table)],
    }  # fmt: skip
    for name, call in calls.items():
        emulated.begin()
        whole = call()
        for launch in range(emulated.launches()):
            emulated.begin(fail_launch=launch)
            with pytest.raises(RuntimeError, match=f"{name} could not be launched"):
                call()
            emulated.begin(fail_launch=launch, out_of_memory=True)
            with pytest.raises(MemoryError):
                call()
            emulated.begin()
            same(call(), whole)


def test_ids_out_of_range_count_as_padding_and_checked_refuses_them(emulated):
    model = Model(9, n_rows=1)
    table = model.decode_side.table
    code = Code(torch.tensor([[2, 77, -1]], dtype=torch.int32), torch.tensor([[2.0, 9.0, 0.0]]))
    inside = Code(torch.tensor([[2]], dtype=torch.int32), torch.tensor([[2.0]]))
    same([ops.folded_scores(code, table)], [ops.folded_scores(inside, table)])
    rows = model.rows._replace(items=model.rows.items + 90)
    with ops.checked():
        with pytest.raises(ValueError, match=r"code.indices must lie in \[-1, 70\), got 77"):
            ops.folded_scores(code, table)
        with pytest.raises(ValueError, match=r"rows.items must lie in \[0, 90\), got"):
            ops.folded_topk_encode(rows, model.encode_side, torch.zeros(1, 12), *model.encoding)


def test_wrong_arguments_are_named(emulated):
    model = Model(10)
    embedding, side = model.embedding(), model.encode_side
    encode = (embedding, *model.encoding)

    def of(**parts):
        return side._replace(table=side.table._replace(**parts))

    with pytest.raises(TypeError, match="table.values must be int8, got float32"):
        ops.folded_topk_encode(model.rows, of(values=side.table.values.float()), *encode)
    with pytest.raises(ValueError, match=r"table.scales must have shape \(90,\), got \(4,\)"):
        ops.folded_topk_encode(model.rows, of(scales=side.table.scales[:4]), *encode)
    with pytest.raises(ValueError, match=r"table.values must have shape \(any, 70\), got"):
        ops.folded_topk_encode(model.rows, of(values=side.table.values[:, :9]), *encode)
    with pytest.raises(ValueError, match="table must be on cpu as embedding is, got meta"):
        device.folded_topk_encode(model.rows, of(errors=side.table.errors.to("meta")), *encode)
    with pytest.raises(ValueError, match=r"k must be in \[1, n_latents=70\], got 71"):
        ops.folded_topk_encode(model.rows, side, *encode[:-1], 71)
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        code, stats = ops.topk_encode(*encode)
        ops.folded_recommend(code, stats, model.decode_side, embedding, model.items, 0)
