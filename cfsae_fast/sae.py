"""Floor 5: `SAE`, a sparse autoencoder for any matrix of embeddings a user brings.

Station: stage 2 alone, for those who have their own embeddings. Fitting needs torch, the rest not.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cfsae_fast.config import SAEConfig, TrainConfig
from cfsae_fast.errors import require_extra
from cfsae_fast.inference import SAENetwork
from cfsae_fast.ops import Encoded


class SAE:
    """A fitted sparse autoencoder: `SAE.fit(array)`, then encode, decode, save, load.

    >>> sae = SAE.fit(embeddings, SAEConfig(k=16))
    >>> encoded = sae.encode(embeddings)        # sparse codes (n, k), and stats
    >>> restored = sae.decode(encoded)          # (n, d)

    network: the weights as numpy arrays, laid out on disk as SAELens does.
    """

    def __init__(self, network: SAENetwork) -> None:
        self.network = network

    @classmethod
    def fit(
        cls,
        array: Any,
        config: SAEConfig | None = None,
        *,
        training: TrainConfig | None = None,
        seed: int = 42,
        progress: bool = False,
    ) -> SAE:
        """Train on embeddings (n, d), any numbers that float32 can hold.

        training: None means the defaults of stage 2, with `seed`.

        Raises:
            ValueError: array is empty, no matrix, or holds NaN or infinity; k above n_latents.
            MissingExtraError: torch is not installed (extra "train").
        """
        require_extra("torch", extra="train", purpose="SAE.fit()")
        from cfsae_fast.training import fit_sae

        array = np.ascontiguousarray(array, dtype=np.float32)
        training = training or replace(TrainConfig.for_sae(), monitor="loss", seed=seed)
        module = fit_sae(array, None, config or SAEConfig(), training, progress=progress)
        return cls(module.network())

    def encode(self, array: Any, *, refine_steps: int = 0) -> Encoded:
        """Embeddings (n, d) -> sparse codes (n, k) and stats.

        refine_steps: rounds of improving the codes' values one by one, their latents kept; the
        squared error of no row rises.
        """
        array = np.ascontiguousarray(array, dtype=np.float32)
        return self.network.encode(array, refine_steps=refine_steps)

    def pursue(self, array: Any, k: int | None = None) -> Encoded:
        """Sparse codes by matching pursuit, for any k: slower than `encode`, with less error."""
        return self.network.pursue(np.ascontiguousarray(array, dtype=np.float32), k)

    def decode(self, encoded: Encoded) -> np.ndarray:
        """Codes and stats -> reconstructed embeddings (n, d)."""
        return self.network.decode(encoded)

    def save(self, path: str | os.PathLike) -> Path:
        """Write cfg.json and sae_weights.safetensors, in one step."""
        return self.network.save(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> SAE:
        """Read what `save` or SAELens wrote; errors as `SAENetwork.load`."""
        return cls(SAENetwork.load(path))

    def __repr__(self) -> str:
        net = self.network
        return f"SAE({net.kind}, d={net.d}, {net.n_latents} latents, k={net.k})"
