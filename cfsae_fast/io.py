"""Floor 1: directories of JSON + safetensors, written whole or not at all, and never a pickle.

A directory is written beside its target, flushed to disk, and exchanged with it in one step: a kill
or a full disk leaves what was saved before. `manifest.json` names every file with size and SHA-256,
so a damaged, truncated or foreign directory is refused instead of half loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cfsae_fast.errors import ModelFormatError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"

Tensors = dict[str, np.ndarray]

_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
Files = Mapping[str, Mapping[str, Any] | Tensors]


def write_directory(path: str | os.PathLike, files: Files, *, kind: str) -> Path:
    """Write `files` (name ending in .json or .safetensors -> content) as the directory `path`.

    An earlier directory of this package at `path` is replaced in one step; names may hold one
    folder ("sae/cfg.json"). `kind` says what it is ("recommender", "sae", "checkpoint") and is
    checked on reading.

    Raises:
        ModelFormatError: `path` holds something that this package did not write.
        OSError: the disk is full or not writable; what stood at `path` is untouched.
    """
    path = Path(path)
    _refuse_foreign(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        listed = {}
        for name, content in files.items():
            blob = _encode(name, content)
            _write_file(fresh / name, blob)
            listed[name] = {"bytes": len(blob), "sha256": hashlib.sha256(blob).hexdigest()}
        manifest = {
            "format": "cfsae_fast",
            "version": FORMAT_VERSION,
            "kind": kind,
            "files": listed,
        }
        _write_file(fresh / MANIFEST, _encode(MANIFEST, manifest))
        fresh.chmod(0o755)  # mkdtemp made it private; a saved model is readable like any file
        _flush_folder(fresh)
        _exchange(fresh, path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    _flush_folder(path.parent)
    return path


def read_directory(path: str | os.PathLike, *, kind: str) -> dict[str, Any]:
    """All files of a directory written by `write_directory`: name -> dict, or dict of arrays.

    Raises:
        ModelFormatError: not a directory of this package, of another kind, of a newer format, or
            damaged; the message says which file and what to do.
    """
    path = Path(path)
    manifest = _read_manifest(path)
    if manifest["kind"] != kind:
        raise ModelFormatError(f"{path} must hold a {kind}, got a {manifest['kind']}")
    return {name: _read_listed(path / name, entry) for name, entry in manifest["files"].items()}


def is_directory_of(path: str | os.PathLike, *, kind: str) -> bool:
    """Whether `path` carries this package's manifest for `kind` (its files are not checked)."""
    try:
        return _read_manifest(Path(path))["kind"] == kind
    except ModelFormatError:
        return False


