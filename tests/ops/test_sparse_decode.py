"""sparse_decode against the reference: values, gradients, opcheck, mutation, errors."""

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
    leaves,
    make_code,
    make_stats,
    reals,
    seeds,
    tensors,
)

from cfsae_fast import ops, reference
from cfsae_fast.ops import Code, Stats, autograd


@given(seeds, st.integers(0, 30), st.integers(1, 12), st.integers(1, 30), st.integers(1, 70),
       st.sampled_from(ISAS), st.booleans())  # fmt: skip
def test_equals_reference_exactly(seed, batch, k, n_latents, dim, isa, with_bias):
    rng = np.random.default_rng(seed)
    code = make_code(rng, batch, k, n_latents, integers)
    dictionary, bias = integers(rng, n_latents, dim), integers(rng, dim) if with_bias else None
    stats = Stats(integers(rng, batch), integers(rng, batch)) if seed % 2 else None
    with ops.force_isa(isa):
        got = ops.sparse_decode(code, dictionary, bias, stats)
    want = reference.sparse_decode(*tensors((code, dictionary, bias, stats), double=True))
    assert_same(got, want)


SHAPES = [(1, 1, 1, 1), (257, 64, 512, 512), (3, 7, 9, 33), (4, 9, 9, 5)]


def arguments_of(shape, rng):
    batch, k, n_latents, dim = shape
    code = make_code(rng, batch, k, n_latents)
    return code, reals(rng, n_latents, dim), reals(rng, dim), make_stats(rng, batch)


@pytest.mark.parametrize("shape", SHAPES)
def test_is_close_on_reals(shape, rng, isa):
    arguments = arguments_of(shape, rng)
    want = reference.sparse_decode(*tensors(arguments, double=True))
    np.testing.assert_allclose(ops.sparse_decode(*arguments), want, atol=2e-4)


def results(module, arguments, upstream, *, double=False, **options):
    """The output and its gradients for values, dictionary, bias, mean and std."""
    code, dictionary, bias, stats = arguments
    wanted = leaves(code.values, dictionary, bias, *stats, double=double)
    indices = torch.from_numpy(code.indices)
    out = module.sparse_decode(
        Code(indices, wanted[0]), wanted[1], wanted[2], Stats(*wanted[3:]), **options
    )
    return out.detach(), *torch.autograd.grad((out * torch.from_numpy(upstream)).sum(), wanted)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_equal_reference(shape, rng, isa):
    arguments, upstream = arguments_of(shape, rng), reals(rng, shape[0], shape[3])
    got = results(ops, arguments, upstream)
    want = results(reference, arguments, upstream, double=True)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, atol=5e-4, rtol=1e-4)


@pytest.mark.parametrize("wanted", range(3))
def test_gradient_of_one_argument_without_stats(wanted, rng):
    code, dictionary, bias, _ = arguments_of((6, 4, 9, 5), rng)
    upstream = torch.from_numpy(reals(rng, 6, 5))

    def of(module, double):
        given_ = [tensors(a, double=double) for a in (code.values, dictionary, bias)]
        given_[wanted].requires_grad_()
        out = module.sparse_decode(Code(torch.from_numpy(code.indices), given_[0]), *given_[1:])
        return torch.autograd.grad((out * upstream).sum(), given_[wanted])[0]

    np.testing.assert_allclose(of(ops, False), of(reference, True), atol=1e-4)


def test_threads_do_not_change_results(rng):
    arguments, upstream = arguments_of((300, 32, 512, 256), rng), reals(rng, 300, 256)
    alone = results(ops, arguments, upstream, threads=1)
    for threads in (2, 3):
        assert_same(results(ops, arguments, upstream, threads=threads), alone)


def test_opcheck(rng):
    code, dictionary, bias, stats = tensors(arguments_of((5, 4, 9, 7), rng))
    floats = [t.requires_grad_() for t in (code.values, dictionary, bias, *stats)]
    torch.library.opcheck(autograd._sparse_decode.overload, (code.indices, *floats, 2))
    torch.library.opcheck(
        autograd._sparse_decode.overload, (code.indices, *floats[:2], None, None, None, 1)
    )


def test_all_padding_decodes_to_the_bias(rng):
    code = Code(np.full((2, 3), -1, np.int32), np.zeros((2, 3), np.float32))
    dictionary, bias = reals(rng, 4, 5), reals(rng, 5)
    assert_same(ops.sparse_decode(code, dictionary, bias), np.stack([bias, bias]))
    assert_same(ops.sparse_decode(code, dictionary), np.zeros((2, 5)))


def test_inputs_are_not_mutated_and_strides_do_not_matter(rng):
    arguments = arguments_of((5, 4, 9, 7), rng)
    before = copies(arguments)
    got = ops.sparse_decode(*arguments)
    assert_same(arguments, before)
    turned = tuple(
        np.asfortranarray(a) if isinstance(a, np.ndarray) else type(a)(*map(np.asfortranarray, a))
        for a in arguments
    )
    assert_same(ops.sparse_decode(*turned), got)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"indices": [[9, -1]]}, ValueError, r"code.indices must lie in \[-1, 9\), got 9"),
        ({"indices": [[-2, -1]]}, ValueError, r"code.indices must lie in \[-1, 9\), got -2"),
        ({"values": [[1.0]]}, ValueError, r"code.values must have shape \(1, 2\), got \(1, 1\)"),
        ({"bias": np.ones(3, np.float32)}, ValueError, r"bias must have shape \(4,\), got \(3,\)"),
        ({"dictionary": np.ones((9, 4))}, TypeError, "dictionary must be float32, got float64"),
        ({"stats": Stats(np.ones(2, np.float32), np.ones(1, np.float32))}, ValueError,
         r"stats.mean must have shape \(1,\), got \(2,\)"),
        ({"stats": Stats(np.ones(1, np.float32), None)}, ValueError, "both mean and std"),
    ],
)  # fmt: skip
def test_errors_name_argument_want_and_got(change, error, message):
    given_ = {
        "indices": [[0, 1]], "values": [[1.0, 1.0]], "dictionary": np.ones((9, 4), np.float32),
        "bias": None, "stats": None,
    } | change  # fmt: skip
    code = Code(np.array(given_["indices"], np.int32), np.array(given_["values"], np.float32))
    with pytest.raises(error, match=message):
        ops.sparse_decode(code, given_["dictionary"], given_["bias"], given_["stats"])
