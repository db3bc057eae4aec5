"""Floor 5: what a fitted recommender is made of, and its directory on disk.

Station: everything the last line of the story needs, and nothing that only training needs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cfsae_fast import steering
from cfsae_fast._version import __version__
from cfsae_fast.concepts import Concept, ConceptMap
from cfsae_fast.errors import DataError, ModelFormatError
from cfsae_fast.ids import Ids, texts_from_arrays, texts_to_arrays
from cfsae_fast.inference import CFAENetwork, FoldedTables, SAENetwork, load_tables, save_tables
from cfsae_fast.io import MANIFEST, read_directory, read_json, write_directory
from cfsae_fast.ops import Rows
from cfsae_fast.ops.folded import FoldedModel

KIND = "recommender"
WISHES = 4096  # resolved ones that a model remembers
USUAL = 2048  # stored users whose lengths tell what is usual
TABLES = "folded"  # the folder of folded tables inside a saved model
PROBE = "probe"  # the method of a map made by `probing`


@dataclass(frozen=True, eq=False)
class Fitted:
    """The parts of a fitted recommender: numpy arrays and names.

    histories: stored users' rows, by position. cold: (d,) the mean training embedding, which stands
    in for an empty history. titles: (I,) str or None. user_factors: (U, d) or None: embeddings of
    the stored users that were brought along (`wrap`) instead of encoded from their histories.
    concepts: what boost, suppress and only mean; probed: what toward does, where concepts is not
    made by probing itself. latent_names: latent -> concept that describes it best. report: configs
    and metrics of training. folded: tables for serving, or None; the answers are the same.
    """

    cfae: CFAENetwork
    sae: SAENetwork
    user_ids: Ids
    item_ids: Ids
    histories: Rows
    cold: np.ndarray
    titles: np.ndarray | None = None
    concepts: ConceptMap | None = None
    latent_names: dict[int, str] = field(default_factory=dict)
    user_factors: np.ndarray | None = None
    report: dict[str, Any] = field(default_factory=dict)
    folded: FoldedTables | None = None
    probed: ConceptMap | None = None
    _wishes: dict[steering.Turns, steering.KnobRow] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        """Raises: DataError: the parts do not fit together."""
        n_items, d = len(self.item_ids), self.sae.d
        parts = {
            "cfae items": (self.cfae.items.shape[0], n_items),
            "cfae encoder items": (self.cfae.item_weight.shape[0], n_items),
            "cold": (self.cold.shape, (d,)),
            "cfae embedding": (self.cfae.d, d),
            "histories": (len(self.histories.offsets), len(self.user_ids) + 1),
            "titles": (n_items if self.titles is None else len(self.titles), n_items),
        }
        if self.user_factors is not None:
            parts["user_factors"] = (self.user_factors.shape, (len(self.user_ids), d))
        for name, (got, want) in parts.items():
            if got != want:
                raise DataError(f"{name} must have size {want} to fit the model, got {got}")

    def title(self, position: int) -> str | None:
        return None if self.titles is None else str(self.titles[position])

    @cached_property
    def folded_model(self) -> FoldedModel | None:
        """The folded tables with the weights, for answers in one call, or None."""
        return None if self.folded is None else self.folded.model(self.cfae, self.sae, self.cold)

    @cached_property
    def usual_length(self) -> float:
        """Median length of stored users' embeddings, of USUAL users spread over all; 1 where
        there are none."""
        step = max(1, len(self.user_ids) // USUAL)
        if self.user_factors is not None:
            embedding = self.user_factors[::step]
        else:
            users = np.arange(0, len(self.user_ids), step)
            embedding = self.cfae.encode(self.histories.take(users))
        lengths = np.linalg.norm(embedding.astype(np.float64), axis=1)
        return float(np.median(lengths[lengths > 0])) if lengths.any() else 1.0

    @property
    def toward_map(self) -> ConceptMap | None:
        """The map that toward asks, or None: the model was labelled before there was one."""
        if self.concepts is not None and self.concepts.method == PROBE:
            return self.concepts
        return self.probed

    def toward_concept(self, name: str) -> Concept | None:
        """What toward knows of a concept, its confidence above all, or None where it cannot go."""
        known = self.toward_map
        return known.get(name) if known is not None and name in known else None

    def direction(self, concept: steering.Concept) -> tuple[np.ndarray, np.ndarray, float]:
        """Where toward moves users: latents (m,), weights (m,) of sum 1, and `length_of` them.

        Raises:
            UnknownConceptError: no such concept. ValueError: no map, or no such latent.
        """
        if not isinstance(concept, str):
            if not 0 <= concept < self.sae.n_latents:
                raise ValueError(
                    f"toward must name a latent in [0, {self.sae.n_latents}), got {concept}"
                )
            latents, weights = np.array([concept]), np.ones(1)
        elif self.toward_map is None:
            raise ValueError(
                f"toward({concept!r}, ...) must have the model labelled with a map for it, got one "
                "that was labelled without; label it again: model.label(tags), or "
                "cfsae label MODEL SOURCE"
            )
        else:
            latents, weights = self.toward_map.target(concept)
        return latents, weights, self.length_of(latents, weights)

    def length_of(self, latents: np.ndarray, weights: np.ndarray) -> float:
        """How long the sum of these latents' atoms is, by weights."""
        told = np.asarray(weights, dtype=np.float64) @ self.sae.dictionary[latents]
        return float(np.linalg.norm(told))

    def resolved(self, turns: steering.Turns) -> steering.KnobRow:
        """`steering.resolve` with this model's concepts; the same wishes come again and again."""
        found = self._wishes.get(turns)
        if found is None:
            if len(self._wishes) >= WISHES:
                self._wishes.clear()
            found = steering.resolve(turns, self.concepts, self.direction)
            self._wishes[turns] = found
        return found

    def with_concepts(self, concepts: ConceptMap | None, names: dict[int, str]) -> Fitted:
        """The model with another map, and with nothing left of the one that it had."""
        return replace(self, concepts=concepts, probed=None, latent_names=names)


