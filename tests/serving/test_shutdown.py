"""A server that is told to stop answers what it has begun."""

import http.client
import json
import socket
import threading
import time

import pytest

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

from cfsae_fast.recommender import SteerableRecommender  # noqa: E402
from cfsae_fast.serving import Limits, make_app  # noqa: E402
from tests.export.networks import make_fitted  # noqa: E402


class Held:
    """A recommender that says when it is asked, and answers when it is let."""

    def __init__(self):
        self.model = SteerableRecommender.from_fitted(make_fitted())
        self.fitted = self.model.fitted
        self.asked, self.go = threading.Event(), threading.Event()

    def recommend(self, **request):
        self.asked.set()
        self.go.wait(20)
        return self.model.recommend(**request)


def ask(port, answers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = json.dumps({"histories": [["i1"]]})
    connection.request("POST", "/recommend", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answers.append((answer.status, json.loads(answer.read())))


def test_what_has_begun_is_answered():
    held, answers = Held(), []
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        app = make_app(held, Limits(workers=1))
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=20)
        server = uvicorn.Server(config)
        serving = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        serving.start()
        while not server.started:
            assert serving.is_alive()
            time.sleep(0.01)
        client = threading.Thread(target=ask, args=(port, answers), daemon=True)
        client.start()
        assert held.asked.wait(20)
        server.should_exit = True
        time.sleep(0.3)
        assert serving.is_alive() and not answers
        held.go.set()
        client.join(20)
        serving.join(20)
    assert not serving.is_alive()
    ((status, content),) = answers
    assert status == 200 and len(content["results"][0]) == 10
