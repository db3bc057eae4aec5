"""Random inputs of the ops, and the comparisons their tests share.

Inputs of small integers make float32 exact: engine and reference must then agree to the bit, ties
and all. Real-valued inputs are compared with float64 within a tolerance.
"""

import numpy as np
import torch
from hypothesis import strategies as st

from cfsae_fast import ops
from cfsae_fast.ops import Code, KnobKind, Knobs, Rows, Stats

ISAS = ops.build_info()["isa"]
seeds = st.integers(0, 2**32 - 1)


def integers(rng, *shape, reach=3):
    return rng.integers(-reach, reach + 1, shape).astype(np.float32)


def reals(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


def make_rows(rng, batch, n_items, longest=6, *, values=True):
    """Histories of 0 to `longest` items, repeats allowed, with an unused entry at either end."""
    offsets = np.concatenate([[1], 1 + np.cumsum(rng.integers(0, longest + 1, batch))])
    items = rng.integers(0, n_items, offsets[-1] + 1).astype(np.int32)
    return Rows(offsets.astype(np.int64), items, integers(rng, len(items)) if values else None)


def make_code(rng, batch, k, n_latents, draw=reals):
    """Codes as topk_encode gives them: distinct latents, positive, sorted, padded at random."""
    indices = np.full((batch, k), -1, np.int32)
    values = np.zeros((batch, k), np.float32)
    for row in range(batch):
        n = rng.integers(0, min(k, n_latents) + 1)
        latents = rng.permutation(n_latents)[:n]
        value = np.abs(draw(rng, n)) + 1
        order = np.lexsort((latents, -value))
        indices[row, :n], values[row, :n] = latents[order], value[order]
    return Code(indices, values)


def make_stats(rng, batch):
    return Stats(reals(rng, batch), np.abs(reals(rng, batch)) + 0.5)


def make_knobs(rng, batch, n_latents, most=4):
    """Per row up to `most` knobs of random kinds; SCALE once per latent, MIX summing below 1."""
    latents, weights, kinds, offsets = [], [], [], [0]
    for _ in range(batch):
        scaled = set()
        for _ in range(rng.integers(0, most + 1)):
            kind, latent = KnobKind(int(rng.integers(3))), int(rng.integers(n_latents))
            if kind == KnobKind.SCALE and latent in scaled:
                kind = KnobKind.ADD
            scaled |= {latent} if kind == KnobKind.SCALE else set()
            weight = {
                KnobKind.MIX: rng.integers(0, 3) / (2 * most),
                KnobKind.SCALE: rng.integers(0, 3),
                KnobKind.ADD: rng.integers(-3, 4),
            }[kind]
            latents.append(latent), weights.append(weight), kinds.append(kind)
        offsets.append(len(latents))
    return Knobs(
        np.array(offsets, np.int64),
        np.array(latents, np.int32),
        np.array(weights, np.float32),
        np.array(kinds, np.uint8),
    )


def tensors(argument, *, double=False):
    """The same argument made of torch tensors; double: its floats in float64, for the reference."""
    if isinstance(argument, np.ndarray):
        tensor = torch.from_numpy(argument)
        return tensor.double() if double and tensor.is_floating_point() else tensor
    if isinstance(argument, tuple):
        parts = [tensors(part, double=double) for part in argument]
        return tuple(parts) if type(argument) is tuple else type(argument)(*parts)
    return argument


def copies(arguments):
    """Deep copies, to see later that nothing was mutated."""
    if isinstance(arguments, np.ndarray):
        return arguments.copy()
    if isinstance(arguments, (tuple, list)):
        return [copies(part) for part in arguments]
    return arguments


def assert_same(got, want):
    """Equal to the bit, through tuples, arrays and tensors."""
    if isinstance(want, (tuple, list)):
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            assert_same(one, other)
    elif want is None or isinstance(want, (int, str)):
        assert got == want
    else:
        got, want = np.asarray(got), np.asarray(want)
        np.testing.assert_array_equal(got, want.astype(got.dtype))


def assert_code_close(code, want, scores, tolerance):
    """The code holds a top-k of float64 `scores`; within `tolerance`, ties go either way."""
    got, want = np.asarray(code.values), np.asarray(want.values)
    np.testing.assert_allclose(got, want, atol=tolerance, rtol=0)
    indices = np.asarray(code.indices)
    assert ((indices == -1) == (got == 0)).all()
    for row, (latents, values) in enumerate(zip(indices, got, strict=True)):
        kept = latents[latents >= 0]
        assert len(set(kept)) == len(kept)
        np.testing.assert_allclose(values[: len(kept)], scores[row, kept], atol=tolerance, rtol=0)
        assert (np.diff(values) <= 0).all()


def leaves(*arrays, double=False):
    """Tensors that want a gradient."""
    return [tensors(array, double=double).clone().requires_grad_() for array in arrays]
