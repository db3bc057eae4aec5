"""The server answers as the library does, refuses in words, and never falls over."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi")
testclient = pytest.importorskip("fastapi.testclient")

from cfsae_fast import boost, toward  # noqa: E402
from cfsae_fast.recommender import SteerableRecommender  # noqa: E402
from cfsae_fast.serving import Limits, make_app  # noqa: E402
from tests.export.networks import make_fitted  # noqa: E402

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def model():
    return SteerableRecommender.from_fitted(make_fitted())


@pytest.fixture(scope="module")
def client(model):
    with testclient.TestClient(make_app(model), raise_server_exceptions=False) as client:
        yield client


def post(client, **body):
    return client.post("/recommend", json=body)


def test_recommend_equals_the_library(client, model):
    histories, steer = [["i1", "i2"], [], ["i5"]], [{"film noir": 0.3}, None, "-horror"]
    got = post(client, histories=histories, steer=steer, n=7, deny=["i9"]).json()["results"]
    want = model.recommend(histories=histories, steer=steer, n=7, deny=["i9"])
    assert [[x["item"] for x in row] for row in got] == want.ids.tolist()
    scores = [[x["score"] for x in row] for row in got]
    np.testing.assert_allclose(scores, want.scores, rtol=1e-6)


def test_stored_users_and_one_wish_for_all(client, model):
    got = post(client, users=["u0"], steer={"anime": "only"}, mode="reconstruct").json()
    want = model.recommend(["u0"], steer={"anime": "only"}, mode="reconstruct")
    assert [x["item"] for x in got["results"][0]] == want.ids[0].tolist()


def test_toward_is_asked_by_text_and_by_json(client):
    fitted = make_fitted()
    sure = np.array([0.9, 0.55, np.nan])
    probed = replace(fitted.concepts, confidence=sure)
    model = SteerableRecommender.from_fitted(replace(fitted, probed=probed))
    name, histories = "film noir", [["i1", "i2"], [], ["i5"]]
    want = model.recommend(histories=histories, steer=toward(name, 0.3) + boost("anime", 0.1), n=7)
    with testclient.TestClient(make_app(model)) as knowing:
        for steer in (f"toward:{name}=0.3, anime=0.1", {name: {"toward": 0.3}, "anime": 0.1}):
            got = post(knowing, histories=histories, steer=steer, n=7).json()["results"]
            assert [[x["item"] for x in row] for row in got] == want.ids.tolist()
            scores = [[x["score"] for x in row] for row in got]
            np.testing.assert_allclose(scores, want.scores, rtol=1e-6)
        entries = {one["name"]: one for one in knowing.get("/concepts").json()}
        wrong = post(knowing, histories=[["i1"]], steer={name: {"toward": 1.3}})
    assert wrong.status_code == 422 and "less than or equal to 1" in wrong.text
    told = [(entries[one]["toward"], entries[one]["toward_confidence"]) for one in probed.names]
    assert told[0] == ("reliable", pytest.approx(0.9)) and told[2] == ("not tested", None)
    answer = post(client, histories=[["i1"]], steer=f"toward:{name}=0.3")  # labelled before it
    assert answer.status_code == 422 and "label it again" in answer.text
    assert client.get("/concepts").json()[0]["toward"] is None


def test_more_than_the_catalogue_is_what_there_is(client):
    (row,) = post(client, histories=[["i1"]], n=1000).json()["results"]
    assert len(row) == 89


def test_nothing_asked_nothing_answered(client):
    assert post(client, histories=[]).json() == {"results": []}


@pytest.mark.parametrize(
    "body, words",
    [
        ({"histories": [["i1"]], "steer": {"film noire": 0.3}}, "nearest: 'film noir'"),
        ({"histories": [["x"]]}, "item 'x' is not among"),
        ({"users": ["u9"]}, "user 'u9' is not among"),
        ({}, "users or histories must be given"),
        ({"histories": [["i1"]], "users": ["u0"]}, "and not both"),
        ({"histories": [["i1"]], "n": 0}, "greater than or equal to 1"),
        ({"histories": [["i1"]], "n": "5"}, "valid integer"),
        ({"histories": [["i1"]], "exclude_seen": "yes"}, "valid boolean"),
        ({"histories": [["i1"]], "steer": {"film noir": "0.3"}}, "valid number"),
        ({"histories": [["i1"]], "n": 10**9}, "less than or equal to 1000"),
        ({"histories": [["i1"]] * 257}, "at most 256"),
        ({"histories": [["i1"]], "mode": "both"}, "'residual' or 'reconstruct'"),
        ({"histories": [["i1"]], "steer": [None, None]}, "one entry per row"),
        ({"histories": [["i1"]], "steer": {"#99999999999": 0.3}}, ""),
        ({"histories": [["i1"]], "model": "../../etc/passwd"}, "Extra inputs"),
    ],
)
def test_wrong_requests_are_named(client, body, words):
    answer = post(client, **body)
    assert answer.status_code == 422
    assert words in answer.text


def test_clients_are_told_how_far_a_knob_can_be_trusted():
    fitted = make_fitted()
    told = np.array([0.9, 0.55, np.nan])[: len(fitted.concepts.names)]
    sure = replace(fitted, concepts=replace(fitted.concepts, confidence=told))
    app = make_app(SteerableRecommender.from_fitted(sure))
    with testclient.TestClient(app) as client:
        entries = {one["name"]: one for one in client.get("/concepts").json()}
    knobs = [entries[name]["knob"] for name in fitted.concepts.names]
    assert knobs == ["reliable", "no reliable knob", "not tested"]
    assert entries[fitted.concepts.names[1]]["confidence"] == pytest.approx(0.55)


def test_concepts_and_items(client):
    names = [one["name"] for one in client.get("/concepts").json()]
    assert names == ["anime", "horror", "film noir"]
    (found,) = client.get("/concepts", params={"search": "noir"}).json()
    assert found["latents"] == [3, 10]
    assert (found["confidence"], found["knob"]) == (None, "not tested")
    found = client.get("/items", params={"search": "I8", "limit": 3, "offset": 1}).json()
    assert [one["item"] for one in found] == ["i80", "i81", "i82"]
    every = client.get("/items", params={"limit": 1000}).json()
    assert [one["item"] for one in every] == [f"i{at}" for at in range(90)]
    assert client.get("/items", params={"offset": 89, "limit": 5}).json() == every[89:]
    assert client.get("/items", params={"offset": 2**31}).json() == []
    assert client.get("/items", params={"search": "i8", "offset": 2**31}).json() == []
    assert client.get("/items", params={"search": "\0"}).json() == []
    assert client.get("/items", params={"limit": 0}).status_code == 422


def test_health_and_metrics(client):
    assert client.get("/healthz").json()["status"] == "ok"
    post(client, histories=[["i1"]])
    client.get("/nowhere/at/all")
    text = client.get("/metrics").text
    assert 'cfsae_requests_total{path="/recommend",status="200"}' in text
    assert 'cfsae_requests_total{path="other",status="404"}' in text
    assert "nowhere" not in text


def test_the_key_is_asked_for(model):
    with testclient.TestClient(make_app(model, key="secret")) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/concepts").status_code == 401
        assert client.get("/concepts", headers={"X-API-Key": "wrong"}).status_code == 401
        assert client.get("/concepts", headers={"X-API-Key": "secret"}).status_code == 200


def test_large_bodies_are_refused(model):
    with testclient.TestClient(make_app(model, Limits(body=200))) as client:
        assert post(client, histories=[["i1"]]).status_code == 200
        assert post(client, histories=[["i1"] * 200]).status_code == 413
        chunks = (b" " * 100 for _ in range(5))  # no length is stated
        assert client.post("/recommend", content=chunks).status_code == 413


class Slow:
    """A recommender that waits for a signal."""

    def __init__(self, model):
        self.fitted, self.model, self.go = model.fitted, model, threading.Event()

    def recommend(self, **asked):
        self.go.wait(20)
        return self.model.recommend(**asked)


def test_a_full_queue_is_503_and_the_rest_is_answered(model):
    slow = Slow(model)
    app = make_app(slow, Limits(workers=1, queue=1))
    with testclient.TestClient(app) as client:
        answers = []
        ask = lambda: answers.append(post(client, histories=[["i1"]]).status_code)  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        deadline = time.time() + 10  # two of the four are refused while the others are inside
        while len(answers) < 2 and time.time() < deadline:
            time.sleep(0.01)
        assert answers == [503, 503]
        assert client.get("/healthz").status_code == 200
        slow.go.set()
        for thread in threads:
            thread.join()
        assert answers == [503, 503, 200, 200]
        assert post(client, histories=[["i1"]]).status_code == 200


def test_a_late_answer_is_504_and_keeps_its_place(model):
    slow = Slow(model)
    with testclient.TestClient(make_app(slow, Limits(workers=1, queue=0, timeout=0.05))) as client:
        assert post(client, histories=[["i1"]]).status_code == 504
        assert post(client, histories=[["i1"]]).status_code == 503
        slow.go.set()
        deadline = time.time() + 10
        while post(client, histories=[["i1"]]).status_code != 200:
            assert time.time() < deadline
            time.sleep(0.01)


texts = st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.sampled_from(["i1", "u0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=6,
)
fields = ["histories", "users", "n", "steer", "mode", "allow", "deny", "unknown", "exclude_seen"]


@settings(max_examples=200)
@given(body=st.dictionaries(st.sampled_from(fields), values, max_size=4))
def test_no_body_breaks_the_server(client, body):
    import json

    body.setdefault("histories", [["i1"]])
    answer = client.post("/recommend", content=json.dumps(body).encode(), headers=JSON)
    assert answer.status_code in (200, 422), answer.text


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 5000, b'"\\ud800"', b"NaN"])
def test_no_garbage_breaks_the_server(client, content):
    assert client.post("/recommend", content=content, headers=JSON).status_code in (400, 422)


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_called_json_is_415(client, kind):
    """curl -d sends the last of these: the words must say what is missing."""
    headers = {} if kind is None else {"Content-Type": kind}
    answer = client.post("/recommend", content=b'{"histories": [["i1"]]}', headers=headers)
    assert answer.status_code == 415
    assert f"Content-Type: application/json, got {kind or ''!r}" in answer.json()["detail"]


def test_lone_surrogates_are_refused(client):
    body = b'{"histories": [["\\ud800"]], "steer": {"\\ud800": 0.3}}'
    assert client.post("/recommend", content=body, headers=JSON).status_code in (400, 422)


@pytest.mark.parametrize("limit", ["batch", "workers", "timeout"])
def test_limits_are_positive(limit):
    with pytest.raises(ValueError, match=f"{limit} must be positive, got 0"):
        Limits(**{limit: 0})


def test_a_body_that_does_not_come_is_408(model):
    """A client that stalls holds no place: asked at the door of the app, where no network waits."""
    import asyncio

    app, sent = make_app(model, Limits(timeout=0.05)), []

    async def stall():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/recommend",
        "headers": [],
        "query_string": b"",
    }
    asyncio.run(asyncio.wait_for(app(scope, stall, send), 10))
    assert sent[0]["status"] == 408 and b"did not come in time" in sent[1]["body"]


def test_docs_need_nothing_from_elsewhere(model):
    """The page is served without the key, which it asks for, and names no other host."""
    with testclient.TestClient(make_app(model, key="secret")) as client:
        page = client.get("/docs")
        assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
        assert "http://" not in page.text and "https://" not in page.text
        assert client.get("/openapi.json").status_code == 401


def test_an_application_starts_again(model):
    app = make_app(model)
    for _ in range(2):
        with testclient.TestClient(app) as client:
            assert post(client, histories=[["i1"]]).status_code == 200
