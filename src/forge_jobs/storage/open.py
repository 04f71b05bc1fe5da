"""Opening a store by its URL: the only place that names the backends."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Final

from forge_jobs.clock import Clock
from forge_jobs.config import StoreConfig
from forge_jobs.storage.error import ConfigError
from forge_jobs.storage.protocol import Storage


class Backend(Enum):
    """The kinds of stores there are."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


DEFAULT_URL: Final = "sqlite:///forge-jobs.db"
_DEFAULT_CONFIG: Final = StoreConfig()


@asynccontextmanager
async def open_storage(
    url: str = DEFAULT_URL, *, clock: Clock | None = None, config: StoreConfig = _DEFAULT_CONFIG, create: bool = True
) -> AsyncIterator[Storage]:
    """A store, open until the block ends.

        async with open_storage("sqlite:///jobs.db") as storage:
            await storage.jobs.enqueue(EnqueueRequest("mail", {"to": "a@example.org"}, queue="default"))

    `sqlite:///jobs.db` is a file in the current directory, `sqlite:////var/lib/jobs.db` an absolute path,
    `sqlite:///:memory:` a database of this process alone; `postgresql://user@host/database` a PostgreSQL server, 13 or
    newer. A missing file, or a missing schema on the server, is created, unless `create` is False.

    Raises:
        ConfigError: the URL names no backend, the file is on a network file system, or the server cannot be used.
        StoreUnavailable: the file cannot be opened, or the server does not answer.
        SchemaMismatch: a newer program made it, or on PostgreSQL an older one, and `auto_migrate` is not set.
    """
    storage = await _open(url, clock, config, create)
    try:
        yield storage
    finally:
        await storage.close()


async def _open(url: str, clock: Clock | None, config: StoreConfig, create: bool) -> Storage:
    match backend_of(url):
        case Backend.SQLITE:
            from forge_jobs.storage.sqlite.storage import open_sqlite

            return await open_sqlite(sqlite_path(url), clock=clock, config=config, create=create)
        case Backend.POSTGRESQL:
            storage: Storage = await _postgres().open_postgres(url, clock=clock, config=config, create=create)
            return storage


def backend_of(url: str) -> Backend:
    """Which backend a database URL names.

    Raises:
        ConfigError: none.
    """
    scheme, separator, _ = url.partition("://")
    if separator and scheme in ("postgresql", "postgres"):
        return Backend.POSTGRESQL
    if re.fullmatch(r"sqlite:///(.+)", url):
        return Backend.SQLITE
    hint = ""
    if scheme.startswith("postgresql+"):
        hint = "; leave out the driver's name, forge-jobs brings its own"
    raise ConfigError(
        f"database URL {masked(url)!r} is neither of the form sqlite:///path/to/file.db "
        f"nor postgresql://user@host/database{hint}"
    )


def sqlite_path(url: str) -> str:
    """The path in an SQLite URL.

    Raises:
        ConfigError: it is not one.
    """
    if backend_of(url) is not Backend.SQLITE:
        raise ConfigError(f"database URL {masked(url)!r} is not of the form sqlite:///path/to/file.db")
    return url.removeprefix("sqlite:///")


def masked(url: str) -> str:
    """The URL without its password, for people and logs."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)


async def drop_store(url: str, *, config: StoreConfig = _DEFAULT_CONFIG) -> None:
    """Remove the store and everything beside it."""
    match backend_of(url):
        case Backend.SQLITE:
            from forge_jobs.storage.sqlite.storage import drop

            drop(Path(sqlite_path(url)).absolute())
        case Backend.POSTGRESQL:
            await asyncio.to_thread(_postgres().drop, url, config)


def schema_sql(url: str, *, config: StoreConfig = _DEFAULT_CONFIG) -> str:
    """The complete schema, for people who apply it themselves."""
    if backend_of(url) is Backend.POSTGRESQL:
        text: str = _postgres().schema_sql(config)
        return text
    from forge_jobs.storage.sqlite.migrate import schema_text

    return schema_text()


async def migrate(url: str, *, plan: bool = False, config: StoreConfig = _DEFAULT_CONFIG) -> list[str]:
    """Apply the pending migrations, or with `plan` only tell them; the SQL of each."""
    match backend_of(url):
        case Backend.SQLITE:
            return _migrate_sqlite(Path(sqlite_path(url)).absolute(), plan=plan)
        case Backend.POSTGRESQL:
            steps: list[str] = await asyncio.to_thread(_postgres().migrate_now, url, config, plan=plan)
            return steps


def _migrate_sqlite(database: Path, *, plan: bool) -> list[str]:
    import sqlite3

    from forge_jobs.storage.sqlite import connection
    from forge_jobs.storage.sqlite import migrate as steps

    if plan and not database.exists():
        return [step.sql for step in steps.migrations()]
    try:
        opened = connection.look_at(database) if plan else connection.connect(database, create=True)
        try:
            chosen = steps.pending(opened) if plan else steps.migrate(opened, database)
        finally:
            opened.close()
    except sqlite3.Error as error:
        raise connection.translate(error, database) from error
    return [step.sql for step in chosen]


def check_driver(backend: Backend) -> None:
    """See that a backend can be used here.

    Raises:
        ConfigError: its driver is not installed.
    """
    if backend is Backend.POSTGRESQL:
        _postgres()


def _postgres() -> ModuleType:
    """The PostgreSQL backend, whose driver is an extra.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        from forge_jobs.storage.postgres import storage
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "psycopg":
            raise
        raise ConfigError("PostgreSQL needs its driver: pip install 'forge-jobs[postgres]'") from error
    return storage
