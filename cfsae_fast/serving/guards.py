"""Floor 6: what stands before every request: the size of its body, its key, its count and time."""

from __future__ import annotations

import asyncio
import hmac
import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

OPEN = ("/healthz", "/docs")  # load balancers have no key, and a browser asks for it on the page


class Meters:
    """What GET /metrics tells; one registry per app, so that tests do not share counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "cfsae_requests", "Requests answered.", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "cfsae_request_seconds", "Time to answer.", ["path"], registry=self.registry
        )
        self.inside = Gauge(
            "cfsae_requests_inside", "Requests computed or waiting.", registry=self.registry
        )


class Guards:
    """ASGI middleware: 401 without the key, 413 for a body beyond the limit, 408 for one that does
    not come within `patience` seconds, counts and times of the rest."""

    def __init__(
        self,
        app: Any,
        *,
        key: str | None,
        body: int,
        patience: float,
        meters: Meters,
        paths: set[str],
    ) -> None:
        self.app, self.key, self.body, self.patience = app, key, body, patience
        self.meters, self.paths = meters, paths

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self.paths else "other"
        started, status = time.perf_counter(), [500]

        async def watched(message: dict) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        try:
            await self._answer(scope, receive, watched)
        finally:
            self.meters.requests.labels(path, str(status[0])).inc()
            self.meters.seconds.labels(path).observe(time.perf_counter() - started)

    async def _answer(self, scope: dict, receive: Any, send: Any) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        if not self._may_enter(scope["path"], headers):
            await _refuse(send, 401, b'{"detail":"the header X-API-Key must hold the key"}')
            return
        try:
            body = await asyncio.wait_for(self._read(headers, receive), self.patience)
        except asyncio.TimeoutError:
            await _refuse(send, 408, b'{"detail":"the body did not come in time"}')
            return
        if body is None:
            text = f'{{"detail":"the body must be at most {self.body} bytes"}}'
            await _refuse(send, 413, text.encode())
            return
        parts = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> dict:
            return parts.pop() if parts else await receive()

        await self.app(scope, replay, send)

    def _may_enter(self, path: str, headers: dict[bytes, bytes]) -> bool:
        if self.key is None or path in OPEN:
            return True
        return hmac.compare_digest(headers.get(b"x-api-key", b""), self.key.encode())

    async def _read(self, headers: dict[bytes, bytes], receive: Any) -> bytes | None:
        """The body, or None when it is too large (what follows is not read)."""
        stated = headers.get(b"content-length", b"0")
        if not stated.isdigit() or int(stated) > self.body:
            return None
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self.body:
                return None
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                return bytes(body)


async def _refuse(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
