"""Floor 5: where a recommender answers: on the CPU in numpy, or on a device in torch.

Station: CFAE.encode -> SAE.encode -> steer -> SAE.decode -> CFAE.decode -> top-N, on tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cfsae_fast import ops, steering
from cfsae_fast.errors import require_extra
from cfsae_fast.inference import CFAENetwork, SAENetwork
from cfsae_fast.ops import (
    Code,
    Encoded,
    FoldedSide,
    FoldedTable,
    Recommended,
    Rows,
)
from cfsae_fast.recommender import pipeline, probing
from cfsae_fast.recommender.fitted import Fitted
from cfsae_fast.recommender.inputs import Request

if TYPE_CHECKING:
    from torch import Tensor

# When a table pays on a device, by the model of docs/gpu-roofline.md (not measured): reading one
# waits for loads and launches, so the matrix that it stands in for must be large; and each row
# reads table rows of its own, while dense tiles read a matrix once for many rows.
FOLDED_BYTES, FOLDED_ROWS = 96 << 20, 16


class Place:
    """Answers requests on `device` ("cpu", "cuda", "cuda:1"); weights move there once."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self._placed: _Placed | None = None

    def answer(
        self, fitted: Fitted, request: Request, turns: list[Any], n: int, **options: Any
    ) -> Recommended:
        """`pipeline.answer`, there; by the folded tables where they pay on a device.

        Raises:
            NotImplementedError, RuntimeError: the device cannot be used, and why.
        """
        if self.device == "cpu":
            return pipeline.answer(fitted, request, turns, n, **options)
        if self._placed is None or self._placed.fitted is not fitted:
            self._placed = _Placed(fitted, self.device)
        return self._placed.answer(request, turns, n, **options)


