"""Floor 2: a trained CFAE as numpy arrays, which encodes and decodes without torch.

Station: CFAE.encode and CFAE.decode, at serving time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from cfsae_fast import ops
from cfsae_fast.errors import ModelFormatError
from cfsae_fast.ops.containers import Recommended, Rows
from cfsae_fast.ops.layers import linear

ACTIVATIONS = ("none", "tanh")


class Layer(NamedTuple):
    """activation(x @ weight.T + bias): weight (out, in), bias (out,), activation none or tanh."""

    weight: np.ndarray
    bias: np.ndarray
    activation: str

    def __call__(self, x: np.ndarray, threads: int = 0) -> np.ndarray:
        return self.activate(linear(x, self.weight, self.bias, threads=threads))

    def activate(self, x: np.ndarray) -> np.ndarray:
        return _activate(x, self.activation)


@dataclass(frozen=True)
class CFAENetwork:
    """A trained CFAE.

    embedding = encoder_layers(first_activation(rows @ item_weight / norm + first_bias))
    scores    = decoder_layers(embedding) @ items.T + item_bias

    item_weight (I, d0), items (I, d1); norm is the row's length if normalize_input, else 1. For
    ELSA item_weight and items are one array (stored once) and there are no layers.
    """

    kind: str
    item_weight: np.ndarray
    items: np.ndarray
    first_bias: np.ndarray | None = None
    first_activation: str = "none"
    encoder_layers: tuple[Layer, ...] = ()
    decoder_layers: tuple[Layer, ...] = ()
    item_bias: np.ndarray | None = None
    normalize_input: bool = False

    @property
    def n_items(self) -> int:
        return len(self.items)

    @property
    def d(self) -> int:
        """Width of the embedding."""
        if self.encoder_layers:
            return len(self.encoder_layers[-1].bias)
        return self.item_weight.shape[1]

    @property
    def is_linear(self) -> bool:
        """Whether embedding and scores are linear in the history and the embedding (ELSA)."""
        return not (
            self.encoder_layers
            or self.decoder_layers
            or self.normalize_input
            or self.first_activation != "none"
        )

    @cached_property
    def _screen(self) -> ops.Screen | None:
        return ops.Screen.where_it_pays(self.items)

    def encode(self, rows: Rows, *, threads: int = 0) -> np.ndarray:
        """Histories -> embedding (B, d) float32."""
        summed = ops.encode_rows(rows, self.item_weight, threads=threads)
        if self.normalize_input:
            norms = self.row_norms(rows)[:, None]
            summed = summed / np.where(norms > 0, norms, 1)
        return self._after_sum(summed, threads)

    def encode_items(self, positions: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Embedding (n, d) of histories of one item each, for item positions (all by default)."""
        return self._after_sum(self.item_weight[positions])

    def to_items(self, embedding: np.ndarray, *, threads: int = 0) -> np.ndarray:
        """The decoder up to its last layer: embedding (B, d) -> (B, d1), to multiply with items."""
        for layer in self.decoder_layers:
            embedding = layer(embedding, threads)
        return embedding

    def decode(self, embedding: np.ndarray) -> np.ndarray:
        """All raw scores (B, I); for tests and small catalogues, serving takes `recommend`."""
        scores = self.to_items(embedding) @ self.items.T
        return scores if self.item_bias is None else scores + self.item_bias

    def recommend(
        self,
        embedding: np.ndarray,
        n: int,
        *,
        seen: Rows | None = None,
        allowed: np.ndarray | None = None,
        threads: int = 0,
    ) -> Recommended:
        """Top-n items of embeddings (B, d); `seen` and items not `allowed` never appear."""
        hidden = self.to_items(embedding, threads=threads)
        return self.top(hidden, n, seen=seen, allowed=allowed, threads=threads)

    def top(
        self,
        hidden: np.ndarray,
        n: int,
        *,
        seen: Rows | None = None,
        allowed: np.ndarray | None = None,
        threads: int = 0,
    ) -> Recommended:
        """The same from what `to_items` gave, hidden (B, d1)."""
        return ops.recommend(
            hidden,
            self.items,
            n,
            bias=self.item_bias,
            seen=seen,
            allowed=allowed,
            screen=self._screen,
            threads=threads,
        )

    def to_tensors(self) -> dict[str, np.ndarray]:
        """Arrays for safetensors; `describe` holds the rest."""
        named = {
            "items": self.items,
            "item_weight": None if self.item_weight is self.items else self.item_weight,
            "first_bias": self.first_bias,
            "item_bias": self.item_bias,
        }
        for side, layers in (("encoder", self.encoder_layers), ("decoder", self.decoder_layers)):
            for at, layer in enumerate(layers):
                named[f"{side}.{at}.weight"], named[f"{side}.{at}.bias"] = layer.weight, layer.bias
        return {name: array for name, array in named.items() if array is not None}

    def describe(self) -> dict[str, Any]:
        """What `to_tensors` cannot say, ready for JSON."""
        return {
            "kind": self.kind,
            "first_activation": self.first_activation,
            "encoder": [layer.activation for layer in self.encoder_layers],
            "decoder": [layer.activation for layer in self.decoder_layers],
            "normalize_input": self.normalize_input,
        }

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, np.ndarray], description: Mapping[str, Any]
    ) -> CFAENetwork:
        """Inverse of `to_tensors` and `describe`.

        Raises:
            ModelFormatError: an array is missing or the shapes do not fit together.
        """
        try:
            layers = {
                side: tuple(
                    Layer(tensors[f"{side}.{at}.weight"], tensors[f"{side}.{at}.bias"], activation)
                    for at, activation in enumerate(description[side])
                )
                for side in ("encoder", "decoder")
            }
            network = cls(
                kind=description["kind"],
                item_weight=tensors.get("item_weight", tensors["items"]),
                items=tensors["items"],
                first_bias=tensors.get("first_bias"),
                first_activation=description["first_activation"],
                encoder_layers=layers["encoder"],
                decoder_layers=layers["decoder"],
                item_bias=tensors.get("item_bias"),
                normalize_input=bool(description["normalize_input"]),
            )
        except KeyError as error:
            raise ModelFormatError(f"the CFAE's weights must hold {error}, found none") from error
        _check_network(network)
        return network

    @staticmethod
    def row_norms(rows: Rows) -> np.ndarray:
        """Euclidean length of each row (B,) float32."""
        counts = np.diff(rows.offsets)
        if rows.values is None:
            return np.sqrt(counts).astype(np.float32)
        row = np.repeat(np.arange(len(counts)), counts)
        squares = np.bincount(row, np.square(rows.values, dtype=np.float64), minlength=len(counts))
        return np.sqrt(squares).astype(np.float32)

    def _after_sum(self, summed: np.ndarray, threads: int = 0) -> np.ndarray:
        if self.first_bias is not None:
            summed = summed + self.first_bias
        embedding = _activate(summed, self.first_activation)
        for layer in self.encoder_layers:
            embedding = layer(embedding, threads)
        return np.ascontiguousarray(embedding, dtype=np.float32)


def _activate(x: np.ndarray, activation: str) -> np.ndarray:
    return np.tanh(x) if activation == "tanh" else x


def _check_network(network: CFAENetwork) -> None:
    width = network.item_weight.shape[1]
    for side, layers in (("encoder", network.encoder_layers), ("decoder", network.decoder_layers)):
        for at, layer in enumerate(layers):
            fits = layer.weight.ndim == 2 and layer.weight.shape == (len(layer.bias), width)
            if not fits or layer.activation not in ACTIVATIONS:
                raise ModelFormatError(f"the CFAE's layer {side}.{at} does not fit its neighbours")
            width = len(layer.bias)
    biases = (
        (network.first_bias, network.item_weight.shape[1]),
        (network.item_bias, len(network.items)),
    )
    if (
        width != network.items.shape[1]
        or len(network.item_weight) != len(network.items)
        or network.first_activation not in ACTIVATIONS
        or any(bias is not None and bias.shape != (size,) for bias, size in biases)
    ):
        raise ModelFormatError("the CFAE's weights do not fit together")
