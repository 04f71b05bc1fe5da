"""`forge-jobs worker --http`: /livez, /readyz and /metrics of a worker."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from forge_jobs.cli.errors import Usage
from forge_jobs.runtime.queue_runtime import QueueRuntime
from forge_jobs.storage.protocol import Storage

if TYPE_CHECKING:
    from forge_jobs.probe import Answer, ProbeServer
    from forge_jobs.prometheus import Exposition

METRICS_WAIT_S: Final = 5.0
"""How long a scrape waits for the event loop; then it gets what is known without it."""


class Address(click.ParamType[tuple[str, int]]):
    """HOST:PORT, or a port of 127.0.0.1."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        host, _, port = str(value).rpartition(":")
        host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
        if not port.isascii() or not port.isdigit() or not int(port) <= 65_535:
            self.fail(f"{value!r} is not HOST:PORT, such as 127.0.0.1:9108 or [::1]:9108", param, ctx)
        return host, int(port)


def check_installed() -> None:
    """Refuse what cannot be served, before anything is opened."""
    if importlib.util.find_spec("prometheus_client") is None:
        raise Usage("--http needs prometheus-client for /metrics: pip install 'forge-jobs[server]'")


@contextlib.contextmanager
def serving(address: tuple[str, int], runtime: QueueRuntime, storage: Storage) -> Iterator[ProbeServer]:
    """Serve while the worker runs; its threads end with the process."""
    from forge_jobs.probe import Answer, ProbeServer
    from forge_jobs.prometheus import Exposition

    loop = asyncio.get_running_loop()
    exposition = Exposition(storage, stale_after=runtime.env.config.stale_after)
    server = ProbeServer(
        *address,
        {
            "/livez": lambda: Answer.of(200, {"status": "ok"}),
            "/readyz": lambda: readiness(runtime, loop),
            "/metrics": lambda: metrics(exposition, loop),
        },
    )
    try:
        yield server
    finally:
        server.close()


def readiness(runtime: QueueRuntime, loop: asyncio.AbstractEventLoop) -> Answer:
    """200 if the worker makes progress, else 503 with what keeps it from that."""
    from forge_jobs.probe import Answer

    found = runtime.readiness(loop.time())
    return Answer.of(503 if found["problems"] else 200, found)


def metrics(exposition: Exposition, loop: asyncio.AbstractEventLoop) -> Answer:
    """The text for Prometheus; while the event loop does not answer, without the newest of the store."""
    from forge_jobs.probe import Answer
    from forge_jobs.prometheus import CONTENT_TYPE

    rendering = asyncio.run_coroutine_threadsafe(exposition.render(), loop)
    try:
        body = rendering.result(METRICS_WAIT_S)
    except (TimeoutError, asyncio.CancelledError):
        rendering.cancel()
        body = exposition.text()
    return Answer(200, body, CONTENT_TYPE)
