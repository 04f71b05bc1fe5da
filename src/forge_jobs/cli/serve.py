"""`forge-jobs serve`: the HTTP API and the dashboard."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import rich_click

from forge_jobs.cli import output
from forge_jobs.cli.errors import Usage
from forge_jobs.cli.lazy_group import Command
from forge_jobs.cli.load_registry import load_registry
from forge_jobs.cli.logs import log_to_stderr
from forge_jobs.cli.parameters import global_options
from forge_jobs.cli.settings import Settings
from forge_jobs.cli.store import opened, settings_of
from forge_jobs.runtime.handler import HandlerRegistry
from forge_jobs.runtime.queue_runtime import QueueRuntime
from forge_jobs.storage.error import ConfigError, StorageError
from forge_jobs.storage.protocol import Storage

if TYPE_CHECKING:
    from forge_jobs.api.config import ApiConfig

PORT: Final = 8787
TOKEN_VARIABLE: Final = "FORGE_API_TOKEN"  # noqa: S105


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the command line asks for."""

    host: str
    port: int
    socket: Path | None
    token_file: Path | None
    read_only: bool
    prefix: str
    allowed: tuple[str, ...]
    trusted_proxy: bool
    metrics_public: bool
    workers: str | None


@rich_click.command("serve", cls=Command)
@rich_click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@rich_click.option(
    "--port", type=click.IntRange(0, 65_535), default=PORT, show_default=True, help="0 takes one that is free."
)
@rich_click.option(
    "--socket", type=click.Path(path_type=Path), metavar="PATH", help="Listen on a Unix socket of mode 0660 instead."
)
@rich_click.option(
    "--token-file", type=click.Path(path_type=Path), metavar="FILE", help="Who may call; a file of mode 0600."
)
@rich_click.option("--read-only", is_flag=True, help="Refuse every change, for everybody.")
@rich_click.option("--prefix", default="", metavar="PATH", help="Answer below this path, such as /jobs.")
@rich_click.option(
    "--allow-host", "allowed", multiple=True, metavar="NAME", help="Answer for this host name too; may be repeated."
)
@rich_click.option("--trusted-proxy", is_flag=True, help="Believe the X-Forwarded headers of the proxy in front.")
@rich_click.option("--metrics-public", is_flag=True, help="Let /metrics be read without a token.")
@rich_click.option("--workers", metavar="MODULE:REGISTRY", help="Run jobs in this process too.")
@global_options
@click.pass_context
def serve(ctx: click.Context, /, **options: Any) -> None:
    """Serve the HTTP API and the dashboard, on this machine alone unless told otherwise.

    Beyond this machine it needs tokens: --token-file, or one token in FORGE_API_TOKEN. SIGTERM or Ctrl-C stops it.

    \b
    Example:
      forge-jobs serve
      forge-jobs serve --host 0.0.0.0 --token-file tokens.json --allow-host jobs.example.org
      forge-jobs serve --workers app:handlers
    """
    order = Order(**options)
    settings = settings_of(ctx, read_only=order.read_only or None)
    config = _config(order, settings)
    log_to_stderr(settings.log_level, settings.log_format)
    handlers = None if order.workers is None else load_registry(order.workers)
    asyncio.run(_serve(order, settings, config, handlers))


def _config(order: Order, settings: Settings) -> ApiConfig:
    """The configuration of the API, refused where it would let strangers in."""
    try:
        from forge_jobs.api.config import ApiConfig
        from forge_jobs.api.tokens import Tokens
    except ModuleNotFoundError as error:
        raise ConfigError("the HTTP API needs its libraries: pip install 'forge-jobs[server]'") from error
    if order.prefix and re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", order.prefix) is None:
        raise Usage(f"--prefix {order.prefix!r} must begin with / and not end with it, such as /jobs")
    if order.read_only and order.workers is not None:
        raise Usage("--read-only changes nothing, so it cannot run --workers")
    secret = os.environ.get(TOKEN_VARIABLE)
    tokens = Tokens(order.token_file, secret=secret) if order.token_file is not None or secret is not None else None
    if tokens is None and order.socket is None and not _is_loopback(order.host):
        raise Usage(
            f"--host {order.host} can be reached from other machines, and nobody would need a token",
            f"give --token-file, or a token in {TOKEN_VARIABLE}; nothing turns this off",
        )
    hosts = [*order.allowed, *([] if order.host in ("0.0.0.0", "::") else [_bracketed(order.host)])]  # noqa: S104
    return ApiConfig(
        tokens=tokens,
        hosts=tuple(hosts),
        read_only=order.read_only,
        trusted_proxy=order.trusted_proxy,
        metrics_public=order.metrics_public or _is_loopback(order.host),
        payload_max=settings.store.payload_max,
        stale_after=settings.runtime.stale_after,
        max_attempts=settings.runtime.max_attempts,
    )


async def _look_ahead(storage: Storage) -> None:
    """Begin to count what takes long to count, so that the first page need not wait for it."""
    with contextlib.suppress(StorageError):  # the pages will say so
        await storage.queues.recent_counts()
        await storage.jobs.recent_waiting_kinds()
        await storage.jobs.recent_kinds()


async def _serve(order: Order, settings: Settings, config: ApiConfig, handlers: HandlerRegistry | None) -> None:
    from forge_jobs.api.app import create_app
    from forge_jobs.api.server import listen, listen_on_path, make_server

    listener = listen(order.host, order.port) if order.socket is None else listen_on_path(order.socket)
    try:
        async with (
            opened(settings, create=not order.read_only) as storage,
            _workers(storage, settings, handlers, order.workers) as runtime,
        ):
            app = create_app(storage, dataclasses.replace(config, runtime=runtime))
            server = make_server(app, prefix=order.prefix)
            stopping = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stopping.set)
            output.line(f"serving {storage.url} on {_address(listener, order)}")
            output.flush()
            async with asyncio.TaskGroup() as tasks:
                looking = tasks.create_task(_look_ahead(storage))
                serving = tasks.create_task(server.serve(sockets=[listener]))
                waiting = tasks.create_task(stopping.wait())
                await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                looking.cancel()
                server.stop()
                await app.close()  # streams would hold the server up
    finally:
        listener.close()
        if order.socket is not None:
            with contextlib.suppress(OSError):
                order.socket.unlink()


@contextlib.asynccontextmanager
async def _workers(
    storage: Storage, settings: Settings, handlers: HandlerRegistry | None, target: str | None
) -> AsyncIterator[QueueRuntime | None]:
    """Workers in this process, as long as it serves."""
    if handlers is None:
        yield None
        return
    runtime = QueueRuntime(
        storage,
        handlers,
        settings.queues,
        slots=settings.runtime.slots if settings.is_given("slots") else None,
        name=settings.worker_name,
        config=settings.runtime,
        registry=target,
        executors=settings.executors_served,
    )
    await runtime.start()
    try:
        yield runtime
    finally:
        await runtime.stop()


def _address(listener: socket.socket, order: Order) -> str:
    if order.socket is not None:
        return f"unix:{order.socket}"
    host, port = listener.getsockname()[:2]
    return f"http://{_bracketed(host)}:{port}{order.prefix or '/'}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address; a name is looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = {ipaddress.ip_address(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except (OSError, ValueError):
        return False
    return bool(found) and all(address.is_loopback for address in found)
