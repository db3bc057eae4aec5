"""Floor 2: a network's two ends as tables of products, for serving.

Station: history -> code, and code -> scores, each as a gather-sum.

Memory: I * L bytes per table and 8 bytes per row and column. ELSA has both tables. A factor model,
whose encoder solves a ridge regression, has that of the scores alone. MultVAE and MultDAE, which
have layers on both sides, have the decoder's first layer w wide as a table of L * w numbers in
fp32: tanh lets no bound through that could tell which of an int8 table's answers are certain. Where
there is no table, the dense path serves that end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cfsae_fast import ops
from cfsae_fast.errors import ModelFormatError
from cfsae_fast.inference.cfae import CFAENetwork, Layer
from cfsae_fast.inference.sae import SAENetwork
from cfsae_fast.ops import Encoded, Recommended, Rows
from cfsae_fast.ops.folded import FoldedModel, FoldedSide, FoldedTable

# A batch shares what it reads of the encoder, so that its products are bound by arithmetic; the
# table's rows are each user's own, and come from memory. One byte of these takes as long as so many
# products of bytes (16 GB/s and 260 G/s a core), and to read the encoder once as long as the
# products of so many users.
PRODUCTS_PER_BYTE, USERS_PER_READING = 16, 32
BLOCK_BYTES = 64 << 20  # of fp32 products at a time, while a table is built
_UNIT = 2.0**-24  # relative rounding error of one fp32 operation
_PARTS = ("values", "scales", "errors", "sums", "shifts", "norms")


class FoldedLayer(NamedTuple):
    """A decoder's first layer, w wide, of what a code decodes to: table (L, w) is dictionary @
    weight.T, sums (w,) weight @ 1, shifts (w,) weight @ the SAE's bias; float32."""

    table: np.ndarray
    sums: np.ndarray
    shifts: np.ndarray

    def __call__(self, layer: Layer, encoded: Encoded, threads: int) -> np.ndarray:
        """`layer(decoded)`, (B, w), but for rounding: it adds in another order."""
        summed = ops.sparse_decode(encoded.code, self.table, self.shifts, threads=threads)
        if encoded.stats is not None:
            summed *= encoded.stats.std[:, None]
            summed += encoded.stats.mean[:, None] * self.sums
        return layer.activate(summed + layer.bias)


