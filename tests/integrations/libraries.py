"""What applications do with each library, in the library's own words.

A `Caller` is one connection or session of an application. Its methods block; where the library is awaited they run an
event loop of the caller's own, so that one suite of tests speaks to all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import aiosqlite
import asyncpg
import django
import psycopg
from django.conf import settings
from psycopg.rows import dict_row
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from forge_jobs import EnqueueOutcome, EnqueueRequest, Storage, open_storage
from forge_jobs.storage.types.job import JobFilter, JobRow

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"
ORDERS: Final = "SELECT id FROM orders ORDER BY id"

settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.dummy"}}, USE_TZ=True)
django.setup()

from django.db import connections, transaction  # noqa: E402  # when there are settings

from forge_jobs.integrations import aiosqlite as of_aiosqlite  # noqa: E402
from forge_jobs.integrations import asyncpg as of_asyncpg  # noqa: E402
from forge_jobs.integrations import django as of_django  # noqa: E402
from forge_jobs.integrations import psycopg as of_psycopg  # noqa: E402
from forge_jobs.integrations import sqlalchemy as of_sqlalchemy  # noqa: E402
from forge_jobs.integrations import sqlite3 as of_sqlite3  # noqa: E402


class Caller:
    """What is the same for all: waiting for whatever must be awaited."""

    module: Any
    target: Any
    """What `enqueue` is given first."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def settle(self, answer: Any) -> Any:
        """The answer of a call, whether it is there or must be awaited."""
        if not inspect.isawaitable(answer):
            return answer

        async def wait() -> Any:
            return await answer

        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(wait())

    @property
    def awaited(self) -> bool:
        """Whether the library needed an event loop."""
        return self._runner is not None

    def enqueue(self, request: EnqueueRequest, **options: Any) -> EnqueueOutcome:
        outcome: EnqueueOutcome = self.settle(self.module.enqueue(self.target, request, **options))
        return outcome

    def enqueue_bulk(self, requests: list[EnqueueRequest], **options: Any) -> list[EnqueueOutcome]:
        outcomes: list[EnqueueOutcome] = self.settle(self.module.enqueue_bulk(self.target, requests, **options))
        return outcomes

    def write(self, order: int) -> None:
        self.query(f"INSERT INTO orders VALUES ({order})")

    def query(self, sql: str) -> Any:
        """The rows of a statement as the application gets them, if it gives any."""
        raise NotImplementedError

    def commit(self) -> None:
        self.settle(self.target.commit())

    def rollback(self) -> None:
        self.settle(self.target.rollback())

    def savepoint(self) -> contextlib.AbstractContextManager[None]:
        """A part that is rolled back by an error."""
        raise NotImplementedError

    def go_autocommit(self) -> None:
        """Every statement is a transaction from now on."""
        raise NotImplementedError

    def close(self) -> None:
        self.settle(self.target.close())
        self.stop()

    def stop(self) -> None:
        if self._runner is not None:
            self._runner.close()

    @contextlib.contextmanager
    def plain_savepoint(self) -> Iterator[None]:
        self.query("SAVEPOINT mine")
        try:
            yield
        except BaseException:
            self.query("ROLLBACK TO mine")
            raise
        self.query("RELEASE mine")


class SqliteCaller(Caller):
    """`sqlite3` and aiosqlite have the same words."""

    def __init__(self, url: str, module: Any, connect: Callable[..., Any]) -> None:
        super().__init__()
        self.module = module
        self._connect: Any = partial(connect, url.removeprefix("sqlite:///"))
        self.target = self.settle(self._connect())
        self.target.row_factory = sqlite3.Row

    def query(self, sql: str) -> Any:
        return self.settle(self.settle(self.target.execute(sql)).fetchall())

    def savepoint(self) -> contextlib.AbstractContextManager[None]:
        return self.plain_savepoint()

    def go_autocommit(self) -> None:
        self.settle(self.target.close())
        self.target = self.settle(self._connect(isolation_level=None))


