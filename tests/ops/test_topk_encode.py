"""topk_encode against the reference: kept sets, stats, gradients, opcheck, hostile numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_cases import (
    ISAS,
    assert_code_close,
    assert_same,
    copies,
    integers,
    leaves,
    reals,
    seeds,
    tensors,
)

from cfsae_fast import ops, reference
from cfsae_fast.ops import Code, autograd

DIRECT = 16  # the engine packs tiles above this many rows


@given(seeds, st.integers(0, 70), st.integers(1, 300), st.integers(1, 40), st.integers(1, 300),
       st.sampled_from(ISAS))  # fmt: skip
def test_equals_reference_exactly_ties_and_all(seed, batch, n_latents, dim, k, isa):
    rng, k = np.random.default_rng(seed), 1 + (k - 1) % n_latents
    arguments = (integers(rng, batch, dim), integers(rng, n_latents, dim, reach=1),
                 integers(rng, n_latents), integers(rng, dim), k)  # fmt: skip
    with ops.force_isa(isa):
        got = ops.topk_encode(*arguments, standardize=False)
    want = reference.topk_encode(*tensors(arguments, double=True), standardize=False)
    assert got.stats is None
    assert_same(got.code, want.code)


SHAPES = [  # batch, n_latents, dim, k
    (0, 5, 3, 2), (1, 1, 1, 1), (1, 8192, 64, 32), (4, 100, 33, 100), (DIRECT, 257, 7, 9),
    (DIRECT + 1, 257, 7, 9), (33, 31, 1, 31), (257, 512, 512, 16), (257, 129, 33, 1),
]  # fmt: skip


def arguments_of(shape, rng):
    batch, n_latents, dim, k = shape
    return (
        3 + 2 * reals(rng, batch, dim), reals(rng, n_latents, dim) / np.float32(np.sqrt(dim)),
        reals(rng, n_latents) / 4, reals(rng, dim) / 4, k,
    )  # fmt: skip


def scores_of(embedding, encoder, bias, centre, stats):
    x, e, b, c = (np.asarray(a, np.float64) for a in (embedding, encoder, bias, centre))
    mean, std = (np.asarray(part)[:, None] for part in stats)
    return ((x - mean) / std - c) @ e.T + b


@pytest.mark.filterwarnings("ignore:std")  # torch's, of an empty batch
@pytest.mark.parametrize("shape", SHAPES)
def test_is_a_top_k_of_the_standardized_reference(shape, rng, isa):
    arguments = arguments_of(shape, rng)
    got = ops.topk_encode(*arguments)
    want = reference.topk_encode(*tensors(arguments, double=True))
    np.testing.assert_allclose(got.stats.mean, want.stats.mean, atol=1e-5)
    np.testing.assert_allclose(got.stats.std, want.stats.std, atol=1e-5)
    assert_code_close(got.code, want.code, scores_of(*arguments[:4], want.stats), 2e-5)


def results(module, arguments, upstream, *, double=False, **options):
    """Code, stats and gradients; upstream weighs values (by latent, (B, L)), mean and std."""
    *arrays, k = arguments
    inputs = leaves(*arrays, double=double)
    code, stats = module.topk_encode(*inputs, k, **options)
    weights = [torch.from_numpy(part) for part in upstream]
    weights[0] = weights[0].gather(1, code.indices.clamp(min=0).long())
    outputs = (code.values, *(stats or ()))
    loss = sum((out * weight).sum() for out, weight in zip(outputs, weights, strict=True))
    grads = torch.autograd.grad(loss, inputs)
    return code.indices, *(out.detach() for out in outputs), *grads


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[0] > 0])
@pytest.mark.parametrize("through", ["values", "mean", "std", "all"])
def test_gradients_through_every_output_equal_reference(shape, through, rng):
    arguments = arguments_of(shape, rng)
    names = ("values", "mean", "std")
    shapes = (shape[:2], shape[:1], shape[:1])
    upstream = [
        reals(rng, *size) * (through in (name, "all"))
        for size, name in zip(shapes, names, strict=True)
    ]
    got = results(ops, arguments, upstream)
    want = results(reference, arguments, upstream, double=True)
    for one, other in zip(got[4:], want[4:], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4, rtol=1e-4)


def test_gradients_without_stats_are_exact(rng):
    arguments = (integers(rng, 40, 9), integers(rng, 30, 9), integers(rng, 30), integers(rng, 9), 7)
    upstream = [integers(rng, 40, 30)]
    got = results(ops, arguments, upstream, standardize=False)
    assert_same(got, results(reference, arguments, upstream, double=True, standardize=False))


@pytest.mark.parametrize("given", [True, False])
def test_stats_of_an_embedding_that_is_given_are_constants(given, rng):
    embedding, *weights = leaves(*arguments_of((5, 20, 6, 3), rng)[:4])
    stats = ops.topk_encode(embedding.detach() if given else embedding, *weights, 3).stats
    assert stats.mean.requires_grad == stats.std.requires_grad == (not given)


def test_gradient_of_a_constant_row_is_finite(rng):
    embedding, encoder, bias, centre, k = arguments_of((3, 20, 8, 5), rng)
    embedding[1] = 4.0
    upstream = [reals(rng, 3, 20) * 0, reals(rng, 3), reals(rng, 3)]
    got = results(ops, (embedding, encoder, bias, centre, k), upstream)
    want = results(reference, (embedding, encoder, bias, centre, k), upstream, double=True)
    np.testing.assert_allclose(got[4], want[4], atol=1e-5)
    assert got[3][1] == np.float32(1e-7)


def test_threads_do_not_change_results(rng):
    shape = (257, 700, 64, 16)
    arguments = arguments_of(shape, rng)
    upstream = [reals(rng, 257, 700), reals(rng, 257), reals(rng, 257)]
    alone = results(ops, arguments, upstream, threads=1)
    for threads in (2, 3):
        assert_same(results(ops, arguments, upstream, threads=threads), alone)


def test_one_row_at_a_time_agrees_with_the_batch(rng, isa):
    *arrays, k = arguments_of((40, 600, 96, 12), rng)
    whole = ops.topk_encode(*arrays, k).code
    embedding, *rest = arrays
    for row in range(40):
        alone = ops.topk_encode(embedding[row : row + 1], *rest, k).code
        np.testing.assert_allclose(alone.values[0], whole.values[row], atol=1e-5)


@pytest.mark.parametrize("standardize", [True, False])
def test_opcheck(rng, standardize):
    *arrays, k = tensors(arguments_of((5, 11, 7, 4), rng))
    inputs = [array.requires_grad_() for array in arrays]
    torch.library.opcheck(autograd._topk_encode.overload, (*inputs, k, standardize, 2))


def test_compiles_in_a_full_graph(rng):
    *arrays, k = arguments_of((6, 11, 7, 4), rng)

    def loss(*inputs):
        (_, values), stats = ops.topk_encode(*inputs, k)
        return (values.sum(dim=1) * stats.std + stats.mean).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    plain, traced = leaves(*arrays), leaves(*arrays)
    loss(*plain).backward()
    compiled(*traced).backward()
    assert_same([t.grad for t in traced], [t.grad for t in plain])


def test_inputs_are_not_mutated_and_strides_do_not_matter(rng):
    arguments = arguments_of((20, 11, 7, 4), rng)
    before = copies(arguments)
    got = ops.topk_encode(*arguments)
    assert_same(arguments, before)
    *arrays, k = arguments
    assert_same(ops.topk_encode(*map(np.asfortranarray, arrays), k), got)
    strided = [torch.from_numpy(np.asfortranarray(array)) for array in arrays]
    assert_same(ops.topk_encode(*strided, k), got)


@pytest.mark.parametrize("batch", [3, DIRECT + 5])
def test_nan_is_never_kept_and_stays_in_its_row(batch, rng, isa):
    embedding, encoder, bias, centre, k = arguments_of((batch, 50, 8, 50), rng)
    clean = ops.topk_encode(embedding, encoder, bias, centre, k)
    embedding[1, 3] = np.nan
    got = ops.topk_encode(embedding, encoder, bias, centre, k)
    assert (got.code.indices[1] == -1).all() and (got.code.values[1] == 0).all()
    others = np.arange(batch) != 1
    assert_same(got.code.indices[others], clean.code.indices[others])
    encoder[7] = np.nan
    bias[9] = np.nan
    kept = ops.topk_encode(embedding, encoder, bias, centre, k).code.indices[others]
    assert_same(kept, reference_without(clean.code.indices[others], (7, 9)))


def reference_without(indices, gone):
    """The rows without the latents that are gone, moved up, padded."""
    rows = [[i for i in row if i not in gone and i >= 0] for row in indices]
    return np.array([row + [-1] * (indices.shape[1] - len(row)) for row in rows])


@pytest.mark.parametrize("batch", [2, DIRECT + 5])
def test_infinite_and_tiny_values_keep_their_order(batch, isa):
    embedding = np.ones((batch, 1), np.float32)
    encoder = np.array([[1e-44], [np.inf], [3e38], [-np.inf], [1e-45], [0.0], [-0.0]], np.float32)
    zeros = np.zeros(7, np.float32)
    code, _ = ops.topk_encode(embedding, encoder, zeros, zeros[:1], 7, standardize=False)
    assert_same(code.indices[-1], np.array([1, 2, 0, 4, -1, -1, -1]))
    assert_same(code.values[-1], encoder[[1, 2, 0, 4, 5, 5, 5], 0])


def test_huge_norms_standardize_without_overflow(rng):
    embedding, encoder, bias, centre, k = arguments_of((20, 30, 16, 5), rng)
    plain = ops.topk_encode(embedding, encoder, bias, centre, k)
    huge = ops.topk_encode(embedding * np.float32(2.0**100), encoder, bias, centre, k)
    assert_same(huge.code.indices, plain.code.indices)
    np.testing.assert_allclose(huge.code.values, plain.code.values, atol=1e-5)


F32 = np.float32


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"k": 0}, ValueError, r"k must be in \[1, n_latents=4\], got 0"),
        ({"k": 5}, ValueError, r"k must be in \[1, n_latents=4\], got 5"),
        ({"encoder": np.ones((4, 2), F32)}, ValueError,
         r"encoder must have shape \(any, 3\), got \(4, 2\)"),
        ({"bias": np.ones(3, F32)}, ValueError, r"bias must have shape \(4,\), got \(3,\)"),
        ({"centre": np.ones(4, F32)}, ValueError, r"centre must have shape \(3,\), got \(4,\)"),
        ({"embedding": np.ones((2, 3))}, TypeError, "embedding must be float32, got float64"),
        ({"embedding": np.ones(3, F32)}, ValueError, "embedding must have shape"),
    ],
)  # fmt: skip
def test_errors_name_argument_want_and_got(change, error, message):
    given_ = {
        "embedding": np.ones((2, 3), F32), "encoder": np.ones((4, 3), F32),
        "bias": np.ones(4, F32), "centre": np.ones(3, F32), "k": 2,
    } | change  # fmt: skip
    with pytest.raises(error, match=message):
        ops.topk_encode(**given_)
    with pytest.raises(error, match=message):
        ops.topk_encode(**{name: tensors(value) for name, value in given_.items()})


def test_backward_ignores_padding(rng):
    embedding, encoder, bias, centre, _ = arguments_of((4, 6, 5, 6), rng)
    inputs = leaves(embedding, encoder, bias - 100, centre)
    code, _ = ops.topk_encode(*inputs, 6)
    assert isinstance(code, Code) and (code.indices == -1).all()
    code.values.sum().backward()
    assert all((leaf.grad == 0).all() for leaf in inputs)
