"""Opening a store by its URL: the only place that names the backends."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from forge_jobs.clock import Clock
from forge_jobs.config import StoreConfig
from forge_jobs.storage.error import ConfigError
from forge_jobs.storage.protocol import Storage

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
    `sqlite:///:memory:` a database of this process alone. A missing file is created, unless `create` is False.

    Raises:
        ConfigError: the URL names no backend, or the file is on a network file system.
        StoreUnavailable: the file cannot be opened.
        SchemaMismatch: a newer program made it.
    """
    from forge_jobs.storage.sqlite.storage import open_sqlite

    storage = await open_sqlite(sqlite_path(url), clock=clock, config=config, create=create)
    try:
        yield storage
    finally:
        await storage.close()


def sqlite_path(url: str) -> str:
    """The path in an SQLite URL.

    Raises:
        ConfigError: it is not one.
    """
    found = re.fullmatch(r"sqlite:///(.+)", url)
    if found is None:
        raise ConfigError(f"database URL {masked(url)!r} is not of the form sqlite:///path/to/file.db")
    return found[1]


def masked(url: str) -> str:
    """The URL without its password, for people and logs."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)


async def drop_store(url: str) -> None:
    """Remove the store and everything beside it."""
    from forge_jobs.storage.sqlite.storage import drop

    drop(Path(sqlite_path(url)).absolute())


def schema_sql(url: str) -> str:
    """The complete schema, for people who apply it themselves."""
    sqlite_path(url)
    from forge_jobs.storage.sqlite.migrate import migrations

    return "\n".join(step.sql for step in migrations())


async def migrate(url: str, *, plan: bool = False) -> list[str]:
    """Apply the pending migrations, or with `plan` only tell them; the SQL of each."""
    import sqlite3

    from forge_jobs.storage.sqlite import connection
    from forge_jobs.storage.sqlite import migrate as steps

    database = Path(sqlite_path(url)).absolute()
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
