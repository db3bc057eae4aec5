"""Room 3: the exported files: the graph, weights too large for it, and a manifest beside them.

out.onnx           the graph; its metadata holds versions, concepts -> latents, the weights' SHA-256
out.onnx.data      the weights, where they come to more than `LARGEST_INSIDE`
out.onnx.json      sizes and SHA-256 of the files, external item ids and titles by position
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cfsae_fast._version import __version__
from cfsae_fast.errors import ModelFormatError, require_extra
from cfsae_fast.export import weights
from cfsae_fast.export.graph import Built, Plan, build
from cfsae_fast.export.precision import PRECISIONS
from cfsae_fast.io import read_json, write_json
from cfsae_fast.recommender import SteerableRecommender
from cfsae_fast.recommender.fitted import Fitted
from cfsae_fast.steering.algebra import SUPPRESS_PUSH

FORMAT, FORMAT_VERSION = "cfsae_onnx", 2
LARGEST_INSIDE = 256 << 20  # bytes; protobuf ends at 2 GB, and parsing it costs time and a copy
OPSETS = range(18, 22)  # onnxruntime 1.20 reads up to 21; ReduceMean takes its axes from 18 on
MODES = ("residual", "reconstruct")


class Manifest(NamedTuple):
    """What stands beside an exported model. item_ids, titles: by position; concepts: name ->
    {"latents", "weights", "reach": {"latents", "weights"}}, of a boost and of a suppress, which
    adds -suppress_push * weight (kind 3); files: name -> {"bytes", "sha256"}."""

    package: str
    mode: str
    folded: bool
    precision: str
    cfae: str
    sae: str
    n_items: int
    n_latents: int
    item_ids: list[Any]
    titles: list[str] | None
    concepts: dict[str, Any]
    suppress_push: float
    files: dict[str, Any]


def to_onnx(
    recommender: SteerableRecommender | Fitted,
    path: str | os.PathLike,
    *,
    precision: str = "fp32",
    mode: str = "residual",
    folded: bool = False,
    opset: int = 18,
    with_code: bool = False,
    external: bool | None = None,
    defaults: bool = True,
) -> Path:
    """Write history and knobs -> top-N as one ONNX graph, with its manifest at `path`.json.

    precision: fp32, fp16, bf16 or int8, of the matrices in the file (`loss.measure_loss` tells what
    it costs). mode: residual or reconstruct. folded: tables of products (FoldedTables), which pay
    in mode reconstruct. external: weights in a file of their own, which sessions map into memory
    and processes share; None: where they come to more than 256 MiB. defaults=False: every request
    gives all inputs; onnxruntime-web knows no others.

    Inputs: items (nnz,), offsets (B + 1,) int64; with defaults: knob_latents, knob_weights,
    knob_kinds (0 mix, 1 scale, 2 add, 3 add in units of the code's sum) (m,), knob_offsets (B + 1,)
    or (2,) for all rows, alpha (multiplies mix weights; 1), deny (positions), n (10). Outputs: ids
    (B, n) int64 positions padded with -1, scores (B, n) padded with -inf; with_code: code_indices,
    code_values (B, width) before steering. Models made by `wrap` answer for histories, not for
    stored users. The graph knows no `toward`, which goes by each user's embedding:
    `sessions.feeds` gives the knobs that it comes to for histories.

    Raises:
        ValueError: an argument is none of those possible.
        MissingExtraError: onnx is not installed (extra "onnx").
    """
    fitted = recommender if isinstance(recommender, Fitted) else recommender.fitted
    _check(precision, mode, opset)
    plan = Plan(mode, opset, with_code, folded, precision, defaults)
    return write(fitted, path, plan, external=external)


def write(
    fitted: Fitted,
    path: str | os.PathLike,
    plan: Plan,
    *,
    external: bool | None = None,
    change: Callable[[Any], None] | None = None,
) -> Path:
    """What `to_onnx` does after its checks. change: done to the ModelProto before it is written."""
    onnx = require_extra("onnx", extra="onnx", purpose="export to ONNX")
    built = build(fitted, plan)
    if change is not None:
        change(built.model)
    concepts = _concepts(fitted)
    for key, value in _metadata(fitted, plan, built, concepts).items():
        entry = built.model.metadata_props.add()
        entry.key, entry.value = key, value
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "package": __version__,
        "mode": plan.mode,
        "folded": plan.folded,
        "precision": plan.precision,
        "cfae": fitted.cfae.kind,
        "sae": fitted.sae.kind,
        "n_items": fitted.cfae.n_items,
        "n_latents": fitted.sae.n_latents,
        "item_ids": fitted.item_ids.values.tolist(),
        "titles": None if fitted.titles is None else [str(title) for title in fitted.titles],
        "concepts": concepts,
        "suppress_push": SUPPRESS_PUSH,
        "files": _write(onnx, built, path, external),
    }
    write_json(manifest_path(path), content)
    return path


def manifest_path(path: str | os.PathLike) -> Path:
    """Where the manifest of an exported model stands."""
    path = Path(path)
    return path.with_name(path.name + ".json")


def read_manifest(path: str | os.PathLike, *, verify: bool = True) -> Manifest:
    """The manifest of an exported model. Its files' sizes are checked; verify: and their contents.

    Raises:
        ModelFormatError: missing, foreign, newer, or a file is not what was written.
    """
    path = Path(path)
    content = read_json(manifest_path(path))
    if content.get("format") != FORMAT or content.get("version") != FORMAT_VERSION:
        raise ModelFormatError(
            f"{manifest_path(path)} must be a manifest of format {FORMAT} {FORMAT_VERSION}, got "
            f"{content.get('format')!r} {content.get('version')!r}; export again"
        )
    try:
        manifest = Manifest(**{name: content[name] for name in Manifest._fields})
    except KeyError as error:
        raise ModelFormatError(f"{manifest_path(path)} must hold {error}, found none") from error
    for name, entry in manifest.files.items():
        if Path(name).name != name:
            raise ModelFormatError(f"{manifest_path(path)} names {name!r}, which is no file name")
        _verify(path.with_name(name), entry, verify)
    return manifest


def _check(precision: str, mode: str, opset: int) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}")
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, got {mode!r}")
    if opset not in OPSETS:
        raise ValueError(f"opset must be in [{OPSETS[0]}, {OPSETS[-1]}], got {opset!r}")


def _concepts(fitted: Fitted) -> dict[str, Any]:
    """name -> latents and weights of a boost, and under "reach" those of a suppress."""
    concepts = fitted.concepts
    found: dict[str, Any] = {}
    for concept in concepts or ():
        latents, weights = concepts.reach(concept.name)
        found[concept.name] = {
            "n_items": concept.n_items,
            "latents": concept.latents.tolist(),
            "weights": _short(concept.weights),
            "reach": {"latents": latents.tolist(), "weights": _short(weights)},
        }
    return found


def _short(weights: np.ndarray) -> list[float]:
    """As many digits as float32 has."""
    return [float(f"{weight:.8g}") for weight in weights.tolist()]


def _metadata(fitted: Fitted, plan: Plan, built: Built, concepts: dict) -> dict[str, str]:
    boosts = {  # the manifest has the rest
        name: {part: one[part] for part in ("latents", "weights")} for name, one in concepts.items()
    }
    return {
        "cfsae.format": str(FORMAT_VERSION),
        "cfsae.package": __version__,
        "cfsae.mode": plan.mode,
        "cfsae.folded": str(plan.folded).lower(),
        "cfsae.precision": plan.precision,
        "cfsae.cfae": fitted.cfae.kind,
        "cfsae.sae": fitted.sae.kind,
        "cfsae.concepts": json.dumps(boosts, ensure_ascii=False),
        "cfsae.weights_sha256": weights.checksum(built.arrays),
    }


def _write(onnx: Any, built: Built, path: Path, external: bool | None) -> dict[str, Any]:
    """Write graph and weights beside their places, then move them there; sizes and checksums."""
    data = path.name + ".data"
    if external is None:
        external = weights.size_of(built.arrays) > LARGEST_INSIDE
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        fresh = Path(folder)
        if external:
            weights.put_beside(onnx, *built, fresh / data)
        else:
            weights.put_inside(*built)
        (fresh / path.name).write_bytes(built.model.SerializeToString())
        listed = {}
        for file in sorted(fresh.iterdir(), reverse=True):  # the weights before their graph
            with file.open("rb") as stream:
                digest = _sha(stream)
            listed[file.name] = {"bytes": file.stat().st_size, "sha256": digest.hexdigest()}
            file.chmod(0o644)
            os.replace(file, path.with_name(file.name))
    if data not in listed:
        path.with_name(data).unlink(missing_ok=True)
    return listed


def _verify(file: Path, entry: dict[str, Any], contents: bool) -> None:
    if not file.exists():
        raise ModelFormatError(f"{file} is missing; export again")
    same = file.stat().st_size == entry.get("bytes")  # a mapped file that is too short kills
    if same and contents:
        with file.open("rb") as stream:
            same = _sha(stream).hexdigest() == entry.get("sha256")
    if not same:
        raise ModelFormatError(f"{file} is not what was exported; restore it or export again")


def _sha(stream: Any) -> Any:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest
