"""Floor 7: `cfsae serve`: a saved model behind HTTP."""

from __future__ import annotations

from pathlib import Path

import click

from cfsae_fast.cli.ask import model_argument
from cfsae_fast.cli.console import note
from cfsae_fast.errors import require_extra
from cfsae_fast.recommender import SteerableRecommender

GRACE = 10  # seconds that requests under way have when the server is stopped


@click.command()
@model_argument
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
@click.option("--workers", default=2, show_default=True, help="Requests computed at a time.")
@click.option("--queue", default=64, show_default=True, help="Requests that may wait.")
@click.option("--timeout", default=10.0, show_default=True, help="Seconds until 504.")
@click.option("--batch", default=256, show_default=True, help="Histories in one request.")
@click.option(
    "--api-key", envvar="CFSAE_API_KEY", help="What clients must send as X-API-Key.", metavar="KEY"
)
def serve(
    model: Path,
    host: str,
    port: int,
    workers: int,
    queue: int,
    timeout: float,
    batch: int,
    api_key: str | None,
) -> None:
    """Answer POST /recommend, GET /concepts, /items, /healthz and /metrics."""
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        require_extra(package, extra="serve", purpose="cfsae serve")
    import uvicorn

    from cfsae_fast.serving import Limits, make_app

    limits = Limits(workers=workers, queue=queue, timeout=timeout, batch=batch)
    app = make_app(SteerableRecommender.load(model), limits, key=api_key or None)
    note(f"serving {model}; the API is described at http://{host}:{port}/docs")
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=GRACE)
