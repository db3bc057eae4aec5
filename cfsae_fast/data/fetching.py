"""Floor 2: `fetch`, public data sets by name: downloaded, verified, unpacked, licence in hand.

Station: before the first arrow. Every step ends in a rename, so a kill leaves nothing half done.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cfsae_fast.data.sources import SOURCES, FetchError, Progress, Source
from cfsae_fast.errors import did_you_mean

_RECORD = "fetched.json"  # lies in the data set's directory: url, digests, how verified


class Fetched(NamedTuple):
    """A data set on disk: its directory, its terms, how it was verified, and its SHA-256."""

    path: Path
    licence: str
    verified: str
    sha256: str


def fetch(
    name: str,
    dest: str | Path,
    *,
    progress: Progress | None = None,
    base_url: str | None = None,
    source: Source | None = None,
) -> Fetched:
    """Bring the data set `name` into `dest`/`name`; at once if it is there already.

    The archive is checked against the owner's <url>.md5 and the pinned digest, where there are
    any; without either its SHA-256 is recorded in `dest`/checksums.json at the first download and
    compared from then on. progress(bytes so far, bytes in all or None). base_url: a mirror, in
    place of the owner's directory. source: an archive beyond the known four.

    Raises:
        FetchError: unknown name, no connection, wrong checksum, damaged or unsafe archive.
    """
    from cfsae_fast.data.download import download  # http costs 60 ms that serving need not pay

    source = source or _known(name)
    dest = Path(dest).expanduser()
    target = dest / name
    done = _read_record(target / _RECORD)
    if done:
        return Fetched(target, source.licence, done["verified"], done["sha256"])
    if target.exists():
        raise FetchError(
            f"{target} must not exist or be an earlier fetch, got something else; move it away"
        )
    url = f"{(base_url or source.base_url).rstrip('/')}/{source.archive}"
    archive = dest / source.archive
    if not archive.exists():
        download(url, archive, progress=progress)
    digests = _digests(archive)
    verified = _verify(name, url, archive, digests, source)
    record = {"url": url, "verified": verified, "licence": source.licence, **digests}
    _unpack(archive, target, record)
    archive.unlink()
    return Fetched(target, source.licence, verified, digests["sha256"])


def _known(name: str) -> Source:
    if name not in SOURCES:
        known = list(SOURCES)
        raise FetchError(
            f"name must be one of {', '.join(known)}, got {name!r}{did_you_mean(name, known)}"
        )
    return SOURCES[name]


def _verify(name: str, url: str, archive: Path, digests: dict[str, str], source: Source) -> str:
    """How the archive was verified, in words; a wrong one is removed."""
    from cfsae_fast.data.download import discard, read_small

    checks = []
    if source.md5:
        checks.append(("the pinned md5", digests["md5"], source.md5))
    if source.sha256:
        checks.append(("the pinned sha256", digests["sha256"], source.sha256))
    published = read_small(url + ".md5") if source.has_md5_file else None
    if published is not None:
        match = re.search(r"\b[0-9a-fA-F]{32}\b", published)
        if match is None:
            raise FetchError(f"{url}.md5 must hold an md5, got {published[:60]!r}")
        checks.append((f"{source.archive}.md5 of the same server", digests["md5"], match[0]))
    recorded = archive.parent / "checksums.json"
    known = _read_json(recorded)
    if not checks and name in known:
        checks.append(("the sha256 of the first download", digests["sha256"], known[name]))
    for what, got, want in checks:
        if got.lower() != want.lower():
            discard(archive)
            raise FetchError(
                f"{url} must match {what} ({want}), got {got}; the file was removed, fetch again"
            )
    if checks:
        return "matches " + " and ".join(what for what, _, _ in checks)
    _write_json(recorded, known | {name: digests["sha256"]})
    return "no published checksum; sha256 of this first download recorded in checksums.json"


def _unpack(archive: Path, target: Path, record: dict[str, str]) -> None:
    """Extract beside `target` and rename; one common top directory is stripped."""
    fresh = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        with zipfile.ZipFile(archive) as bundle:
            members = [info for info in bundle.infolist() if not info.is_dir()]
            for info in members:
                _check_member(archive, info)
            need, free = sum(info.file_size for info in members), shutil.disk_usage(fresh).free
            if need > free:
                raise FetchError(f"{target} must have {need} bytes of disk, got {free} free")
            bundle.extractall(fresh, members)
    except (zipfile.BadZipFile, EOFError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        archive.unlink()
        raise FetchError(
            f"{archive} must be a whole zip archive, got {error}; it was removed, fetch again"
        ) from error
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    entries = list(fresh.iterdir())
    inner = entries[0] if len(entries) == 1 and entries[0].is_dir() else fresh
    _write_json(inner / _RECORD, record)
    os.replace(inner, target)
    shutil.rmtree(fresh, ignore_errors=True)


def _check_member(archive: Path, info: zipfile.ZipInfo) -> None:
    path = PurePosixPath(info.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in info.filename.split("/")[0]:
        raise FetchError(f"{archive} must unpack inside its directory, got {info.filename!r}")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise FetchError(f"{archive} must hold plain files, got the link {info.filename!r}")


def _digests(path: Path) -> dict[str, str]:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            md5.update(chunk)
            sha256.update(chunk)
    return {"md5": md5.hexdigest(), "sha256": sha256.hexdigest()}


def _read_record(path: Path) -> dict[str, str] | None:
    record = _read_json(path)
    return record if {"verified", "sha256"} <= record.keys() else None


def _read_json(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: dict[str, str]) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(fresh, path)
