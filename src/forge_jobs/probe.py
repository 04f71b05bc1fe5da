"""A small HTTP server beside a worker, for probes and scrapers. It cannot harm the worker.

It lives on threads of its own, so it answers while a handler blocks the event loop and costs the loop nothing; a few
requests at a time, each with a time limit; it reads nothing but a request line and headers, and only GET.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Final

from forge_jobs.observe import tell
from forge_jobs.storage.error import ConfigError

log = logging.getLogger("forge_jobs.probe")

REQUESTS_AT_ONCE: Final = 8
"""Further connections are closed at once."""
REQUEST_S: Final = 10.0
"""A connection that is silent for so long is closed."""
LOOK_S: Final = 0.1
"""How soon it is noticed that the server is to be closed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a path gives."""

    status: int
    body: bytes
    content_type: str = "application/json"

    @classmethod
    def of(cls, status: int, value: Mapping[str, Any]) -> Answer:
        """A JSON document."""
        return cls(status, json.dumps(value).encode() + b"\n")


Routes = Mapping[str, Callable[[], Answer]]
"""Paths, each with a function that is called on a thread of the server's, with nothing but that it was asked for."""


class ProbeServer:
    """Serves `routes` at an address until it is closed.

    Raises:
        ConfigError: the address cannot be had.
    """

    def __init__(self, host: str, port: int, routes: Routes) -> None:
        handler = type("Handler", (_Handler,), {"routes": dict(routes)})
        try:
            self._server = _server_for(host)((host, port), handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"cannot listen at {host}:{port}: {getattr(error, 'strerror', None) or error}") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(LOOK_S,), name="forge-probe", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; of port 0 the one that was found."""
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def close(self) -> None:
        """Take no more requests. Those under way end by themselves."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, *arguments: Any) -> None:
        self._free = threading.BoundedSemaphore(REQUESTS_AT_ONCE)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread can be had
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("probe_fault", exc_info=True)  # somebody hung up


class _Server6(_Server):
    address_family = socket.AF_INET6


def _server_for(host: str) -> type[_Server]:
    return _Server6 if ":" in host else _Server


class _Handler(BaseHTTPRequestHandler):
    routes: ClassVar[Routes] = {}
    timeout = REQUEST_S
    server_version = "forge-jobs"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        route = self.routes.get(self.path.partition("?")[0])
        if route is None:
            answer = Answer.of(404, {"error": "not_found", "paths": sorted(self.routes)})
        else:
            try:
                answer = route()
            except Exception as error:
                tell(log, logging.WARNING, "probe_fault", path=self.path, error=f"{type(error).__name__}: {error}")
                answer = Answer.of(500, {"error": type(error).__name__})
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("probe %s", format % args)
