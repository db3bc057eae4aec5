"""Floor 6: how much a server takes on, and the queue that refuses what is beyond it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Limits:
    """What one request may ask, and how many wait.

    batch: histories or users per request; history: items in one; n: items recommended; listed:
    ids in allow or deny; body: bytes. workers: requests computed at a time; queue: requests that
    wait for a worker, before 503; timeout: seconds from arrival to 504.
    """

    batch: int = 256
    history: int = 5000
    n: int = 1000
    listed: int = 10000
    body: int = 1 << 20
    workers: int = 2
    queue: int = 64
    timeout: float = 10.0

    def __post_init__(self) -> None:
        """Raises: ValueError: a limit is not positive (queue may be 0)."""
        for one in fields(self):
            value, least = getattr(self, one.name), 0 if one.name == "queue" else 1e-3
            if not value >= least:
                raise ValueError(f"{one.name} must be positive, got {value!r}")


class Busy(Exception):
    """All workers are at work and the queue is full."""


class Gate:
    """Runs calls on worker threads; at most `queue` of them wait.

    A call that outlasts its client's patience keeps its place until it is done, so that slow
    requests cannot pile up unseen.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.inside = 0
        self._pool: ThreadPoolExecutor | None = None
        self.open()

    def open(self) -> None:
        """Start the workers where they do not run: an application may start again."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.limits.workers, thread_name_prefix="cfsae-serve")

    async def run(self, call: Callable[[], Any]) -> Any:
        """The call's result.

        Raises:
            Busy: nothing more can wait.
            TimeoutError: it took too long.
        """
        if self.inside >= self.limits.workers + self.limits.queue:
            raise Busy
        self.inside += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, call)
        future.add_done_callback(self._leave)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self.limits.timeout)
        except asyncio.TimeoutError as error:
            raise TimeoutError from error

    def close(self) -> None:
        """Let what runs finish and start nothing more."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def _leave(self, future: asyncio.Future) -> None:
        self.inside -= 1
        if not future.cancelled():
            future.exception()  # taken note of: its client may have left
