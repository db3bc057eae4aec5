"""Floor 2: one URL -> one file, resumed where it broke off.

Station: before the first arrow. Bytes go to <file>.part, which is kept until whole and is
continued with an HTTP Range request guarded by If-Range, so that two versions never mix.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from cfsae_fast.data.sources import FetchError, Progress

_CHUNK = 1 << 18
_TIMEOUT_SECONDS = 20
_ATTEMPTS = 3
_PAUSE_SECONDS = 1.0  # before another attempt
_LOST = (http.client.HTTPException, ConnectionError, TimeoutError)


def download(url: str, path: Path, *, progress: Progress | None = None) -> Path:
    """Fetch `url` into `path`, continuing `path`.part; a lost connection is tried again.

    Raises:
        FetchError: no such file, no connection, or it broke off three times.
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(_ATTEMPTS):
        try:
            _continue(url, part, progress)
            break
        except urllib.error.HTTPError as error:
            if error.code == 416 and part.exists():  # the part is longer than the file is now
                discard(path)
                continue
            raise FetchError(
                f"{url} must be there, got HTTP {error.code} {error.reason}"
            ) from error
        except (*_LOST, urllib.error.URLError) as error:
            if attempt + 1 < _ATTEMPTS:
                time.sleep(_PAUSE_SECONDS)
                continue
            kept = part.stat().st_size if part.exists() else 0
            raise FetchError(
                f"{url} must be reachable, got {_reason(error)}; {kept} bytes are kept, "
                "call again to go on"
            ) from error
    os.replace(part, path)
    _notes(part).unlink(missing_ok=True)
    return path


def read_small(url: str) -> str | None:
    """The text of a small file (a checksum), or None where there is none (404).

    Raises:
        FetchError: no connection or another answer.
    """
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:
            return answer.read(4096).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            return None
        raise FetchError(f"{url} must be readable, got HTTP {error.code} {error.reason}") from error
    except (*_LOST, urllib.error.URLError) as error:
        raise FetchError(f"{url} must be reachable, got {_reason(error)}") from error


def discard(path: Path) -> None:
    """Remove a file that proved wrong, with what was noted for its continuation."""
    part = path.with_name(path.name + ".part")
    for file in (path, part, _notes(part)):
        file.unlink(missing_ok=True)


def _continue(url: str, part: Path, progress: Progress | None) -> None:
    notes = _read_notes(part, url)
    have = part.stat().st_size if part.exists() and notes else 0
    if have and have == notes.get("total"):
        return
    headers = {"Range": f"bytes={have}-", "If-Range": notes["validator"]} if have else {}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
        resumed = answer.status == 206 and _start(answer) == have
        if not resumed:
            have = 0  # another version, or a server without ranges
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if validator:
            _notes(part).write_text(
                json.dumps({"url": url, "validator": validator, "total": total})
            )
        else:
            _notes(part).unlink(missing_ok=True)  # nothing to resume by
        _copy(answer, part, have, total, progress)


def _copy(answer: Any, part: Path, have: int, total: int | None, progress: Progress | None) -> None:
    with part.open("ab" if have else "wb") as file:
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            have += len(chunk)
            if progress:
                progress(have, total)
    if total is not None and have != total:
        raise http.client.IncompleteRead(b"", total - have)


def _start(answer: Any) -> int:
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _notes(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_notes(part: Path, url: str) -> dict[str, Any]:
    try:
        notes = json.loads(_notes(part).read_text())
        return notes if notes["url"] == url and notes["validator"] else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _reason(error: BaseException) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return f"a broken-off answer ({error.expected} bytes short)"
    return str(getattr(error, "reason", error)) or type(error).__name__
