"""Small recommenders of every kind, trained once, on a catalogue with planted concepts."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from cfsae_fast.config import CFAEConfig, SAEConfig, TrainConfig
from cfsae_fast.data import Dataset, generate
from cfsae_fast.recommender import SteerableRecommender

KINDS = [
    (cfae, sae)
    for cfae in ("elsa", "multvae", "multdae", "factors")
    for sae in ("topk", "batchtopk", "basic")
]


@cache
def small_dataset() -> Dataset:
    return generate(users=400, items=150, concepts=6, seed=3, mean_history=15)


@cache
def small_model(kind: str, sae: str) -> SteerableRecommender:
    dataset = small_dataset()
    sae_config = SAEConfig(kind=sae, k=8, n_latents=96, l1=0.01 if sae == "basic" else None)
    sae_training = TrainConfig(epochs=3, steps_per_epoch=80, batch_size=64, monitor="loss")
    if kind == "factors":
        generator = np.random.default_rng(0)
        dense = dataset.interactions.to_scipy().toarray().astype(np.float32)
        u, s, vt = np.linalg.svd(dense, full_matrices=False)
        noise = generator.normal(scale=1e-3, size=(dense.shape[0], 16)).astype(np.float32)
        return SteerableRecommender.wrap(
            u[:, :16] * s[:16] + noise,
            vt[:16].T,
            dataset.interactions,
            dataset.tags,
            sae=sae_config,
            sae_training=sae_training,
            titles=dataset.titles,
        )
    model = SteerableRecommender(
        CFAEConfig(model=kind, d=24),
        sae_config,
        cfae_training=TrainConfig(epochs=12, batch_size=64, lr=5e-3, monitor="loss"),
        sae_training=sae_training,
    )
    return model.fit(dataset.interactions, dataset.tags, titles=dataset.titles)


@pytest.fixture(params=KINDS, ids="-".join)
def model(request) -> SteerableRecommender:
    return small_model(*request.param)


@pytest.fixture
def elsa() -> SteerableRecommender:
    return small_model("elsa", "topk")


@pytest.fixture
def dataset() -> Dataset:
    return small_dataset()


@pytest.fixture
def planted() -> tuple[SteerableRecommender, Dataset]:
    return small_model("elsa", "topk"), small_dataset()