class _Placed:
    """The weights of a fitted recommender on a device."""

    def __init__(self, fitted: Fitted, device: str) -> None:
        require_extra("torch", extra="train", purpose=f"device={device!r}")
        from cfsae_fast.ops.device import place

        self.fitted, self.device = fitted, place(device)
        cfae, sae = fitted.cfae, fitted.sae
        self.items = self._here(cfae.items)
        one_array = cfae.item_weight is cfae.items
        self.item_weight = self.items if one_array else self._here(cfae.item_weight)
        self.first_bias, self.item_bias = self._here(cfae.first_bias), self._here(cfae.item_bias)
        self.encoder_layers = [self._layer(layer) for layer in cfae.encoder_layers]
        self.decoder_layers = [self._layer(layer) for layer in cfae.decoder_layers]
        self.encoder, self.encoder_bias = self._here(sae.encoder), self._here(sae.encoder_bias)
        self.dictionary, self.bias = self._here(sae.dictionary), self._here(sae.bias)
        self.cold = self._here(fitted.cold)
        self.encode_side = self.decode_side = None
        if fitted.folded is not None:
            self.encode_side = self._side(fitted.folded.encode_side, self.encoder)
            self.decode_side = self._side(fitted.folded.decode_side, self.items)

    def answer(
        self,
        request: Request,
        turns: list[Any],
        n: int,
        *,
        mode: str,
        exclude_seen: bool = True,
        allowed: np.ndarray | None = None,
        threads: int = 0,
    ) -> Recommended:
        pipeline.check_mode(mode)
        rows = Rows(*map(self._here, request.rows))
        embedding = self._embed(request, rows)
        options = {"bias": self.item_bias, "seen": rows if exclude_seen else None,
                   "allowed": self._here(allowed)}  # fmt: skip
        few, told = len(turns) <= FOLDED_ROWS, None
        if mode == "reconstruct" or any(turns):
            brought = self.fitted.user_factors is not None and request.users is not None
            side = None if brought or not few else self.encode_side
            encoded = self._encode(embedding, rows, side)
            embedding, told = self._turned(embedding, encoded, turns, mode)
        if told is None or mode == "residual" or not few or self.decode_side is None:
            found = ops.recommend(
                _through(embedding, self.decoder_layers), self.items, n, **options
            )
        else:
            found = ops.folded_recommend(
                *told, self.decode_side, embedding, self.items, n, **options
            )
        return Recommended(*(one.cpu().numpy() for one in found))

    def _embed(self, request: Request, rows: Rows) -> Tensor:
        fitted = self.fitted
        if fitted.user_factors is not None and request.users is not None:
            return self._here(fitted.user_factors[request.users])
        summed = ops.encode_rows(rows, self.item_weight)
        if fitted.cfae.normalize_input:
            norms = self._here(CFAENetwork.row_norms(request.rows)).unsqueeze(1)
            summed = summed / norms.masked_fill(norms == 0, 1)
        if self.first_bias is not None:
            summed = summed + self.first_bias
        first = summed.tanh() if fitted.cfae.first_activation == "tanh" else summed
        embedding = _through(first, self.encoder_layers)
        empty = (rows.offsets.diff() == 0).unsqueeze(1)
        return self.cold.where(empty, embedding).contiguous()

    def _turned(
        self, embedding: Tensor, encoded: Encoded, turns: list[Any], mode: str
    ) -> tuple[Tensor, Encoded]:
        """embedding' (B, d), and the code that it is decoded from (reconstruct)."""
        code, stats = encoded
        if not any(turns):
            return ops.sparse_decode(code, self.dictionary, self.bias, stats), encoded
        fitted, activation = self.fitted, code.values.sum(dim=1).cpu().numpy()
        knobs = steering.knobs_for(
            turns,
            fitted.concepts,
            activation,
            lambda: probing.pulls(fitted, embedding.cpu().numpy()),
            resolved=fitted.resolved,
        )
        rest = (self.dictionary, self.bias, stats)
        moved = ops.steer_decode(embedding, code, knobs, *rest, mode=mode)
        if mode == "residual" or self.decode_side is None:
            return moved, encoded
        turned = ops.steer(code, knobs, n_latents=len(self.dictionary))
        return moved, Encoded(turned, stats)

    def _encode(self, embedding: Tensor, rows: Rows, side: FoldedSide | None) -> Encoded:
        """side: the table that stands in for the encoder, or None."""
        sae: SAENetwork = self.fitted.sae
        how = {"standardize": sae.standardize}
        given = (embedding, self.encoder, self.encoder_bias, self.bias, sae.width)
        if side is None:
            encoded = ops.topk_encode(*given, **how)
        else:
            encoded = ops.folded_topk_encode(rows, side, *given, **how)
        (indices, values), stats = encoded
        if sae.threshold is not None:
            left_out = values <= float(np.float32(sae.threshold))
            indices = indices.masked_fill(left_out, ops.PADDING)
            values = values.masked_fill(left_out, 0)
        if sae.kind == "basic":  # as wide as its widest row
            width = max(1, int((indices != ops.PADDING).sum(dim=1).max()) if len(indices) else 1)
            indices, values = indices[:, :width].contiguous(), values[:, :width].contiguous()
        return Encoded(Code(indices, values), stats)

    def _layer(self, layer: Any) -> tuple[Tensor, Tensor, str]:
        return self._here(layer.weight), self._here(layer.bias), layer.activation

    def _side(self, side: FoldedSide | None, matrix: Tensor) -> FoldedSide | None:
        """The tables that stand in for a matrix, where they pay."""
        if side is None or matrix.numel() * matrix.element_size() < FOLDED_BYTES:
            return None
        table = FoldedTable(*map(self._here, side.table))
        return FoldedSide(table, self._here(side.sums), self._here(side.shifts), side.norms)

    def _here(self, array: np.ndarray | None) -> Tensor | None:
        import torch

        if array is None:
            return None
        return torch.from_numpy(np.array(array)).to(self.device)  # a copy: it may be read-only


def _through(x: Tensor, layers: list[tuple[Tensor, Tensor, str]]) -> Tensor:
    for weight, bias, activation in layers:
        x = x @ weight.T + bias
        x = x.tanh() if activation == "tanh" else x
    return x