class PsycopgCaller(Caller):
    """psycopg's connections have the same words, awaited or not."""

    module = of_psycopg

    def __init__(self, url: str, kind: Any) -> None:
        super().__init__()
        self.target = self.settle(kind.connect(url, row_factory=dict_row))

    def query(self, sql: str) -> Any:
        cursor = self.settle(self.target.execute(sql.encode()))
        return self.settle(cursor.fetchall()) if cursor.description else []

    def savepoint(self) -> contextlib.AbstractContextManager[None]:
        return self.plain_savepoint()

    def go_autocommit(self) -> None:
        self.settle(self.target.set_autocommit(True))


class AsyncpgCaller(Caller):
    """asyncpg's transactions are objects; this application begins one with whatever it does first."""

    module = of_asyncpg

    def __init__(self, url: str) -> None:
        super().__init__()
        self.target = self.settle(asyncpg.connect(url))
        self._open: Any = None
        self._autocommit = False

    def query(self, sql: str) -> Any:
        self._begin()
        return self.settle(self.target.fetch(sql))

    def enqueue(self, request: EnqueueRequest, **options: Any) -> EnqueueOutcome:
        self._begin()
        return super().enqueue(request, **options)

    def enqueue_bulk(self, requests: list[EnqueueRequest], **options: Any) -> list[EnqueueOutcome]:
        self._begin()
        return super().enqueue_bulk(requests, **options)

    def commit(self) -> None:
        self.settle(self._open.commit())
        self._open = None

    def rollback(self) -> None:
        self.settle(self._open.rollback())
        self._open = None

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        part = self.target.transaction()
        self.settle(part.start())
        try:
            yield
        except BaseException:
            self.settle(part.rollback())
            raise
        self.settle(part.commit())

    def go_autocommit(self) -> None:
        self._autocommit = True

    def _begin(self) -> None:
        if self._open is None and not self._autocommit:
            self._open = self.target.transaction()
            self.settle(self._open.start())


class SqlalchemyCaller(Caller):
    """A Connection or a Session, awaited or not: they have the same words."""

    module = of_sqlalchemy

    def __init__(self, url: str, driver: str, kind: Any) -> None:
        super().__init__()
        make = create_async_engine if kind in (AsyncConnection, AsyncSession) else create_engine
        self._engine: Any = make(url.replace("://", f"+{driver}://", 1))
        self._kind = kind
        self.target = self._connect(self._engine)

    def _connect(self, engine: Any) -> Any:
        if self._kind in (Session, AsyncSession):
            return self._kind(engine)
        return self.settle(engine.connect())

    def query(self, sql: str) -> Any:
        result = self.settle(self.target.execute(text(sql)))
        return result.fetchall() if result.returns_rows else []

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        part = self.settle(self.target.begin_nested())
        try:
            yield
        except BaseException:
            self.settle(part.rollback())
            raise
        self.settle(part.commit())

    def go_autocommit(self) -> None:
        self.settle(self.target.close())
        self.target = self._connect(self._engine.execution_options(isolation_level="AUTOCOMMIT"))

    def close(self) -> None:
        self.settle(self.target.close())
        self.settle(self._engine.dispose())
        self.stop()


