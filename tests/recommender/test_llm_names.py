"""Names from a language model, asked of a local stub that answers as OpenAI's servers do."""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from cfsae_fast.errors import DataError
from cfsae_fast.recommender import llm_names
from cfsae_fast.recommender.labelling import item_codes


@pytest.fixture
def stub():
    """A server that keeps what it was asked, and answers by `server.reply(question)`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            size = int(self.headers["Content-Length"])
            asked = json.loads(self.rfile.read(size))
            server.asked.append((self.path, self.headers.get("Authorization"), asked))
            content = server.reply(asked["messages"][0]["content"])
            body = (
                {"choices": [{"message": {"content": content}}]} if content else {"no": "choices"}
            )
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *args):
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.reply = [], lambda text: "none"
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()


def test_each_latent_is_asked_with_its_strongest_titles(planted, stub):
    model, _ = planted
    fitted, codes = model.fitted, item_codes(model.fitted)
    latent = int(np.bincount(codes.indices[codes.indices >= 0]).argmax())
    stub.reply = lambda text: ' "Film Noir."\nand more words'
    found = llm_names.name_latents(fitted, url=stub.url, model="m", key="k", latents=[latent])
    assert found == {latent: "film noir"}
    (path, key, asked), strength = stub.asked[0], np.where(codes.indices == latent, codes.values, 0)
    assert path == "/v1/chat/completions" and key == "Bearer k" and asked["model"] == "m"
    best = fitted.titles[strength.sum(axis=1).argmax()]
    lines = asked["messages"][0]["content"].splitlines()
    assert str(best) in lines and len(lines) <= llm_names.ITEMS + 2


def test_named_latents_are_not_asked_again_and_none_is_no_name(planted, stub):
    model, _ = planted
    codes = item_codes(model.fitted)
    alive = set(np.unique(codes.indices[codes.indices >= 0]).tolist())
    found = llm_names.name_latents(model.fitted, url=stub.url, model="m")
    assert found == {}
    assert len(stub.asked) == len(alive - set(model.fitted.latent_names))


def test_servers_that_answer_otherwise_and_models_without_titles_are_refused(planted, stub):
    model, _ = planted
    stub.reply = lambda text: None
    latents = [int(item_codes(model.fitted).indices[0, 0])]
    with pytest.raises(DataError, match="must answer as an OpenAI-compatible server"):
        llm_names.name_latents(model.fitted, url=stub.url, model="m", latents=latents)
    with pytest.raises(DataError, match="must answer as an OpenAI-compatible server"):
        llm_names.name_latents(
            model.fitted, url="http://127.0.0.1:9", model="m", latents=latents, timeout_s=2
        )
    with pytest.raises(DataError, match="must have titles"):
        llm_names.name_latents(replace(model.fitted, titles=None), url=stub.url, model="m")
