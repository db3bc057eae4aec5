"""`cfsae serve` as a process: it comes up, answers, and goes down when told to."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from cfsae_fast.recommender import SteerableRecommender
from tests.export.networks import make_fitted

pytest.importorskip("uvicorn")


def ask(url, body=None, key="k"):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "X-API-Key": key}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as answer:
        return json.load(answer)


def wait_until_up(process, url):
    deadline = time.time() + 60
    while time.time() < deadline and process.poll() is None:
        try:
            return ask(f"{url}/healthz")
        except OSError:
            time.sleep(0.05)
    pytest.fail(f"the server did not come up: {process.communicate(timeout=5)}")


def test_a_server_lives_and_dies(tmp_path):
    model = SteerableRecommender.from_fitted(make_fitted())
    saved = model.save(tmp_path / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cfsae_fast", "serve", str(saved), "--port", str(port)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CFSAE_API_KEY": "k"},
    )
    try:
        url = f"http://127.0.0.1:{port}"
        assert wait_until_up(process, url)["items"] == 90
        found = ask(f"{url}/recommend", {"histories": [["i1"]], "steer": "horror=0.3", "n": 3})
        want = model.recommend(histories=["i1"], steer="horror=0.3", n=3)
        assert [one["item"] for one in found["results"][0]] == want.ids.tolist()
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(f"{url}/concepts", key="wrong")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
