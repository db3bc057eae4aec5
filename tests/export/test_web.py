"""The page that steers in a browser, in headless Chromium, from a server that hands out files."""

import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote

import pytest

from cfsae_fast import export
from cfsae_fast.recommender import SteerableRecommender
from tests.export.networks import make_fitted

pytest.importorskip("onnxruntime")
PAGE = Path(export.__file__).parent / "examples" / "web" / "index.html"
RUNTIME = Path(sys.prefix) / "beside" / "web" / "node_modules" / "onnxruntime-web" / "dist"
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome", "chrome")


def browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Quiet(http.server.SimpleHTTPRequestHandler):
    extensions_map = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
    }

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """model -> the address of the page; nothing but files is served."""
    if browser() is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    if not RUNTIME.is_dir():
        pytest.skip(f"onnxruntime-web is not laid in {RUNTIME}; make test does it where npm is")
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(PAGE, folder)
    (folder / "ort").symlink_to(RUNTIME)
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()


def look(address: str) -> str:
    """What the page has become after its script ran."""
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run(
        [*command, "--virtual-time-budget=60000", address],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("folded", [False, True], ids=["dense", "folded"])
def test_the_page_steers_as_the_library_does(site, folded):
    folder, address = site
    model = SteerableRecommender.from_fitted(make_fitted())
    options = {"folded": folded, "mode": "reconstruct", "defaults": False}
    export.to_onnx(model, folder / "model.onnx", **options)
    knobs = "film noir:0.3,horror:-0.5,anime:-1"
    asked = [(f"items=i3,i8&knobs={quote(knobs)}", [["i3", "i8"]], knobs.replace(":", "="))]
    if not folded:
        asked.append(("", [[]], None))
    for query, histories, steer in asked:
        page = look(f"{address}?{query}")
        assert 'data-ready="true"' in page, re.findall(r'id="status"[^<]*<', page)
        want = model.recommend(histories=histories, steer=steer, mode="reconstruct")
        assert re.findall(r'data-item="([^"]+)"', page) == want.ids[0].tolist()


@pytest.mark.slow
def test_the_page_says_when_there_is_no_model(site):
    folder, address = site
    for file in folder.glob("model.onnx*"):
        file.unlink()
    assert "The model could not be loaded" in look(address)
