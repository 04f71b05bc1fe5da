"""Numbered migrations, applied once each under the write lock, by whichever process comes first."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Final

from forge_jobs import failpoints
from forge_jobs.storage.sql.migrations import OLDEST_SERVED, AppliedStep, Migration, lacking
from forge_jobs.storage.sql.migrations import migrations as known_steps
from forge_jobs.storage.sqlite import connection as sqlite
from forge_jobs.storage.sqlite.turnstile import Turnstile

DEADLINE_S: Final = 30.0

_TABLE: Final = """\
CREATE TABLE IF NOT EXISTS forge_schema (
  version INTEGER NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  checksum TEXT NOT NULL,
  serves INTEGER NOT NULL,
  applied_at INTEGER NOT NULL
) WITHOUT ROWID"""


def migrations() -> list[Migration]:
    """All steps this program knows, in order."""
    return known_steps("forge_jobs.storage.sqlite")


def schema_text() -> str:
    """The complete schema as SQL."""
    steps = (
        step.scripted(step.sql, "forge_schema", "CAST(strftime('%s') AS INTEGER) * 1000000") for step in migrations()
    )
    return "\n".join([f"{_TABLE};\n", *steps])


def pending(connection: sqlite3.Connection) -> list[Migration]:
    """The steps that this database lacks.

    Raises:
        SchemaMismatch: it is newer than this program serves, or a step was changed after it was applied.
    """
    return lacking(migrations(), _applied(connection))


def migrate(connection: sqlite3.Connection, database: Path | None) -> list[Migration]:
    """Bring the database up to date; the steps applied. An up-to-date one is only read.

    All steps of one call are one transaction, so a process killed on the way leaves the old schema whole.
    """
    if not pending(connection):
        return []
    turnstile = Turnstile(database)
    try:
        turnstile.enter()
        try:
            sqlite.begin(connection, time.monotonic() + DEADLINE_S)
            try:
                steps = pending(connection)  # another process may have been first
                if steps:
                    connection.execute(_TABLE)
                for step in steps:
                    _apply(connection, step)
                failpoints.hit("migrate.before_commit")
                connection.execute("COMMIT")
            except BaseException:
                sqlite.rollback(connection)
                raise
            return steps
        finally:
            turnstile.leave()
    finally:
        turnstile.close()


def schema_version(connection: sqlite3.Connection) -> int:
    """The newest step applied; 0 on an empty database."""
    return max((step.version for step in _applied(connection)), default=0)


def _apply(connection: sqlite3.Connection, step: Migration) -> None:
    for sql in statements(step.sql):
        connection.execute(sql)
    connection.execute(
        "INSERT INTO forge_schema (version, name, checksum, serves, applied_at) VALUES (?, ?, ?, ?, ?)",
        (step.version, step.name, step.checksum, OLDEST_SERVED, time.time_ns() // 1000),
    )


def statements(text: str) -> list[str]:
    """The statements of a script, one by one: `executescript` would commit between them."""
    found, part = [], ""
    for line in text.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            found.append(part.strip())
            part = ""
    return found


def _applied(connection: sqlite3.Connection) -> list[AppliedStep]:
    exists = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'forge_schema'").fetchone()
    if exists is None:
        return []
    rows = connection.execute("SELECT version, checksum, serves FROM forge_schema").fetchall()
    return [AppliedStep(*row) for row in rows]
