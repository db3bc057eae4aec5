"""The SAE without torch: equals the module, and its files are SAELens' files."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from cfsae_fast.config import SAEConfig
from cfsae_fast.errors import ModelFormatError
from cfsae_fast.inference import SAENetwork
from cfsae_fast.models import make_sae
from cfsae_fast.ops import PADDING

D, L, K = 10, 30, 4
KINDS = ["topk", "batchtopk", "basic"]


def embeddings() -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((25, D)) * 2 + 1).astype(np.float32)


def module(kind: str, **options):
    sae = make_sae(D, SAEConfig(kind=kind, k=K, n_latents=L, **options), seed=2)
    with torch.no_grad():
        sae.encoder_bias.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(0))
        sae.threshold.fill_(0.6)
    sae.start_from(torch.from_numpy(embeddings()))
    return sae


def assert_same(got, want):
    np.testing.assert_array_equal(got.code.indices, want.code.indices)
    np.testing.assert_allclose(got.code.values, want.code.values, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("standardize", [True, False])
def test_network_equals_the_module(kind, standardize):
    sae, x = module(kind, standardize=standardize), embeddings()
    network = sae.network()
    with torch.no_grad():
        want = sae.encode(torch.from_numpy(x))
        want_x = sae.decode(want).numpy()
    got = network.encode(x)
    width = got.code.indices.shape[1]
    assert not (want.code.indices[:, width:] != PADDING).any()
    np.testing.assert_array_equal(got.code.indices, want.code.indices[:, :width].numpy())
    np.testing.assert_allclose(got.code.values, want.code.values[:, :width].numpy(), atol=1e-5)
    np.testing.assert_allclose(network.decode(got), want_x, atol=1e-5)
    assert (network.d, network.n_latents) == (D, L)


@pytest.mark.parametrize("kind", KINDS)
def test_batchtopk_threshold_and_widths(kind):
    code = module(kind).network().encode(embeddings()).code
    widest = (code.indices != PADDING).sum(axis=1).max()
    if kind == "basic":
        assert code.indices.shape[1] == widest > 2 * K
    else:
        assert code.indices.shape[1] == (K if kind == "topk" else 4 * K)
    if kind == "batchtopk":
        assert code.values[code.indices != PADDING].min() > 0.6
        assert (code.values[code.indices == PADDING] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("standardize", [True, False])
def test_saved_and_loaded_is_the_same(kind, standardize, tmp_path):
    network = module(kind, standardize=standardize).network()
    network.save(tmp_path / "sae")
    again = SAENetwork.load(tmp_path / "sae")
    x = embeddings()
    for field in ("kind", "k", "width", "standardize"):
        assert getattr(again, field) == getattr(network, field)
    np.testing.assert_array_equal(again.encoder, network.encoder)
    np.testing.assert_array_equal(again.encode(x).code.values, network.encode(x).code.values)
    np.testing.assert_array_equal(
        again.decode(again.encode(x)), network.decode(network.encode(x))
    )  # fmt: skip


def test_files_have_saelens_names_and_shapes(tmp_path):
    module("batchtopk").network().save(tmp_path / "sae")
    config = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    weights = load_file(tmp_path / "sae" / "sae_weights.safetensors")
    shapes = {name: array.shape for name, array in weights.items()}
    want = {"W_enc": (D, L), "b_enc": (L,), "W_dec": (L, D), "b_dec": (D,), "threshold": (L,)}
    assert shapes == want
    assert (config["architecture"], config["d_in"], config["d_sae"]) == ("jumprelu", D, L)
    assert config["normalize_activations"] == "layer_norm" and config["apply_b_dec_to_input"]


def write_saelens(path, network, **changes):
    """A directory as SAELens itself writes one: no manifest, no keys of ours."""
    files = network.to_files()
    config = {key: value for key, value in files["cfg.json"].items() if key != "cfsae"}
    path.mkdir()
    (path / "cfg.json").write_text(json.dumps(config | changes))
    return files["sae_weights.safetensors"]


@pytest.mark.parametrize("kind", ["topk", "basic"])
def test_reads_what_saelens_writes(kind, tmp_path):
    network, x = module(kind).network(), embeddings()
    weights = write_saelens(tmp_path / "sae", network)
    save_file(weights, tmp_path / "sae" / "sae_weights.safetensors")
    assert_same(SAENetwork.load(tmp_path / "sae").encode(x), network.encode(x))


def test_folds_saelens_options_into_the_weights(tmp_path):
    network, x = module("topk").network(), embeddings()
    weights = write_saelens(
        tmp_path / "sae", network, rescale_acts_by_decoder_norm=True, apply_b_dec_to_input=False
    )
    lengths = np.linspace(0.5, 2.0, L).astype(np.float32)
    weights["W_dec"] = weights["W_dec"] * lengths[:, None]
    weights["W_enc"] = weights["W_enc"] / lengths
    weights["b_enc"] = (network.encoder_bias - network.encoder @ network.bias) / lengths
    save_file(weights, tmp_path / "sae" / "sae_weights.safetensors")
    again = SAENetwork.load(tmp_path / "sae")
    assert_same(again.encode(x), network.encode(x))
    np.testing.assert_allclose(
        again.decode(again.encode(x)), network.decode(network.encode(x)), atol=1e-5
    )


def test_refuses_what_it_cannot_serve(tmp_path):
    network = module("topk").network()
    files = network.to_files()
    config, weights = files["cfg.json"], files["sae_weights.safetensors"]
    bad = [
        ({"architecture": "gated"}, weights, "gated"),
        ({"normalize_activations": "constant_norm_rescale"}, weights, "constant_norm_rescale"),
        ({}, {name: one for name, one in weights.items() if name != "b_enc"}, "'b_enc'"),
        ({}, weights | {"b_enc": weights["b_enc"][1:]}, "do not fit together"),
        (
            {"architecture": "jumprelu"},
            weights | {"threshold": np.arange(L, dtype=np.float32)},
            "one threshold",
        ),
    ]
    for changes, arrays, words in bad:
        with pytest.raises(ModelFormatError, match=words):
            SAENetwork.from_files({"cfg.json": config | changes, "sae_weights.safetensors": arrays})
    with pytest.raises(ModelFormatError):
        SAENetwork.load(tmp_path / "nothing")
