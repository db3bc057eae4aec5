"""Floor 2: where public data sets live, and what is known of their archives.

Station: before the first arrow. A checksum here was published by the data's owner, or is the one
that independent users of the archive report; neither is a secret, both only guard the transfer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cfsae_fast.data import licences

_GROUPLENS_HOME = "https://files.grouplens.org/datasets/movielens"
_MSD_HOME = "http://millionsongdataset.com/sites/default/files/challenge"


Progress = Callable[[int, "int | None"], None]  # bytes so far, bytes in all (None: unknown)


class FetchError(OSError):
    """A download that did not succeed; what has arrived is kept for the next try."""


class Source(NamedTuple):
    """An archive: base_url + "/" + archive; the digests may be unknown.

    md5, sha256: pinned digests (None: unknown). has_md5_file: the owner publishes <url>.md5.
    """

    base_url: str
    archive: str
    licence: str
    md5: str | None = None
    sha256: str | None = None
    has_md5_file: bool = False


SOURCES = {
    "ml-latest-small": Source(
        _GROUPLENS_HOME,
        "ml-latest-small.zip",
        licences.GROUPLENS,
        has_md5_file=True,  # not pinned: "latest" may change upstream
    ),
    "ml-25m": Source(
        _GROUPLENS_HOME,
        "ml-25m.zip",
        licences.GROUPLENS,
        md5="6b51fb2759a8657d3bfcbfc42b592ada",
        has_md5_file=True,
    ),
    "ml-32m": Source(
        _GROUPLENS_HOME,
        "ml-32m.zip",
        licences.GROUPLENS,
        md5="d472be332d4daa821edc399621853b57",
        has_md5_file=True,
    ),
    "msd": Source(_MSD_HOME, "train_triplets.txt.zip", licences.TASTE_PROFILE),
}
