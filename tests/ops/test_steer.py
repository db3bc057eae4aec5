"""steer and steer_decode against the reference: every knob, shared and own, both modes, errors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_cases import (
    ISAS,
    assert_same,
    copies,
    integers,
    make_code,
    make_knobs,
    make_stats,
    reals,
    seeds,
    tensors,
)

from cfsae_fast import ops, reference
from cfsae_fast.ops import Code, KnobKind, Knobs, serving

MODES = ["residual", "reconstruct"]


@given(seeds, st.integers(0, 12), st.integers(0, 8), st.integers(1, 12), st.booleans())
def test_steer_equals_reference_exactly(seed, batch, k, n_latents, shared):
    rng = np.random.default_rng(seed)
    code = make_code(rng, batch, k, n_latents, integers)
    knobs = make_knobs(rng, 1 if shared else batch, n_latents)
    got = ops.steer(code, knobs, n_latents=n_latents)
    want = reference.steer(*tensors((code, knobs), double=True), n_latents=n_latents)
    assert_same(got, want)


@given(seeds, st.integers(0, 12), st.integers(0, 8), st.integers(1, 12), st.integers(1, 40),
       st.booleans(), st.sampled_from(MODES), st.sampled_from(ISAS))  # fmt: skip
def test_steer_decode_equals_reference_exactly(seed, batch, k, n_latents, dim, shared, mode, isa):
    rng = np.random.default_rng(seed)
    arguments = (
        integers(rng, batch, dim), make_code(rng, batch, k, n_latents, integers),
        make_knobs(rng, 1 if shared else batch, n_latents), integers(rng, n_latents, dim),
        integers(rng, dim), ops.Stats(integers(rng, batch), integers(rng, batch)),
    )  # fmt: skip
    with ops.force_isa(isa):
        got = ops.steer_decode(*arguments, mode=mode)
    assert_same(got, reference.steer_decode(*tensors(arguments, double=True), mode=mode))


def arguments_of(rng, batch=9, k=6, n_latents=20, dim=33):
    return (
        reals(rng, batch, dim), make_code(rng, batch, k, n_latents),
        make_knobs(rng, batch, n_latents), reals(rng, n_latents, dim), reals(rng, dim),
        make_stats(rng, batch),
    )  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("batch, k, n_latents, dim", [(257, 64, 512, 512), (1, 1, 1, 1)])
def test_steer_decode_is_steer_then_decode_on_reals(mode, batch, k, n_latents, dim, rng, isa):
    arguments = arguments_of(rng, batch, k, n_latents, dim)
    _, code, knobs, dictionary, bias, stats = arguments
    got = ops.steer_decode(*arguments, mode=mode)
    want = reference.steer_decode(*tensors(arguments, double=True), mode=mode)
    np.testing.assert_allclose(got, want, atol=2e-4)
    if mode == "reconstruct":
        steered = ops.steer(code, knobs, n_latents=n_latents)
        np.testing.assert_allclose(
            got, ops.sparse_decode(steered, dictionary, bias, stats), atol=2e-4
        )


def test_a_row_without_knobs_keeps_its_embedding_bit_for_bit(rng):
    embedding, code, _, dictionary, bias, stats = arguments_of(rng)
    embedding[0, :3] = [np.nan, -0.0, np.inf]
    one_row = Knobs(
        np.array([0] * 9 + [1]), np.array([4], np.int32), np.ones(1, np.float32),
        np.array([KnobKind.ADD], np.uint8),
    )  # fmt: skip
    got = ops.steer_decode(embedding, code, one_row, dictionary, bias, stats, mode="residual")
    assert got[:8].tobytes() == embedding[:8].tobytes()
    assert not np.array_equal(got[8], embedding[8])


def test_threads_do_not_change_results(rng):
    arguments = arguments_of(rng, 300, 32, 512, 256)
    code, knobs = arguments[1:3]

    def all_of(threads):
        return (
            ops.steer(code, knobs, n_latents=512, threads=threads),
            ops.steer_decode(*arguments, mode="residual", threads=threads),
            ops.steer_decode(*arguments, mode="reconstruct", threads=threads),
        )

    alone = all_of(1)
    for threads in (2, 3):
        assert_same(all_of(threads), alone)


def test_opcheck_and_tensors(rng):
    arguments = arguments_of(rng)
    embedding, code, knobs, dictionary, bias, stats = tensors(arguments)
    torch.library.opcheck(serving._steer.overload, (*code, *knobs, 20, 2))
    torch.library.opcheck(
        serving._steer_decode.overload,
        (embedding, *code, *knobs, dictionary, bias, *stats, "residual", 2),
    )
    assert_same(
        ops.steer_decode(*tensors(arguments), mode="residual"),
        ops.steer_decode(*arguments, mode="residual"),
    )
    assert_same(ops.steer(code, knobs, n_latents=20), ops.steer(*arguments[1:3], n_latents=20))


def test_inputs_are_not_mutated(rng):
    arguments = arguments_of(rng)
    before = copies(arguments)
    ops.steer(*arguments[1:3], n_latents=20)
    ops.steer_decode(*arguments, mode="residual")
    assert_same(arguments, before)


def test_nan_in_a_code_counts_as_nothing():
    code = Code(np.array([[2, 1]], np.int32), np.array([[np.nan, 2]], np.float32))
    mix = knobs_of((0, 0.5, KnobKind.MIX))
    assert_same(
        ops.steer(code, mix, n_latents=3),
        (np.array([[0, 1, -1]]), np.array([[1, 1, 0]])),
    )


def test_mix_leaves_a_code_that_sums_to_zero_unchanged():
    code = Code(np.array([[2, 1]], np.int32), np.array([[3, -3]], np.float32))
    got = ops.steer(code, knobs_of((0, 0.5, KnobKind.MIX)), n_latents=3)
    assert_same(got, (np.array([[2, 1, -1]]), np.array([[3, -3, 0]])))


def knobs_of(*turns, offsets=None):
    latents, weights, kinds = zip(*turns, strict=True)
    return Knobs(
        np.array(offsets or [0, len(turns)]), np.array(latents, np.int32),
        np.array(weights, np.float32), np.array(kinds, np.uint8),
    )  # fmt: skip


@pytest.mark.parametrize(
    "knobs, message",
    [
        (knobs_of((9, 1, KnobKind.ADD)), r"knobs.latents must lie in \[0, 9\), got 9"),
        (knobs_of((-1, 1, KnobKind.ADD)), r"knobs.latents must lie in \[0, 9\), got -1"),
        (knobs_of((0, np.nan, KnobKind.ADD)), "knobs.weights must be finite, got nan"),
        (knobs_of((0, -1, KnobKind.SCALE)), "must not be negative for SCALE and MIX, got -1"),
        (knobs_of((0, -0.5, KnobKind.MIX)), "must not be negative for SCALE and MIX, got -0.5"),
        (knobs_of((0, 0.6, KnobKind.MIX), (1, 0.6, KnobKind.MIX)), "sum to at most 1 .* got 1.2"),
        (knobs_of((3, 1, KnobKind.SCALE), (3, 1, KnobKind.SCALE)), "latent 3 twice in row 0"),
        (knobs_of((0, 1, 3)), "knobs.kinds must be a KnobKind"),
        (knobs_of((0, 1, KnobKind.ADD), offsets=[0, 2]), "knobs.offsets must rise"),
        (knobs_of((0, 1, KnobKind.ADD), offsets=[0, 1, 1, 1]), "2 entries or .* 3, got 4"),
    ],
)  # fmt: skip
def test_errors_name_argument_want_and_got(knobs, message):
    code = Code(np.zeros((2, 1), np.int32), np.ones((2, 1), np.float32))
    with pytest.raises(ValueError, match=message):
        ops.steer(code, knobs, n_latents=9)
    ones = np.ones((2, 4), np.float32)
    with pytest.raises(ValueError, match=message):
        ops.steer_decode(ones, code, knobs, np.ones((9, 4), np.float32), None, None,
                         mode="residual")  # fmt: skip


def test_an_unknown_mode_is_refused(rng):
    with pytest.raises(ValueError, match="mode must be residual or reconstruct, got add"):
        ops.steer_decode(*arguments_of(rng), mode="add")
