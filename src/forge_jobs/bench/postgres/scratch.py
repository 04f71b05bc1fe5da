"""Scratch stores in schemas of a database, on a server that is given or thrown away."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Final

import psycopg

from forge_jobs.bench.measure import Sizes
from forge_jobs.bench.postgres.clients import plain_connection
from forge_jobs.bench.postgres.raw import PostgresRaw
from forge_jobs.bench.raw import Raw
from forge_jobs.bench.scratch import Place, Store, scratch_folder
from forge_jobs.storage.error import ConfigError
from forge_jobs.storage.open import Backend, migrate
from forge_jobs.storage.sqlite.storage import file_system
from forge_jobs.testing.postgres import Server

SETTINGS: Final = ("fsync", "synchronous_commit", "full_page_writes")
DROP_LIMIT_MS: Final = 60_000
"""A statement of a worker that was killed, or of a connection that was left, may hold its locks until it ends."""


class PostgresScratch:
    """Implements `Scratch`. server: the one behind `url`, if it is ours."""

    backend = Backend.POSTGRESQL

    def __init__(self, url: str, folder: Path, sizes: Sizes, server: Server | None) -> None:
        self.folder = folder
        self.sizes = sizes
        self._url = url
        self._server = server
        self._name = f"forge_bench_{secrets.token_hex(4)}"
        self._numbers = count(1)
        self._kept: dict[str, Store] = {}

    @contextmanager
    def store(self) -> Iterator[Store]:
        store = self._next()
        try:
            self._create(store)
            yield store
        finally:
            self._drop(store)

    def once(self, name: str, fill: Callable[[Raw], None]) -> Store:
        if name not in self._kept:
            store = self._next()
            try:
                self._create(store)
                with self.raw(store) as raw:
                    fill(raw)
            except BaseException:
                self._drop(store)
                raise
            self._kept[name] = store
        return self._kept[name]

    @contextmanager
    def raw(self, store: Store) -> Iterator[PostgresRaw]:
        with closing(plain_connection(store.url, store.schema)) as connection:
            yield PostgresRaw(store.url, store.schema, connection)

    def place(self, status: Mapping[str, Any]) -> Place:
        drivers = {name: version(name) for name in ("psycopg", "asyncpg") if find_spec(name)}
        data = None if self._server is None else self._server.data
        return Place(
            where=status["place"] if data is None else f"a throw-away server in {data.parent.parent}",
            file_system=None if data is None else file_system(data) or None,
            settings={name: status[name] for name in SETTINGS},
            versions={"postgresql": status["server_version"], **drivers},
        )

    def close(self) -> None:
        """Drop what is kept."""
        for store in self._kept.values():
            self._drop(store)

    def _next(self) -> Store:
        return Store(self._url, f"{self._name}_{next(self._numbers)}")

    def _create(self, store: Store) -> None:
        asyncio.run(migrate(store.url, config=store.config))

    def _drop(self, store: Store) -> None:
        """Remove the schema, and before it whoever was interrupted at work in it."""
        with closing(psycopg.connect(store.url, autocommit=True, application_name="forge_bench")) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", [store.schema]
            )
            connection.execute(f"SET lock_timeout = {DROP_LIMIT_MS}".encode())
            connection.execute(f"DROP SCHEMA IF EXISTS {store.schema} CASCADE".encode())


@contextmanager
def postgres_scratch(url: str | None, sizes: Sizes) -> Iterator[PostgresScratch]:
    """Schemas in the database of `url`, all dropped after the block; else in one of a server that is started for it: on
    a disk, with stock settings, so that a commit survives a power cut as it does elsewhere.

    Raises:
        ConfigError: there is no PostgreSQL on this machine, or it does not start.
    """
    with ExitStack() as opened:
        server: Server | None = None
        if url is None:
            try:
                server = opened.enter_context(Server(durable=True))
            except RuntimeError as error:
                raise ConfigError(f"{error}, or give --database postgresql://…") from error
            url = server.new_database()
        scratch = PostgresScratch(url, opened.enter_context(scratch_folder(None)), sizes, server)
        opened.callback(scratch.close)
        yield scratch
