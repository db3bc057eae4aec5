"""SteerableRecommender(device="cuda") and training there, on the emulated device."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cfsae_fast import boost, suppress, toward
from cfsae_fast.config import CFAEConfig, SAEConfig, TrainConfig
from cfsae_fast.data import generate
from cfsae_fast.recommender import SteerableRecommender

TRAINING = TrainConfig(epochs=2, steps_per_epoch=6, batch_size=24, monitor="loss")


@pytest.fixture(scope="module")
def dataset():
    return generate(users=80, items=60, concepts=4, seed=3, mean_history=8)


def make(dataset, cfae: str, sae: str, **options) -> SteerableRecommender:
    sae_config = SAEConfig(kind=sae, k=6, n_latents=32, l1=0.01 if sae == "basic" else None)
    if cfae == "factors":
        draw = np.random.default_rng(1)
        factors = [draw.normal(size=(n, 8)).astype(np.float32) for n in (80, 60)]
        options |= {"sae": sae_config, "sae_training": TRAINING}
        return SteerableRecommender.wrap(*factors, dataset.interactions, dataset.tags, **options)
    model = SteerableRecommender(CFAEConfig(model=cfae, d=8), sae_config, cfae_training=TRAINING,
                                 sae_training=TRAINING, **options)  # fmt: skip
    return model.fit(dataset.interactions, dataset.tags)


@pytest.mark.parametrize(
    "cfae, sae", [("elsa", "topk"), ("multvae", "batchtopk"), ("multdae", "basic"),
                  ("factors", "topk")],
)  # fmt: skip
def test_answers_on_the_device_are_those_of_the_cpu(emulated, dataset, cfae, sae, tmp_path):
    from cfsae_fast.ops import device

    with device.emulate(None):  # trained on the CPU
        here = make(dataset, cfae, sae)
    there = SteerableRecommender.load(here.save(tmp_path / "model"), device="cuda")
    names = [concept.name for concept in here.concepts()]
    asked = [{}, {"steer": {names[0]: 0.4}}, {"steer": [boost(names[1], 0.2), suppress(names[0])]},
             {"steer": toward(names[0], 0.3)}, {"exclude_seen": False},
             {"deny": [0, 1, 2]}]  # fmt: skip
    histories = [[], [3], [5, 9, 11, 20]]
    for options in asked:
        for mode in ("residual", "reconstruct"):
            for users in ({"users": list(range(20))}, {"histories": histories}):
                with device.emulate(None):
                    want = here.recommend(n=7, mode=mode, **users, **options)
                emulated.begin()
                got = there.recommend(n=7, mode=mode, **users, **options)
                assert emulated.launches() > 0
                np.testing.assert_allclose(got.scores, want.scores, rtol=1e-4, atol=1e-4)
                assert (got.ids == want.ids).mean() > 0.97  # near ties round the other way


@pytest.mark.parametrize(
    "cfae, sae", [("elsa", "topk"), ("elsa", "batchtopk"), ("elsa", "basic"), ("factors", "topk")]
)  # fmt: skip
def test_a_folded_model_answers_from_its_tables(emulated, dataset, cfae, sae, monkeypatch):
    from cfsae_fast import ops
    from cfsae_fast.ops import device
    from cfsae_fast.recommender import place

    monkeypatch.setattr(place, "FOLDED_BYTES", 0)
    with device.emulate(None):
        here = make(dataset, cfae, sae).fold()
        dense = SteerableRecommender.from_fitted(here.fitted).unfold()
    there = SteerableRecommender.from_fitted(here.fitted, device="cuda")
    plain = SteerableRecommender.from_fitted(dense.fitted, device="cuda")
    asked, folded = [], ("folded_topk_encode", "folded_recommend")
    for name in folded:
        op = getattr(ops, name)
        monkeypatch.setattr(ops, name, lambda *given, op=op, name=name, **options: (
            asked.append(name), op(*given, **options))[1])  # fmt: skip
    names = [concept.name for concept in here.concepts()]
    histories = [[], [3], [5, 9, 11, 20]]
    for steer in (None, {names[0]: 0.4}, [boost(names[1], 0.2), suppress(names[0])]):
        for mode in ("residual", "reconstruct"):
            for users in ({"users": list(range(10))}, {"histories": histories}):
                options = {"steer": steer, "mode": mode, "n": 7, "deny": [0, 4], **users}
                asked.clear()
                got = there.recommend(**options)
                steered = mode == "reconstruct" or steer is not None
                encodes = steered and (cfae == "elsa" or "histories" in users)  # else brought along
                wanted = encodes * [folded[0]] + (mode == "reconstruct") * [folded[1]]
                assert asked == wanted, options
                want = plain.recommend(**options)
                np.testing.assert_allclose(got.scores, want.scores, rtol=1e-4, atol=1e-4)
                assert (got.ids == want.ids).mean() > 0.97
    asked.clear()
    there.recommend(list(range(place.FOLDED_ROWS + 1)), mode="reconstruct")
    assert not asked  # dense tiles read a matrix once for all of them
    monkeypatch.setattr(place, "FOLDED_BYTES", 4 * 60 * 8 + 1)  # the items' matrix is smaller
    SteerableRecommender.from_fitted(here.fitted, device="cuda").recommend([0], mode="reconstruct")
    assert not asked


@pytest.mark.parametrize("cfae", ["elsa", "multvae"])
def test_training_on_the_device_learns_what_the_cpu_learns(emulated, dataset, cfae):
    from cfsae_fast.ops import device

    with device.emulate(None):
        want = make(dataset, cfae, "topk")
    emulated.begin()
    got = make(dataset, cfae, "topk", device="cuda")
    assert got.device == "cuda"
    assert emulated.launches() > 300
    for name in ("cfae", "sae"):
        one, other = (model.fitted.report["last_epoch"][name][0] for model in (got, want))
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
    np.testing.assert_allclose(got.fitted.sae.encoder, want.fitted.sae.encoder, atol=2e-3)


def test_autocast_training_takes_the_rough_products(emulated, dataset, monkeypatch):
    import torch

    from cfsae_fast.models import make_sae
    from cfsae_fast.ops import device

    asked = []
    exact = device.topk_encode
    monkeypatch.setattr(device, "topk_encode", lambda *arguments, precision, **options: (
        asked.append(precision), exact(*arguments, precision=precision, **options))[1])  # fmt: skip
    sae = make_sae(8, SAEConfig(k=4, n_latents=40), seed=1)
    embedding = torch.randn(24, 8, generator=torch.Generator().manual_seed(1))
    for autocast in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            sae.loss(embedding, generator=torch.Generator(), step=0)[0].backward()
    assert asked == ["exact", "bf16"]


def test_a_device_that_cannot_be_used_is_refused_at_once(dataset):
    import torch

    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    model = SteerableRecommender(device="cuda")
    with pytest.raises((RuntimeError, NotImplementedError), match="cuda|CUDA"):
        model.fit(dataset.interactions, dataset.tags)
    assert replace(TRAINING, device="cuda:1").device == "cuda:1"


def test_serving_from_the_cpu_still_needs_no_torch():
    import subprocess

    script = (
        "import sys; from cfsae_fast import SteerableRecommender; SteerableRecommender();"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          cwd=Path(__file__).parent, check=True)  # fmt: skip
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("cfae, sae", [("elsa", "topk"), ("multvae", "batchtopk")])
def test_no_tensor_is_left_on_another_device(dataset, cfae, sae, monkeypatch):
    """With tensors that have a device and no memory, torch itself refuses to mix devices."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from cfsae_fast import ops
    from cfsae_fast.ops import device
    from cfsae_fast.recommender.place import _Placed, _through

    fitted = make(dataset, cfae, sae).fitted
    monkeypatch.setattr(device, "place", torch.device)
    request = SteerableRecommender.from_fitted(fitted)._request(list(range(9)), None, "error")
    with FakeTensorMode():
        placed = _Placed(fitted, "cuda:0")
        rows = type(request.rows)(*map(placed._here, request.rows))
        embedding = placed._embed(request, rows)
        encoded = placed._encode(embedding, rows, placed.encode_side)
        moved = placed._turned(embedding, encoded, [None] * 9, "reconstruct")[0]
        found = ops.recommend(_through(moved, placed.decoder_layers), placed.items, 4,
                              bias=placed.item_bias, seen=rows)  # fmt: skip
    assert {one.device for one in (embedding, moved, *found)} == {torch.device("cuda:0")}
    assert found.ids.shape == (9, 4)
