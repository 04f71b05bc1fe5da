"""What stands before every route: who may call at all, from where, and with what.

One rule for all: what is not allowed is refused. The order is that of cost and of what a refusal tells a stranger:
sizes, host, origin, identity, body.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Iterable
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from forge_jobs import limits
from forge_jobs.api.answer import refusal
from forge_jobs.api.config import ApiConfig
from forge_jobs.api.methods import methods_of
from forge_jobs.api.origin import check_origin, host_name
from forge_jobs.api.problem import Problem
from forge_jobs.api.services import Services
from forge_jobs.ids import new_id
from forge_jobs.storage.protocol import Storage

log = logging.getLogger("forge_jobs.api")

API: Final = "/api/"
OPEN: Final = frozenset({"/livez", "/readyz", "/openapi.json", "/api/v1/login", "/api/v1/logout"})
"""Answered without a token. Nothing of the store is in them, unless the caller has one."""
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
KNOWN: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
QUEUE_WAIT_S: Final = 5.0
"""A request that finds all places taken waits this long."""
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """An ASGI app around the API."""

    def __init__(self, app: Starlette, storage: Storage, config: ApiConfig, services: Services) -> None:
        self._app = app
        self._storage = storage
        self._config = config
        self._services = services
        self._places = asyncio.Semaphore(config.concurrency)

    async def close(self) -> None:
        """End streams and operations, so that the server can stop."""
        await self._services.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = _Answer(scope, send)
        started = time.perf_counter()
        try:
            await self._admit(scope, receive, answer)
        except Problem as problem:
            await answer.refuse(problem)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("api_fault request_id=%s method=%s", answer.request_id, scope["method"])
            await answer.refuse(Problem("internal", "something went wrong here; the server's log says what"))
        finally:
            took_ms = 1000 * (time.perf_counter() - started)
            log.debug(
                "api_request request_id=%s method=%s path=%s status=%s duration_ms=%.1f",
                answer.request_id, scope["method"], ascii(scope["path"]), answer.status, took_ms,
            )  # fmt: skip

    async def _admit(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        connection = HTTPConnection(scope)
        headers = connection.headers
        path = local_path(scope)
        _check_sizes(scope)
        check_host(headers, self._config)
        scope["forge.request_id"] = answer.request_id
        scope["forge.config"] = self._config
        scope["forge.storage"] = self._storage
        scope["forge.services"] = self._services
        scope["forge.address"] = address_of(scope, headers, self._config)
        method = scope["method"]
        if method not in KNOWN:
            raise Problem("method_not_allowed", "this method is not known here", headers={"Allow": ", ".join(KNOWN)})
        if method not in SAFE:
            check_origin(headers)
        is_open = path in OPEN or not path.startswith(API)
        if path == "/metrics" and not self._config.metrics_public:
            is_open = False
        scope["forge.identity"] = await self._services.authenticator.identify(connection, needed=not is_open)
        if method not in SAFE:
            receive = _checked_body(headers, receive, _most(path, self._config))
        if method == "OPTIONS":
            await self._options(scope, receive, answer)
            return
        if method == "HEAD":
            scope["method"] = "GET"
            answer.bodiless = True
        if path == "/api/v1/events":
            await self._app(scope, receive, answer.send)  # a stream keeps no place; streams have a bound of their own
            return
        await self._with_place(scope, receive, answer)

    async def _options(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        """The methods of a path. No word of other sites: nobody's pages but ours may call."""
        methods = methods_of(self._app, scope)
        if not methods:
            raise Problem("not_found", "there is nothing here")
        await Response(status_code=204, headers={"Allow": ", ".join(methods)})(scope, receive, answer.send)

    async def _with_place(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            async with asyncio.timeout(QUEUE_WAIT_S):
                await self._places.acquire()
        except TimeoutError:
            raise Problem(
                "rate_limited",
                f"{self._config.concurrency} requests are being served already",
                headers={"Retry-After": "1"},
            ) from None
        try:
            await self._app(scope, receive, answer.send)
        finally:
            self._places.release()


class _Answer:
    """What goes back: with the headers that every answer has, and refusals in one shape."""

    def __init__(self, scope: Scope, send: Send) -> None:
        given = Headers(scope=scope).get("x-request-id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else new_id()
        self.status: int | None = None
        self.bodiless = False
        self._scope = scope
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            headers["X-Request-Id"] = self.request_id
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if local_path(self._scope).startswith(API):
                headers["Cache-Control"] = "no-store"
            headers.setdefault("Cache-Control", "no-store")
        elif self.bodiless and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)

    async def refuse(self, problem: Problem) -> None:
        if self.status is not None:
            return  # the answer has begun; it is cut off
        response = refusal(problem, self.request_id)
        with contextlib.suppress(OSError):
            await response(self._scope, _nothing, self.send)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


def local_path(scope: Scope) -> str:
    """The path below the prefix under which the app is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root) else path


def address_of(scope: Scope, headers: Headers, config: ApiConfig) -> str:
    """Where the call comes from. What a proxy says is believed only of a trusted one, and only its own last word."""
    if config.trusted_proxy and "x-forwarded-for" in headers:
        return headers.getlist("x-forwarded-for")[-1].rpartition(",")[2].strip()[:64]
    client = scope.get("client")
    return client[0] if client else "local"


def check_host(headers: Headers, config: ApiConfig) -> None:
    """Refuse names that are not ours, so that a page of another name cannot reach us by DNS."""
    hosts = headers.getlist("host")
    if len(hosts) != 1:
        raise Problem("validation", "a request has one Host header", field="host", reason="invalid_host")
    name = host_name(hosts[0])
    if name is None:
        raise Problem("validation", "the Host header is not a host name", field="host", reason="invalid_host")
    if name not in config.allowed_hosts:
        raise Problem(
            "host_not_allowed", f"the host {name[:100]!r} is not among those this server answers for; see --allow-host",
            reason="host_not_allowed",
        )  # fmt: skip


def _check_sizes(scope: Scope) -> None:
    if len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"]) > limits.URL_BYTES:
        raise Problem("uri_too_long", f"the URL is longer than {limits.URL_BYTES} bytes")
    if _size(scope["headers"]) > limits.HEADERS_BYTES:
        raise Problem("headers_too_large", f"the headers are larger than {limits.HEADERS_BYTES} bytes")


def _size(headers: Iterable[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)


def _most(path: str, config: ApiConfig) -> int:
    bulk = path == "/api/v1/jobs/bulk"
    return limits.BULK_BODY_BYTES if bulk else config.payload_max + limits.BODY_EXTRA_BYTES


def _checked_body(headers: Headers, receive: Receive, most: int) -> Receive:
    """A body that is JSON in UTF-8, not larger than `most`, and arrives in time; refused by its announced size before
    it is read."""
    announced = headers.get("content-length")
    if announced is not None and (not announced.isascii() or not announced.isdigit()):
        raise Problem("validation", "Content-Length is not a number", field="content-length", reason="invalid_header")
    chunked = "transfer-encoding" in headers
    if chunked and announced is not None:
        raise Problem(
            "validation", "a body has a Content-Length or a Transfer-Encoding, not both", field="content-length",
            reason="invalid_header", headers={"Connection": "close"},
        )  # fmt: skip
    if announced is not None and int(announced) > most:
        raise _too_large(most)
    if chunked or (announced is not None and int(announced) > 0):
        _check_type(headers)
    if "content-encoding" in headers and headers["content-encoding"].lower() != "identity":
        raise Problem("unsupported_media_type", "a compressed body is not accepted")
    return _bounded(receive, most)


def _bounded(receive: Receive, most: int) -> Receive:
    loop = asyncio.get_running_loop()
    until = loop.time() + limits.BODY_S
    seen, complete = 0, False

    async def bounded() -> Message:
        nonlocal seen, complete
        if complete:
            return await receive()
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError:
            raise Problem(
                "timeout", f"the body did not arrive within {limits.BODY_S} s", headers={"Connection": "close"}
            ) from None
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if seen > most:
                raise _too_large(most)
        return message

    return bounded


def _check_type(headers: Headers) -> None:
    kind, _, rest = headers.get("content-type", "").partition(";")
    charset = rest.strip().lower().removeprefix("charset=").strip('"')
    if kind.strip().lower() != "application/json" or charset not in ("", "utf-8", "utf8"):
        raise Problem("unsupported_media_type", "the body must be application/json in UTF-8; say so in Content-Type")


def _too_large(most: int) -> Problem:
    return Problem("payload_too_large", f"the body is larger than {most} bytes", field="body",
                   reason="payload_too_large", headers={"Connection": "close"})  # fmt: skip
