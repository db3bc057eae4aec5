"""fetch against a local HTTP server: ranges, resume, checksums, and archives that mean harm."""

import hashlib
import http.server
import io
import json
import re
import stat
import threading
import zipfile

import pytest
from test_layouts import MOVIELENS

from cfsae_fast.data import SOURCES, FetchError, Source, default_dataset, fetch, load

NAME = "ml-latest-small"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves server.files {path: bytes}; honours Range and If-Range; can break off."""

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        body = server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        start = 0
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and server.ranges and self.headers.get("If-Range") == etag:
            start = int(asked[1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", etag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        rest = body[start:]
        if self.path.endswith(".zip") and server.breaks:
            rest = rest[: server.breaks.pop(0)]
        self.wfile.write(rest)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("cfsae_fast.data.download._PAUSE_SECONDS", 0)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.asked, server.breaks, server.ranges = {}, [], [], True
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def archive(files, folder=NAME):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name, text in files.items():
            bundle.writestr(f"{folder}/{name}" if folder else name, text)
    return buffer.getvalue()


def serve(server, body=None, *, md5=None):
    body = archive(MOVIELENS) if body is None else body
    server.files[f"/{NAME}.zip"] = body
    digest = md5 or hashlib.md5(body).hexdigest()
    server.files[f"/{NAME}.zip.md5"] = f"MD5 ({NAME}.zip) = {digest}\n".encode()
    return body


def zips_asked(server):
    return [range_ for path, range_ in server.asked if path.endswith(".zip")]


def test_fetched_verified_unpacked_and_loadable(server, tmp_path):
    body = serve(server)
    seen = []
    got = fetch(NAME, tmp_path, progress=lambda *at: seen.append(at), base_url=server.url + "/")
    assert got.path == tmp_path / NAME and got.sha256 == hashlib.sha256(body).hexdigest()
    assert got.verified == f"matches {NAME}.zip.md5 of the same server"
    assert "GroupLens" in got.licence
    assert seen[-1] == (len(body), len(body))
    assert load(got.path).interactions.nnz == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME]
    asked = len(server.asked)
    assert fetch(NAME, tmp_path, base_url=server.url) == got
    assert len(server.asked) == asked  # at once the second time


def test_a_lost_connection_is_continued(server, tmp_path):
    body = serve(server)
    server.breaks = [100, 50]
    seen = []
    fetch(NAME, tmp_path, progress=lambda *at: seen.append(at), base_url=server.url)
    assert zips_asked(server) == [None, "bytes=100-", "bytes=150-"]
    assert seen[-1] == (len(body), len(body)) and (100, len(body)) in seen


def test_an_interrupted_download_is_resumed_by_the_next_call(server, tmp_path):
    body = serve(server)
    server.breaks = [100, 50, 25]
    with pytest.raises(FetchError, match=r"broken-off answer .* 175 bytes are kept, call again"):
        fetch(NAME, tmp_path, base_url=server.url)
    assert (tmp_path / f"{NAME}.zip.part").read_bytes() == body[:175]
    assert not (tmp_path / NAME).exists()
    assert fetch(NAME, tmp_path, base_url=server.url).path.is_dir()
    assert zips_asked(server)[-1] == "bytes=175-"


def test_a_new_version_upstream_is_not_mixed_with_the_old(server, tmp_path):
    serve(server)
    server.breaks = [100, 0, 0]
    with pytest.raises(FetchError, match="100 bytes are kept"):
        fetch(NAME, tmp_path, base_url=server.url)
    serve(server, archive(MOVIELENS | {"README.txt": "newer"}))
    assert (fetch(NAME, tmp_path, base_url=server.url).path / "README.txt").read_text() == "newer"


def test_a_server_without_ranges_starts_over(server, tmp_path):
    serve(server)
    server.ranges, server.breaks = False, [100]
    assert load(fetch(NAME, tmp_path, base_url=server.url).path).interactions.nnz == 3


def test_wrong_checksum_is_refused_and_nothing_stays(server, tmp_path):
    serve(server, md5="0" * 32)
    with pytest.raises(FetchError, match=r"must match ml-latest-small.zip.md5.*\(0{32}\), got"):
        fetch(NAME, tmp_path, base_url=server.url)
    assert list(tmp_path.iterdir()) == []
    serve(server)
    assert fetch(NAME, tmp_path, base_url=server.url).path.is_dir()


def test_pinned_digests_count_even_if_the_server_agrees_with_itself(server, tmp_path):
    body = serve(server)
    server.files["/ml-25m.zip"], name = body, "ml-25m"
    server.files["/ml-25m.zip.md5"] = hashlib.md5(body).hexdigest().encode()
    with pytest.raises(FetchError, match="must match the pinned md5 .6b51fb27"):
        fetch(name, tmp_path, base_url=server.url)
    pinned = SOURCES[NAME]._replace(sha256="ab" * 32)
    with pytest.raises(FetchError, match="must match the pinned sha256"):
        fetch(NAME, tmp_path, base_url=server.url, source=pinned)


def test_without_a_published_checksum_the_first_download_is_recorded(server, tmp_path):
    triplets = "u\tS\t1\n"
    body = archive({"train_triplets.txt": triplets}, folder="")
    server.files["/train_triplets.txt.zip"] = body
    got = fetch("msd", tmp_path, base_url=server.url)
    assert got.verified.startswith("no published checksum; sha256 of this first download recorded")
    digest = hashlib.sha256(body).hexdigest()
    assert json.loads((tmp_path / "checksums.json").read_text()) == {"msd": digest}
    assert load(got.path).interactions.nnz == 1
    got.path.rename(tmp_path / "moved")
    again = fetch("msd", tmp_path, base_url=server.url)
    assert again.verified == "matches the sha256 of the first download"
    (tmp_path / "msd").rename(tmp_path / "moved again")
    server.files["/train_triplets.txt.zip"] = archive(
        {"train_triplets.txt": "v\tS\t1\n"}, folder=""
    )
    with pytest.raises(FetchError, match="must match the sha256 of the first download"):
        fetch("msd", tmp_path, base_url=server.url)


def test_a_missing_md5_file_is_said_and_another_one_refused(server, tmp_path):
    serve(server)
    server.files[f"/{NAME}.zip.md5"] = b"<html>gone</html>"
    with pytest.raises(FetchError, match=r"zip.md5 must hold an md5, got '<html>"):
        fetch(NAME, tmp_path, base_url=server.url)
    del server.files[f"/{NAME}.zip.md5"]
    assert "no published checksum" in fetch(NAME, tmp_path, base_url=server.url).verified


def test_not_there_unknown_and_in_the_way(server, tmp_path):
    with pytest.raises(FetchError, match="zip must be there, got HTTP 404"):
        fetch(NAME, tmp_path, base_url=server.url)
    with pytest.raises(FetchError, match="name must be one of .*, got 'ml-25'; nearest: 'ml-25m'"):
        fetch("ml-25", tmp_path)
    (tmp_path / NAME).mkdir()
    with pytest.raises(FetchError, match="must not exist or be an earlier fetch"):
        fetch(NAME, tmp_path, base_url=server.url)


def test_no_connection(tmp_path, monkeypatch):
    monkeypatch.setattr("cfsae_fast.data.download._PAUSE_SECONDS", 0)
    with pytest.raises(FetchError, match="must be reachable, got .*refused"):
        fetch(NAME, tmp_path, base_url="http://127.0.0.1:9")


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "..\\evil.txt"])
def test_archives_that_climb_out_are_refused(server, tmp_path, name):
    serve(server, archive({"fine.txt": "x", name: "evil"}, folder=""))
    with pytest.raises(FetchError, match="must unpack inside its directory"):
        fetch(NAME, tmp_path / "in", base_url=server.url)
    assert not list(tmp_path.rglob("evil*")) and not (tmp_path / "in" / NAME).exists()


def test_links_in_archives_are_refused(server, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        bundle.writestr(info, "/etc/passwd")
    serve(server, buffer.getvalue())
    with pytest.raises(FetchError, match="must hold plain files, got the link 'link'"):
        fetch(NAME, tmp_path, base_url=server.url)


def test_an_archive_that_is_damaged_or_none(server, tmp_path):
    serve(server, b"not a zip at all")
    with pytest.raises(FetchError, match="must be a whole zip archive"):
        fetch(NAME, tmp_path, base_url=server.url)
    damaged = bytearray(archive(MOVIELENS))
    at = damaged.index(b"userId,movieId,rating")
    damaged[at] ^= 1
    serve(server, bytes(damaged))
    with pytest.raises(FetchError, match="must be a whole zip archive, got .*CRC"):
        fetch(NAME, tmp_path, base_url=server.url)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_too_small_is_said_before_unpacking(server, tmp_path, monkeypatch):
    serve(server)
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("cfsae_fast.data.fetching.shutil.disk_usage", lambda path: usage)
    with pytest.raises(FetchError, match=r"must have \d+ bytes of disk, got 10 free"):
        fetch(NAME, tmp_path, base_url=server.url)
    assert [path.name for path in tmp_path.iterdir()] == [f"{NAME}.zip"]  # kept for the next try
    monkeypatch.undo()
    assert fetch(NAME, tmp_path, base_url=server.url).path.is_dir()


def test_the_default_data_set_is_fetched_into_the_cache(server, nowhere):
    serve(server)
    data, said = default_dataset(base_url=server.url)
    assert data.interactions.nnz == 3
    assert said == f"{NAME}, fetched into {nowhere / 'cache' / 'cfsae_fast' / NAME}"


def test_known_sources_point_at_their_owners():
    urls = {name: f"{source.base_url}/{source.archive}" for name, source in SOURCES.items()}
    home = "https://files.grouplens.org/datasets/movielens"
    assert urls == {
        "ml-latest-small": f"{home}/ml-latest-small.zip",
        "ml-25m": f"{home}/ml-25m.zip",
        "ml-32m": f"{home}/ml-32m.zip",
        "msd": "http://millionsongdataset.com/sites/default/files/challenge/train_triplets.txt.zip",
    }
    assert all(isinstance(source, Source) and source.licence for source in SOURCES.values())
