"""Floor 2: a trained SAE as numpy arrays, which encodes and decodes without torch.

Station: SAE.encode and SAE.decode, at serving time. Its files are laid out as SAELens does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cfsae_fast import io, ops
from cfsae_fast.errors import ModelFormatError
from cfsae_fast.inference import pursuit
from cfsae_fast.ops.containers import PADDING, Code, Encoded

SAE_CONFIG, SAE_WEIGHTS = "cfg.json", "sae_weights.safetensors"  # SAELens' file names
_ARCHITECTURES = {"topk": "topk", "batchtopk": "jumprelu", "basic": "standard"}


@dataclass(frozen=True)
class SAENetwork:
    """A trained sparse autoencoder.

    u = (x - mean) / std per row if standardize, else x; activations relu((u - bias) @ encoder.T +
    encoder_bias), of which the `width` largest are kept, and of those only what exceeds
    `threshold` (None: all). Decoded: mean + std * (bias + code @ dictionary).

    encoder, dictionary (L, d); encoder_bias (L,); bias (d,). kind topk, batchtopk or basic.
    """

    kind: str
    encoder: np.ndarray
    encoder_bias: np.ndarray
    dictionary: np.ndarray
    bias: np.ndarray
    k: int
    width: int
    threshold: float | None = None
    standardize: bool = True

    @property
    def n_latents(self) -> int:
        return len(self.encoder)

    @property
    def d(self) -> int:
        return self.encoder.shape[1]

    @cached_property
    def screen(self) -> ops.Screen | None:
        """The encoder in 8 bits, kept from the first use on; None where that does not pay."""
        return ops.Screen.where_it_pays(self.encoder)

    def encode(self, embedding: np.ndarray, *, refine_steps: int = 0, threads: int = 0) -> Encoded:
        """Embedding (B, d) -> code (B, width) and stats; kind basic: as wide as its widest row.

        refine_steps: sweeps of `pursuit.refine` over the code's values; no row's error rises.
        """
        encoded = ops.topk_encode(
            embedding,
            self.encoder,
            self.encoder_bias,
            self.bias,
            self.width,
            standardize=self.standardize,
            screen=self.screen,
            threads=threads,
        )
        encoded = self.finish(encoded)
        if not refine_steps:
            return encoded
        target = self._target(embedding, encoded)
        return encoded._replace(
            code=pursuit.refine(encoded.code, target, self.dictionary, refine_steps)
        )

    def pursue(self, embedding: np.ndarray, k: int | None = None) -> Encoded:
        """As `encode`, by matching pursuit (`pursuit.pursue`) in place of the encoder; k None: the
        SAE's own. The error of a row falls with k, for any k up to n_latents.

        Raises:
            ValueError: k is not in [1, n_latents].
        """
        k = self.k if k is None else k
        if not 1 <= k <= self.n_latents:
            raise ValueError(f"k must be in [1, n_latents={self.n_latents}], got {k}")
        encoded = self.encode(embedding)  # its stats
        target = self._target(embedding, encoded)
        return encoded._replace(code=pursuit.pursue(target, self.dictionary, k))

    def finish(self, encoded: Encoded) -> Encoded:
        """The `width` largest activations -> the code: what exceeds the threshold, trimmed."""
        if self.threshold is not None:
            indices, values = encoded.code
            kept = values > np.float32(self.threshold)
            code = Code(np.where(kept, indices, PADDING), np.where(kept, values, 0))
            encoded = encoded._replace(code=code)
        return encoded._replace(code=trim(encoded.code)) if self.kind == "basic" else encoded

    def decode(self, encoded: Encoded, *, threads: int = 0) -> np.ndarray:
        """Code and stats -> reconstructed embedding (B, d)."""
        return ops.sparse_decode(
            encoded.code, self.dictionary, self.bias, encoded.stats, threads=threads
        )

    def _target(self, embedding: np.ndarray, encoded: Encoded) -> np.ndarray:
        """What code @ dictionary is to equal: (B, d)."""
        if encoded.stats is None:
            return embedding - self.bias
        mean, std = (np.asarray(one)[:, None] for one in encoded.stats)
        return (embedding - mean) / std - self.bias

    def to_files(self) -> dict[str, dict[str, Any]]:
        """cfg.json and sae_weights.safetensors as SAELens lays them out (for io.write_directory).

        W_enc (d, L), b_enc (L,), W_dec (L, d), b_dec (d,); batchtopk is written as SAELens does,
        as jumprelu with one threshold (L,). What SAELens has no field for stands under "cfsae".
        """
        config = {
            "architecture": _ARCHITECTURES[self.kind],
            "d_in": self.d,
            "d_sae": self.n_latents,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "layer_norm" if self.standardize else "none",
            "reshape_activations": "none",
            "metadata": {},
            "cfsae": {"kind": self.kind, "k": self.k, "width": self.width},
        }
        weights = {
            "W_enc": np.ascontiguousarray(self.encoder.T),
            "b_enc": self.encoder_bias,
            "W_dec": self.dictionary,
            "b_dec": self.bias,
        }
        if self.kind == "topk":
            config |= {"k": self.k, "rescale_acts_by_decoder_norm": False}
        if self.kind == "batchtopk":
            weights["threshold"] = np.full(self.n_latents, self.threshold or 0, dtype=np.float32)
        return {SAE_CONFIG: config, SAE_WEIGHTS: weights}

    def save(self, path: str | os.PathLike) -> Path:
        """Write the SAE as a directory of its own, in one step."""
        return io.write_directory(path, self.to_files(), kind="sae")

    @classmethod
    def load(cls, path: str | os.PathLike) -> SAENetwork:
        """Read a directory written by `save` or by SAELens (topk, standard, or jumprelu with one
        threshold for all latents).

        Raises:
            ModelFormatError: files are missing, damaged, or of an SAE that is none of these.
        """
        path = Path(path)
        if (path / io.MANIFEST).exists():
            files = io.read_directory(path, kind="sae")
        else:
            files = {
                SAE_CONFIG: io.read_json(path / SAE_CONFIG),
                SAE_WEIGHTS: io.read_tensors(path / SAE_WEIGHTS),
            }
        return cls.from_files(files)

    @classmethod
    def from_files(cls, files: Mapping[str, Mapping[str, Any]]) -> SAENetwork:
        """Inverse of `to_files`; errors as `load`."""
        try:
            return _read_saelens(files[SAE_CONFIG], files[SAE_WEIGHTS])
        except KeyError as error:
            raise ModelFormatError(f"the SAE must hold {error}, found none") from error


def trim(code: Code) -> Code:
    """`code` (arrays) without the columns that are padding in every row; at least one stays."""
    used = (code.indices != PADDING).sum(axis=1)
    width = max(1, int(used.max(initial=0)))
    return Code(
        np.ascontiguousarray(code.indices[:, :width]), np.ascontiguousarray(code.values[:, :width])
    )


def _read_saelens(config: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> SAENetwork:
    encoder = np.ascontiguousarray(weights["W_enc"].T, dtype=np.float32)
    encoder_bias, dictionary = weights["b_enc"], weights["W_dec"]
    architecture, own = config["architecture"], config.get("cfsae", {})
    kinds = {name: kind for kind, name in _ARCHITECTURES.items()}
    norms = config.get("normalize_activations") or "none"
    if architecture not in kinds or norms not in ("none", "layer_norm"):
        raise ModelFormatError(
            f"the SAE must be of architecture {sorted(kinds)} with normalize_activations none or "
            f"layer_norm, got {architecture!r} with {norms!r}"
        )
    if config.get("rescale_acts_by_decoder_norm"):
        lengths = np.linalg.norm(dictionary, axis=1)
        encoder, encoder_bias = encoder * lengths[:, None], encoder_bias * lengths
        dictionary = dictionary / np.where(lengths > 0, lengths, 1)[:, None]
    if not config.get("apply_b_dec_to_input", True):
        encoder_bias = encoder_bias + encoder @ weights["b_dec"]
    n_latents = len(encoder)
    k = own.get("k", config["k"] if architecture == "topk" else n_latents)
    network = SAENetwork(
        kind=kinds[architecture],
        encoder=encoder,
        encoder_bias=np.asarray(encoder_bias, dtype=np.float32),
        dictionary=np.ascontiguousarray(dictionary, dtype=np.float32),
        bias=np.asarray(weights["b_dec"], dtype=np.float32),
        k=int(k),
        width=int(own.get("width", k)),
        threshold=_one_threshold(weights) if architecture == "jumprelu" else None,
        standardize=norms == "layer_norm",
    )
    _check_sae(network)
    return network


def _one_threshold(weights: Mapping[str, np.ndarray]) -> float:
    thresholds = np.unique(weights["threshold"])
    if len(thresholds) != 1:
        raise ModelFormatError(
            f"the SAE must have one threshold for all latents, got {len(thresholds)} different ones"
        )
    return float(thresholds[0])


def _check_sae(network: SAENetwork) -> None:
    shape = network.encoder.shape
    if (
        len(shape) != 2
        or network.dictionary.shape != shape
        or network.encoder_bias.shape != shape[:1]
        or network.bias.shape != shape[1:]
        or not 1 <= network.k <= network.width <= shape[0]
    ):
        raise ModelFormatError("the SAE's weights do not fit together")