@dataclass(frozen=True, eq=False)
class FoldedTables:
    """The folded ends of a model; None where that end is not linear. layer: of a decoder that has
    several."""

    encode_side: FoldedSide | None
    decode_side: FoldedSide | None
    layer: FoldedLayer | None = None

    @staticmethod
    def bytes_needed(cfae: CFAENetwork, sae: SAENetwork) -> int:
        """Bytes of the tables that `build` would make: 0 where nothing can be folded."""
        n_items, n_latents = cfae.n_items, sae.n_latents
        encode = n_items * (n_latents + 8) + 8 * n_latents if folds_encode(cfae) else 0
        decode = n_latents * (n_items + 8) + 8 * n_items if folds_decode(cfae) else 0
        if folds_layer(cfae, sae):
            decode = 4 * len(cfae.decoder_layers[0].bias) * (n_latents + 2)
        return encode + decode

    @classmethod
    def build(cls, cfae: CFAENetwork, sae: SAENetwork) -> FoldedTables:
        """Multiply the model's matrices, block by block.

        Raises:
            ValueError: nothing of the model folds.
        """
        if not (folds_encode(cfae) or folds_decode(cfae) or folds_layer(cfae, sae)):
            raise ValueError(
                "fold must be given a model with a linear encoder or decoder, or codes of few "
                f"latents, got {cfae.kind} with codes of {sae.width}; the dense path serves it"
            )
        return cls(
            _encode_side(cfae, sae) if folds_encode(cfae) else None,
            _decode_side(cfae, sae) if folds_decode(cfae) else None,
            _layer(cfae.decoder_layers[0], sae) if folds_layer(cfae, sae) else None,
        )

    @property
    def nbytes(self) -> int:
        arrays = self.to_arrays().values()
        return sum(array.nbytes for array in arrays)

    def encode(
        self, sae: SAENetwork, rows: Rows, embedding: np.ndarray, *, threads: int = 0
    ) -> Encoded:
        """`sae.encode(embedding)`, where embedding (B, d) is the CFAE's of `rows`."""
        if self.encode_side is None or self.dense_encoding_pays(sae, rows):
            return sae.encode(embedding, threads=threads)
        encoded = ops.folded_topk_encode(
            rows,
            self.encode_side,
            embedding,
            sae.encoder,
            sae.encoder_bias,
            sae.bias,
            sae.width,
            standardize=sae.standardize,
            threads=threads,
        )
        return sae.finish(encoded)

    def dense_encoding_pays(self, sae: SAENetwork, rows: Rows) -> bool:
        """Whether the table would be slower for these rows: many of them, with long histories."""
        users = len(rows.offsets) - 1 + USERS_PER_READING
        longer = len(rows.items) * PRODUCTS_PER_BYTE > users * sae.d
        return longer and sae.screen is not None

    def recommend(
        self,
        cfae: CFAENetwork,
        encoded: Encoded,
        embedding: np.ndarray,
        n: int,
        *,
        seen: Rows | None = None,
        allowed: np.ndarray | None = None,
        threads: int = 0,
    ) -> Recommended:
        """`cfae.recommend(embedding)`, where embedding (B, d) is decoded from `encoded`; through a
        folded layer, but for rounding."""
        if self.layer is not None:
            hidden = self.layer(cfae.decoder_layers[0], encoded, threads)
            for layer in cfae.decoder_layers[1:]:
                hidden = layer(hidden, threads)
            return cfae.top(hidden, n, seen=seen, allowed=allowed, threads=threads)
        if self.decode_side is None:
            return cfae.recommend(embedding, n, seen=seen, allowed=allowed, threads=threads)
        return ops.folded_recommend(
            encoded.code,
            encoded.stats,
            self.decode_side,
            embedding,
            cfae.items,
            n,
            bias=cfae.item_bias,
            seen=seen,
            allowed=allowed,
            threads=threads,
        )

    def model(self, cfae: CFAENetwork, sae: SAENetwork, cold: np.ndarray) -> FoldedModel | None:
        """The tables and the weights as the engine asks them in one call; None where an end is not
        folded. They are borrowed: no array is copied."""
        if self.encode_side is None or self.decode_side is None:
            return None
        return FoldedModel(
            cfae.item_weight, self.encode_side, sae.encoder, sae.encoder_bias, sae.dictionary,
            sae.bias, self.decode_side, cfae.items, cfae.item_bias,
            np.ascontiguousarray(cold, np.float32), sae.width, sae.standardize, sae.threshold,
        )  # fmt: skip

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays to save: "encode.values" and so on."""
        arrays = {}
        for name, side in (("encode", self.encode_side), ("decode", self.decode_side)):
            if side is not None:
                parts = (*side.table, side.sums, side.shifts, np.asarray(side.norms))
                named = zip(_PARTS, parts, strict=True)
                arrays |= {f"{name}.{part}": array for part, array in named}
        if self.layer is not None:
            arrays |= {f"layer.{part}": array for part, array in self.layer._asdict().items()}
        return arrays

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], cfae: CFAENetwork, sae: SAENetwork
    ) -> FoldedTables:
        """Inverse of `to_arrays`; arrays may be memory-mapped.

        Raises:
            ModelFormatError: arrays are missing or do not fit the model.
        """
        shape = (cfae.n_items, sae.n_latents)
        return cls(
            _side(arrays, "encode", shape) if folds_encode(cfae) else None,
            _side(arrays, "decode", shape[::-1]) if folds_decode(cfae) else None,
            _saved_layer(arrays, cfae, sae) if folds_layer(cfae, sae) else None,
        )


def folds_encode(cfae: CFAENetwork) -> bool:
    """Whether embeddings are plain sums of the rows of item_weight."""
    return not (
        cfae.encoder_layers
        or cfae.normalize_input
        or cfae.first_activation != "none"
        or cfae.first_bias is not None
    )


def folds_decode(cfae: CFAENetwork) -> bool:
    """Whether scores are embedding @ items.T + item_bias."""
    return not cfae.decoder_layers


def folds_layer(cfae: CFAENetwork, sae: SAENetwork) -> bool:
    """Whether a code's rows of the table of the decoder's first layer, one of several, are fewer
    numbers than its rows of the dictionary and that layer."""
    if folds_decode(cfae):
        return False
    wide, d = cfae.decoder_layers[0].weight.shape
    return sae.width * wide < sae.width * d + wide * d


def _encode_side(cfae: CFAENetwork, sae: SAENetwork) -> FoldedSide:
    encoder = sae.encoder.astype(np.float64)
    shifts = sae.encoder_bias - encoder @ sae.bias.astype(np.float64)
    norms = (_longest(cfae.item_weight), _longest(sae.encoder), 0.0, _largest(sae.encoder_bias))
    table = _product(cfae.item_weight, sae.encoder, norms[0] * norms[1])
    return FoldedSide(table, _single(encoder.sum(axis=1)), _single(shifts), norms)


def _decode_side(cfae: CFAENetwork, sae: SAENetwork) -> FoldedSide:
    items, bias = cfae.items, sae.bias.astype(np.float64)
    item_bias = 0.0 if cfae.item_bias is None else _largest(cfae.item_bias)
    norms = (_longest(sae.dictionary), _longest(items), float(np.linalg.norm(bias)), item_bias)
    table = _product(sae.dictionary, items, norms[0] * norms[1])
    sums, shifts = items.sum(axis=1, dtype=np.float64), items.astype(np.float64) @ bias
    return FoldedSide(table, _single(sums), _single(shifts), norms)


def _layer(layer: Layer, sae: SAENetwork) -> FoldedLayer:
    weight = layer.weight.astype(np.float64)
    table = np.empty((sae.n_latents, len(weight)), np.float32)
    step = max(1, BLOCK_BYTES // (8 * max(table.shape[1], weight.shape[1])))
    for first in range(0, len(table), step):
        table[first : first + step] = sae.dictionary[first : first + step] @ weight.T
    return FoldedLayer(table, _single(weight.sum(axis=1)), _single(weight @ sae.bias))


def _product(left: np.ndarray, right: np.ndarray, reach: float) -> FoldedTable:
    """left @ right.T (R, C) as int8; `reach` bounds its entries, and so what fp32 loses in them."""
    n_rows, n_columns = len(left), len(right)
    values = np.empty((n_rows, n_columns), np.int8)
    scales, errors = np.empty(n_rows, np.float32), np.empty(n_rows, np.float32)
    lost = 2 * _UNIT * (left.shape[1] + 32) * reach + 1e-35
    step = max(1, BLOCK_BYTES // max(1, 4 * n_columns))
    for first in range(0, n_rows, step):
        at = slice(first, min(first + step, n_rows))
        with np.errstate(all="ignore"):  # what is not finite gets an infinite error below
            block = left[at] @ right.T
            largest = np.abs(block).max(axis=1, initial=0)
            scale = np.maximum(largest / np.float32(127), np.float32(1e-30))
            block /= scale[:, None]
            rounded = np.rint(block)
            sane = np.isfinite(block).all(axis=1)
            values[at] = np.where(sane[:, None], np.clip(rounded, -127, 127), 0)
            block -= values[at]
            off = np.abs(block).max(axis=1, initial=0).astype(np.float64)
            # the division is off by a unit of a value of up to 127
            error = (off + 4 * _UNIT * 128) * scale * 1.0001 + lost
        scales[at] = np.where(sane, scale, 0)
        errors[at] = np.where(sane & np.isfinite(error), error, np.inf)
    return FoldedTable(values, scales, errors)


def _longest(matrix: np.ndarray) -> float:
    """The length of the longest row; infinite where an entry is not finite."""
    squares = np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64)
    return _sane(float(np.sqrt(squares.max(initial=0))) * (1 + 1e-6))


def _largest(vector: np.ndarray) -> float:
    return _sane(float(np.abs(vector).max(initial=0)))


def _sane(bound: float) -> float:
    return bound if np.isfinite(bound) else float("inf")


def _single(vector: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(vector, dtype=np.float32)


def _side(arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, int]) -> FoldedSide:
    values, scales, errors, sums, shifts, norms = _parts(arrays, name, _PARTS)
    want = (shape, shape[:1], shape[:1], shape[1:], shape[1:], (4,))
    got = tuple(one.shape for one in (values, scales, errors, sums, shifts, norms))
    if got != want or values.dtype != np.int8:
        raise ModelFormatError(f"the folded tables do not fit the model ({name}); fold it again")
    return FoldedSide(
        FoldedTable(values, scales, errors), sums, shifts, tuple(float(norm) for norm in norms)
    )


def _saved_layer(
    arrays: Mapping[str, np.ndarray], cfae: CFAENetwork, sae: SAENetwork
) -> FoldedLayer:
    found = FoldedLayer(*_parts(arrays, "layer", FoldedLayer._fields))
    width = len(cfae.decoder_layers[0].bias)
    if [one.shape for one in found] != [(sae.n_latents, width), (width,), (width,)]:
        raise ModelFormatError("the folded tables do not fit the model (layer); fold it again")
    return found


def _parts(arrays: Mapping[str, np.ndarray], name: str, parts: tuple[str, ...]) -> list[np.ndarray]:
    missing = [part for part in parts if f"{name}.{part}" not in arrays]
    if missing:
        raise ModelFormatError(f"the folded tables must hold {name}.{missing[0]}, found none")
    return [arrays[f"{name}.{part}"] for part in parts]
