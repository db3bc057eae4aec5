"""Floor 6: the FastAPI application around one recommender.

Station: the last line of the story, asked over HTTP. The model is chosen when the server starts;
no client names a file or a model.
"""

import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import Body, FastAPI, Query, Request
from fastapi.exception_handlers import request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from cfsae_fast._version import __version__
from cfsae_fast.concepts import Concept
from cfsae_fast.recommender import Recommendations, SteerableRecommender
from cfsae_fast.recommender.fitted import Fitted
from cfsae_fast.serving import bodies
from cfsae_fast.serving.guards import Guards, Meters
from cfsae_fast.serving.limits import Busy, Gate, Limits

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": bodies.Problem}
    for status in (400, 401, 408, 413, 415, 422, 503, 504)  # what any request may meet
}
DOCS = Path(__file__).with_name("docs.html").read_text()
PATHS = {"/recommend", "/concepts", "/items", "/healthz", "/metrics", "/openapi.json", "/docs"}


def make_app(
    recommender: SteerableRecommender, limits: Limits | None = None, *, key: str | None = None
) -> FastAPI:
    """The application: POST /recommend, GET /concepts, /items, /healthz, /metrics.

    key: what clients must send as X-API-Key (None: nothing). Wrong requests get 4xx with `detail`,
    503 says that the queue is full, 504 that the answer took longer than the limit.
    """
    limits = limits or Limits()
    gate, meters = Gate(limits), Meters()
    meters.inside.set_function(lambda: gate.inside)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        gate.open()
        yield
        gate.close()

    app = FastAPI(
        title="cfsae_fast",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page loads its script from elsewhere, and knows of no key
        redoc_url=None,
    )
    guards = {"key": key, "body": limits.body, "patience": limits.timeout}
    app.add_middleware(Guards, **guards, meters=meters, paths=PATHS)
    _translate_errors(app)
    _serve_recommendations(app, recommender, limits, gate)
    _serve_catalogue(app, recommender, gate)

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(DOCS)

    @app.get("/metrics", response_class=PlainTextResponse, responses=REFUSALS)
    async def metrics() -> PlainTextResponse:
        """Counts and times for Prometheus."""
        return PlainTextResponse(generate_latest(meters.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _translate_errors(app: FastAPI) -> None:
    async def wrong(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    async def busy(_: Request, __: Exception) -> JSONResponse:
        words = "all workers are busy and the queue is full; try again"
        return JSONResponse({"detail": words}, 503, {"Retry-After": "1"})

    async def late(_: Request, __: Exception) -> JSONResponse:
        return JSONResponse({"detail": "the answer took too long; ask for less at once"}, 504)

    async def invalid(request: Request, error: Exception) -> Response:
        kind = request.headers.get("content-type", "")
        if request.method == "POST" and "json" not in kind.lower():  # the body was not looked at
            words = f"the body must be sent with Content-Type: application/json, got {kind[:100]!r}"
            return JSONResponse({"detail": words}, 415)
        assert isinstance(error, RequestValidationError)
        return await request_validation_exception_handler(request, error)

    app.add_exception_handler(RequestValidationError, invalid)
    for kind in (ValueError, OverflowError):
        app.add_exception_handler(kind, wrong)
    app.add_exception_handler(Busy, busy)
    app.add_exception_handler(TimeoutError, late)


def _serve_recommendations(
    app: FastAPI, recommender: SteerableRecommender, limits: Limits, gate: Gate
) -> None:
    question = bodies.question(limits)

    @app.post("/recommend", response_model=bodies.Answer, responses=REFUSALS)
    async def recommend(asked: Annotated[question, Body()]) -> dict[str, Any]:
        """Top-n of histories or stored users, steered by knobs."""
        given = asked.model_dump()
        found = await gate.run(lambda: _answer(recommender, given))
        return {"results": found}


def _answer(recommender: SteerableRecommender, asked: dict[str, Any]) -> list[list[dict]]:
    rows = asked["users"] if asked["histories"] is None else asked["histories"]
    if rows == []:  # an empty list of histories is one empty history to the library
        return []
    found = recommender.recommend(**asked, threads=1)
    return [
        _entries(recommender, Recommendations(ids, scores))
        for ids, scores in zip(found.ids, found.scores, strict=True)
    ]


def _entries(recommender: SteerableRecommender, found: Recommendations) -> list[dict]:
    fitted = recommender.fitted
    kept = np.isfinite(found.scores)
    positions = fitted.item_ids.index(found.ids[kept])
    return [
        {"item": item, "title": fitted.title(int(at)), "score": float(score)}
        for item, at, score in zip(
            found.ids[kept].tolist(), positions, found.scores[kept], strict=True
        )
    ]


class _Names:
    """Titles (or ids, where there are none) in lower case, made once."""

    def __init__(self, fitted: Fitted) -> None:
        shown = fitted.item_ids.values if fitted.titles is None else fitted.titles
        self.lower = [str(name).lower() for name in shown]

    def positions(self, search: str, offset: int, limit: int) -> list[int]:
        """Those whose name holds `search`, from the offset-th on, at most `limit`."""
        words = search.lower()
        found = (at for at, name in enumerate(self.lower) if words in name)
        return list(itertools.islice(found, offset, offset + limit))


def _told(fitted: Fitted, concept: Concept) -> dict[str, Any]:
    """A `bodies.ConceptEntry`."""
    goes = fitted.toward_concept(concept.name)
    sure, toward_sure = (
        None if one is None or not np.isfinite(one.confidence) else one.confidence
        for one in (concept, goes)
    )
    return {
        "name": concept.name,
        "n_items": concept.n_items,
        "latents": concept.latents.tolist(),
        "confidence": sure,
        "knob": concept.verdict,
        "toward": goes and goes.verdict,
        "toward_confidence": toward_sure,
    }


def _serve_catalogue(app: FastAPI, recommender: SteerableRecommender, gate: Gate) -> None:
    fitted = recommender.fitted
    names = _Names(fitted)
    limit_query = Query(ge=1, le=1000)

    @app.get("/concepts", response_model=list[bodies.ConceptEntry], responses=REFUSALS)
    async def concepts(
        search: Annotated[str | None, Query(max_length=200)] = None,
        limit: Annotated[int, limit_query] = 100,
    ) -> list[dict]:
        """Concepts that may stand in steer, those on most items first."""
        if fitted.concepts is None:
            return []
        return [_told(fitted, one) for one in fitted.concepts.browse(search)[:limit]]

    @app.get("/items", response_model=list[bodies.ItemEntry], responses=REFUSALS)
    async def items(
        search: Annotated[str | None, Query(max_length=200)] = None,
        limit: Annotated[int, limit_query] = 100,
        offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    ) -> list[dict]:
        """Items of the catalogue whose title (or id, where there are no titles) holds `search`."""
        found = range(offset, min(offset + limit, len(fitted.item_ids)))
        if search is not None:  # a pass over the catalogue: not on the loop that serves all
            found = await gate.run(lambda: names.positions(search, offset, limit))
        ids = fitted.item_ids.values
        return [{"item": ids[one].item(), "title": fitted.title(one)} for one in found]

    @app.get("/healthz", response_model=bodies.Health)
    async def healthz() -> dict[str, Any]:
        """That the model is loaded."""
        concepts = 0 if fitted.concepts is None else len(fitted.concepts)
        return {
            "status": "ok",
            "model": fitted.cfae.kind,
            "items": len(fitted.item_ids),
            "concepts": concepts,
        }
