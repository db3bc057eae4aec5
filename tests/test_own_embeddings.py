"""An SAE over a matrix that somebody brings: planted atoms are found, bad matrices are named."""

import numpy as np
import pytest

from cfsae_fast import SAE
from cfsae_fast.config import SAEConfig, TrainConfig

TRAINING = TrainConfig(epochs=6, steps_per_epoch=100, batch_size=64, monitor="loss")


@pytest.fixture(scope="module")
def planted():
    """2,000 sums of 2 of 12 atoms in 16 dimensions."""
    generator = np.random.default_rng(0)
    atoms = generator.standard_normal((12, 16))
    picked = np.argsort(generator.random((2000, 12)), axis=1)[:, :2]
    weights = generator.uniform(1, 2, picked.shape)
    return np.einsum("nk,nkd->nd", weights, atoms[picked])


def test_fits_a_matrix_and_keeps_most_of_it(planted, tmp_path):
    sae = SAE.fit(planted, SAEConfig(k=4, n_latents=48), training=TRAINING)
    encoded = sae.encode(planted)
    assert encoded.code.indices.shape == (2000, 4)
    error = ((sae.decode(encoded) - planted) ** 2).sum()
    assert error < 0.2 * ((planted - planted.mean(axis=0)) ** 2).sum()
    again = SAE.load(sae.save(tmp_path / "sae"))
    np.testing.assert_array_equal(again.decode(again.encode(planted)), sae.decode(encoded))
    assert repr(again) == repr(sae) == "SAE(topk, d=16, 48 latents, k=4)"


@pytest.mark.parametrize(
    "array, message",
    [
        (np.full((9, 4), np.nan), "finite"),
        (np.zeros(4), "matrix"),
        (np.zeros((0, 4)), "matrix"),
    ],
)
def test_bad_matrices_are_named(array, message):
    with pytest.raises(ValueError, match=message):
        SAE.fit(array, SAEConfig(k=2, n_latents=8), training=TRAINING)


def test_k_above_n_latents():
    with pytest.raises(ValueError, match=r"k must be in \[1, n_latents=8\], got 9"):
        SAE.fit(np.ones((9, 4)), SAEConfig(k=9, n_latents=8))
