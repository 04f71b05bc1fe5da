"""The HTTP server: uvicorn, with limits on connections and on how long headers may take."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from forge_jobs import limits
from forge_jobs.storage.error import ConfigError

log = logging.getLogger("forge_jobs.api")

BACKLOG: Final = 128
KEEP_ALIVE_S: Final = 15
GRACE_S: Final = 5
"""How long requests get to end at shutdown. Streams are told at once."""


class BoundedProtocol(H11Protocol):
    """h11, for it reads requests strictly; a connection that does not send its headers in time is closed, and so is one
    too many."""

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > limits.CONNECTIONS:
            log.warning("connections_full: %d are open", limits.CONNECTIONS)
            transport.close()
            return
        self._header_timer = self.loop.call_later(limits.HEADER_S, self.transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self._header_timer is None:  # the first bytes of another request
            self._header_timer = self.loop.call_later(limits.HEADER_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


class Server(uvicorn.Server):
    """A server inside a running event loop, whose signals are somebody else's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        """Take no more requests, and end when those that run have."""
        self.should_exit = True


def make_server(app: ASGIApp, *, prefix: str = "") -> Server:
    """A server for `app`, below `prefix`."""
    config = uvicorn.Config(
        _below(app, prefix) if prefix else app,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=limits.HEADERS_BYTES + limits.URL_BYTES + 24 * 1024,
    )
    return Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: the address cannot be used.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    return listener


def listen_on_path(path: Path) -> socket.socket:
    """A listening Unix socket of mode 0660; one that nobody listens on any more is replaced.

    Raises:
        ConfigError: the path cannot be used.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket() and not _answers(path):
            path.unlink()
        old = os.umask(0o117)
        try:
            listener.bind(str(path))
        finally:
            os.umask(old)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {path}: {error.strerror or error}") from error
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _below(app: ASGIApp, prefix: str) -> ASGIApp:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    return Starlette(routes=[Mount(prefix, app=app)])