class DjangoCaller(Caller):
    """An `atomic` block that is entered with whatever is done first, and left by commit and rollback."""

    module = of_django
    alias = "shop"

    def __init__(self, url: str) -> None:
        super().__init__()
        parts = urlsplit(url)
        known: dict[str, dict[str, Any]] = {
            SQLITE: {"ENGINE": "django.db.backends.sqlite3", "NAME": url.removeprefix("sqlite:///")},
            POSTGRESQL: {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": parts.path.removeprefix("/"),
                "USER": parts.username,
                "HOST": parts.hostname,
                "PORT": parts.port,
            },
        }
        connections.settings[self.alias] = {**connections.settings["default"], **known[parts.scheme]}
        self.target = connections[self.alias]
        self._autocommit = False

    def query(self, sql: str) -> Any:
        self._begin()
        with self.target.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def enqueue(self, request: EnqueueRequest, **options: Any) -> EnqueueOutcome:
        self._begin()
        return super().enqueue(request, **options)

    def enqueue_bulk(self, requests: list[EnqueueRequest], **options: Any) -> list[EnqueueOutcome]:
        self._begin()
        return super().enqueue_bulk(requests, **options)

    def commit(self) -> None:
        self._block.__exit__(None, None, None)

    def rollback(self) -> None:
        transaction.set_rollback(True, using=self.alias)
        self._block.__exit__(None, None, None)

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        with transaction.atomic(using=self.alias):
            yield

    def go_autocommit(self) -> None:
        self._autocommit = True

    def close(self) -> None:
        if self.target.in_atomic_block:
            self.rollback()
        self.target.close()
        del connections[self.alias]

    def _begin(self) -> None:
        if not self.target.in_atomic_block and not self._autocommit:
            self._block = transaction.atomic(using=self.alias)
            self._block.__enter__()


@dataclass(frozen=True)
class Library:
    """One library on one store."""

    name: str
    store: str
    connect: Callable[[str], Caller]
    """From the URL of the store."""
    hook: bool = False
    """Whether it tells when a transaction is committed."""

    def __str__(self) -> str:
        return self.name


def _sqlalchemy(driver: str, kind: Any) -> Library:
    store = SQLITE if driver in ("pysqlite", "aiosqlite") else POSTGRESQL
    return Library(
        f"sqlalchemy-{kind.__name__}-{driver}",
        store,
        lambda url: SqlalchemyCaller(url, driver, kind),
        hook=kind in (Session, AsyncSession),
    )


LIBRARIES: Final = [
    Library("sqlite3", SQLITE, lambda url: SqliteCaller(url, of_sqlite3, sqlite3.connect)),
    Library("aiosqlite", SQLITE, lambda url: SqliteCaller(url, of_aiosqlite, aiosqlite.connect)),
    Library("psycopg", POSTGRESQL, lambda url: PsycopgCaller(url, psycopg.Connection)),
    Library("psycopg-async", POSTGRESQL, lambda url: PsycopgCaller(url, psycopg.AsyncConnection)),
    Library("asyncpg", POSTGRESQL, AsyncpgCaller),
    *(_sqlalchemy(driver, kind) for driver in ("pysqlite", "psycopg") for kind in (Connection, Session)),
    *(
        _sqlalchemy(driver, kind)
        for driver in ("aiosqlite", "psycopg", "asyncpg")
        for kind in (AsyncConnection, AsyncSession)
    ),
    Library("django-sqlite", SQLITE, DjangoCaller, hook=True),
    Library("django-postgresql", POSTGRESQL, DjangoCaller, hook=True),
]


@dataclass
class Shop:
    """A store with orders beside its jobs, and the applications that use it."""

    library: Library
    url: str

    @contextlib.contextmanager
    def open(self) -> Iterator[Caller]:
        """An application's connection. It is closed in the thread that opened it."""
        caller = self.library.connect(self.url)
        try:
            yield caller
        finally:
            caller.close()

    def jobs(self) -> list[JobRow]:
        """The jobs that everybody sees, newest first."""

        async def read(storage: Storage) -> list[JobRow]:
            return list((await storage.jobs.list_jobs(JobFilter())).items)

        found: list[JobRow] = self.ask(read)
        return found

    def orders(self) -> list[int]:
        """The orders that everybody sees."""
        with self.open() as other:
            return [int(next(iter(row.values() if isinstance(row, dict) else row))) for row in other.query(ORDERS)]

    def ask(self, work: Callable[[Storage], Any]) -> Any:
        """What the store answers."""

        async def run() -> Any:
            async with open_storage(self.url, create=False) as storage:
                return await work(storage)

        return asyncio.run(run())
