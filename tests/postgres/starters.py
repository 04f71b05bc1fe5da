"""What the fixtures that start a server for one test take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from forge_jobs.testing.postgres import Server

from .pgbouncer import PgBouncer


class StartServer(Protocol):
    def __call__(self, version: int | None = None, *, settings: Mapping[str, str] | None = None) -> Server: ...


class StartBouncer(Protocol):
    def __call__(self, url: str, *, pool_size: int = 1, settings: Mapping[str, str] | None = None) -> PgBouncer: ...