def write_json(path: str | os.PathLike, content: Mapping[str, Any]) -> Path:
    """Write one JSON file in one step (a reader sees the old or the new one, never a part)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        _write_file(Path(name), _encode(path.name, content))
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    return path


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """One JSON object.

    Raises:
        ModelFormatError: missing, or not a JSON object.
    """
    path = Path(path)
    return _decode(path, _read_bytes(path))


def read_tensors(path: str | os.PathLike) -> Tensors:
    """One safetensors file as numpy arrays: read-only, mapped from the file.

    Raises:
        ModelFormatError: missing or damaged.
    """
    path = Path(path)
    return _decode(path, _map_bytes(path))


def _encode(name: str, content: Mapping[str, Any]) -> bytes:
    if name.endswith(".json"):
        return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    if name.endswith(".safetensors"):
        from safetensors.numpy import save as format_tensors  # the ops alone work without it

        return format_tensors({key: np.ascontiguousarray(one) for key, one in content.items()})
    raise ValueError(f"files must have names ending in .json or .safetensors, got {name!r}")


def _decode(path: Path, blob: bytes | mmap.mmap) -> Any:
    if path.suffix == ".safetensors":
        return _parse_tensors(path, blob)
    try:
        content = json.loads(blob[:])
    except ValueError as error:
        raise ModelFormatError(f"{path} is damaged ({error}); restore it or save again") from error
    if not isinstance(content, dict):
        raise ModelFormatError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def _parse_tensors(path: Path, blob: bytes | mmap.mmap) -> Tensors:
    """Views into `blob`, which is a file of the safetensors format: 8 bytes that say how long the
    JSON header is, the header, the data. (The package of that name copies the data twice.)
    """
    try:
        length = int.from_bytes(blob[:8], "little")
        header = json.loads(blob[8 : 8 + length])
        header.pop("__metadata__", None)
        return {name: _view(blob, 8 + length, entry) for name, entry in header.items()}
    except (AttributeError, KeyError, MemoryError, TypeError, ValueError) as error:
        raise ModelFormatError(f"{path} is damaged ({error}); restore it or save again") from error


def _view(blob: bytes | mmap.mmap, start: int, entry: Mapping[str, Any]) -> np.ndarray:
    dtype, (first, last) = np.dtype(_DTYPES[entry["dtype"]]), entry["data_offsets"]
    shape = tuple(int(size) for size in entry["shape"])
    count = math.prod(shape)
    in_order = 0 <= first <= last and min(shape, default=0) >= 0
    if not in_order or count * dtype.itemsize != last - first:
        raise ValueError(f"{entry} does not fit its type")
    view = np.frombuffer(blob, dtype, count, start + first).reshape(shape)
    return view if view.flags.aligned else view.copy()


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read: {error.strerror}") from error


def _map_bytes(path: Path) -> bytes | mmap.mmap:
    """The file in memory that processes share; one that is replaced meanwhile stays as it was."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read: {error.strerror}") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise ModelFormatError(
            f"{path} must be a directory written by save(), got "
            f"{'a file' if path.exists() else 'nothing there'}"
        )
    if not (path / MANIFEST).is_file():
        raise ModelFormatError(f"{path} was not written by this package: it has no {MANIFEST}")
    manifest = read_json(path / MANIFEST)
    if manifest.get("format") != "cfsae_fast":
        raise ModelFormatError(
            f"{path} was not written by this package: format is {manifest.get('format')!r}"
        )
    version = manifest.get("version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ModelFormatError(
            f"{path} has format version {version!r}, this package reads up to "
            f"{FORMAT_VERSION}; upgrade cfsae-fast"
        )
    if not isinstance(manifest.get("files"), dict) or "kind" not in manifest:
        raise ModelFormatError(f"{path / MANIFEST} is damaged: it lists no files")
    return manifest


def _read_listed(path: Path, entry: Mapping[str, Any]) -> Any:
    if not path.is_file():
        raise ModelFormatError(f"{path} is missing; restore it or save again")
    blob = _map_bytes(path)
    if len(blob) != entry.get("bytes") or hashlib.sha256(blob).hexdigest() != entry.get("sha256"):
        raise ModelFormatError(
            f"{path} is damaged: {len(blob)} bytes that do not match the "
            f"{entry.get('bytes')} saved; restore it or save again"
        )
    return _decode(path, blob)


def _refuse_foreign(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise ModelFormatError(f"path must be a directory or new, got a file or link at {path}")
    if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).is_file():
        raise ModelFormatError(
            f"{path} holds files that this package did not write; "
            "choose another path or empty it first"
        )


def _write_file(path: Path, blob: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with open(path, "wb") as file:
        file.write(blob)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _exchange(fresh: Path, path: Path) -> None:
    """Put `fresh` at `path`; afterwards `fresh` is gone or holds what stood at `path`."""
    if not path.exists():
        os.rename(fresh, path)
    elif not _rename_exchange(fresh, path):
        aside = path.with_name(f".{path.name}.previous")
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(path, aside)
        try:
            os.rename(fresh, path)
        except OSError:
            os.rename(aside, path)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _rename_exchange(a: Path, b: Path) -> bool:
    """Swap two directories in one system call (Linux); False where there is no such call."""
    at_fdcwd, exchange = -100, 2
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return renameat2(at_fdcwd, os.fsencode(a), at_fdcwd, os.fsencode(b), exchange) == 0
