"""How the HTTP API behaves, checked when built."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from forge_jobs import limits
from forge_jobs.config import RuntimeConfig, check_number
from forge_jobs.runtime.routing import DefaultRouter, Router

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from forge_jobs.api.identity import Identity, TokenFile
    from forge_jobs.runtime.queue_runtime import QueueRuntime

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiConfig:
    """One app over one store.

    tokens: who may call. Without tokens and without `authenticate`, every caller is an admin: only for an app that
    nobody else can reach, which `forge-jobs serve` makes sure of.
    authenticate: who calls, by the application's own means; None refuses. It replaces tokens and login.
    hosts: the names under which the app may be called, beside the loopback ones. read_only: every change is refused.
    trusted_proxy: believe `X-Forwarded-Proto` and the last address of `X-Forwarded-For`.
    metrics_public: `/metrics` needs no token even where others do.
    payload_max: largest payload in bytes as stored. concurrency: so many requests are served at once.
    stale_after: a process silent for longer is gone. router, max_attempts: for jobs that name none.
    runtime: the workers in this process, for `/readyz`.
    """

    tokens: TokenFile | None = None
    authenticate: Callable[[HTTPConnection], Awaitable[Identity | None]] | None = None
    hosts: tuple[str, ...] = ()
    read_only: bool = False
    trusted_proxy: bool = False
    metrics_public: bool = False
    payload_max: int = limits.PAYLOAD_MAX_BYTES
    concurrency: int = limits.REQUESTS_AT_ONCE
    streams: int = limits.STREAMS
    stale_after: timedelta = timedelta(seconds=30)
    router: Router = field(default_factory=DefaultRouter)
    max_attempts: int = RuntimeConfig().max_attempts
    runtime: QueueRuntime | None = None

    def __post_init__(self) -> None:
        check_number("payload_max", self.payload_max, 1, limits.PAYLOAD_CEILING_BYTES, whole=True)
        check_number("concurrency", self.concurrency, 1, 10_000, whole=True)
        check_number("streams", self.streams, 1, 10_000, whole=True)

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """Host names without ports, lower case."""
        return frozenset(host.lower() for host in (*LOOPBACK_HOSTS, *self.hosts))