def save(fitted: Fitted, path: str | os.PathLike) -> Path:
    """Write the model as one directory; what stood there is replaced whole."""
    ids = {**fitted.user_ids.to_arrays("user"), **fitted.item_ids.to_arrays("item")}
    rows = {"offsets": fitted.histories.offsets, "items": fitted.histories.items}
    extra = {"cold": fitted.cold}
    if fitted.user_factors is not None:
        extra["user_factors"] = fitted.user_factors
    if fitted.titles is not None:
        ids.update(texts_to_arrays(fitted.titles, "title"))
    meta = {
        "package": __version__,
        "report": fitted.report,
        "latent_names": {str(latent): name for latent, name in fitted.latent_names.items()},
        "concepts": None,
        "probed": None,
    }
    for part in ("concepts", "probed"):
        if (found := getattr(fitted, part)) is not None:
            arrays, meta[part] = found.to_arrays()
            extra.update({f"{part}.{name}": one for name, one in arrays.items()})
    meta["cfae"] = fitted.cfae.describe()
    files = {
        "recommender.json": meta,
        "cfae.safetensors": fitted.cfae.to_tensors(),
        **{f"sae/{name}": content for name, content in fitted.sae.to_files().items()},
        "ids.safetensors": ids,
        "histories.safetensors": rows,
        "extra.safetensors": extra,
    }
    saved = write_directory(path, files, kind=KIND)
    if fitted.folded is not None:
        save_folded(fitted.folded, saved)
    return saved


def save_folded(tables: FoldedTables, path: str | os.PathLike) -> Path:
    """Write tables of the model saved at `path` into its directory, where `load` finds them."""
    return save_tables(tables, Path(path) / TABLES, weights=_weights_of(Path(path)))


def _weights_of(path: Path) -> str:
    """What tells the weights of a saved model from any others."""
    files = read_json(path / MANIFEST)["files"]
    return " ".join(
        files[name]["sha256"] for name in sorted(files) if name.startswith(("cfae.", "sae/"))
    )


def load(path: str | os.PathLike) -> Fitted:
    """Read a directory that `save` wrote.

    Raises:
        ModelFormatError: foreign, damaged, of a newer format, or with parts that do not fit.
    """
    files = read_directory(path, kind=KIND)
    try:
        fitted = _assemble(files)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFormatError(f"{path} is damaged: {error}; restore it or save again") from error
    tables = Path(path) / TABLES
    if not tables.is_dir():
        return fitted
    folded = load_tables(tables, fitted.cfae, fitted.sae, weights=_weights_of(Path(path)))
    return replace(fitted, folded=folded)


def _assemble(files: dict[str, Any]) -> Fitted:
    meta, extra, ids = (
        files["recommender.json"],
        files["extra.safetensors"],
        files["ids.safetensors"],
    )
    sae = {k.removeprefix("sae/"): v for k, v in files.items() if k.startswith("sae/")}
    rows = files["histories.safetensors"]
    return Fitted(
        cfae=CFAENetwork.from_tensors(files["cfae.safetensors"], meta["cfae"]),
        sae=SAENetwork.from_files(sae),
        user_ids=Ids.from_arrays(ids, "user", what="user"),
        item_ids=Ids.from_arrays(ids, "item", what="item"),
        histories=Rows(rows["offsets"], rows["items"]),
        cold=extra["cold"],
        titles=texts_from_arrays(ids, "title") if "title.utf8" in ids else None,
        concepts=_map_of(extra, "concepts", meta["concepts"]),
        probed=_map_of(extra, "probed", meta.get("probed")),  # models made before it have none
        latent_names={int(latent): name for latent, name in meta["latent_names"].items()},
        user_factors=extra.get("user_factors"),
        report=meta["report"],
    )


def _map_of(
    extra: dict[str, np.ndarray], part: str, meta: dict[str, Any] | None
) -> ConceptMap | None:
    """One of the model's concept maps, or None where it has none."""
    if meta is None:
        return None
    prefix = f"{part}."
    arrays = {k.removeprefix(prefix): v for k, v in extra.items() if k.startswith(prefix)}
    return ConceptMap.from_arrays(arrays, meta)
