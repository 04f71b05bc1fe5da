"""Numbered migrations, applied once each under a lock, by whichever process comes first."""

from __future__ import annotations

import re
from typing import Final

import psycopg

from forge_jobs import failpoints
from forge_jobs.storage.error import ConfigError
from forge_jobs.storage.postgres.book import PACKAGE, translate
from forge_jobs.storage.postgres.connection import Connection
from forge_jobs.storage.sql.migrations import OLDEST_SERVED, AppliedStep, Migration, lacking, migrations

DEADLINE_MS: Final = 60_000
"""How long a process waits while another one migrates."""
_NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_REMEMBER: Final = f"""
INSERT INTO forge_schema (version, name, checksum, serves, applied_at)
VALUES (CAST(:version AS integer), :name, CAST(:checksum AS text), CAST(:serves AS integer), {_NOW})
"""  # noqa: S608
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended(%(lock)s, 0))"


def known() -> list[Migration]:
    """All steps this program knows, in order."""
    return migrations(PACKAGE)


def schema_text(schema: str) -> str:
    """The complete schema as SQL."""
    steps = "\n".join(step.scripted(_for(step, schema), f"{schema}.schema", _NOW) for step in known())
    return f"CREATE SCHEMA IF NOT EXISTS {schema};\n{_table(schema)};\n\n{steps}"


def plan(connection: Connection, schema: str) -> list[str]:
    """The SQL of the steps that this schema lacks.

    Raises:
        SchemaMismatch: it is newer than this program serves, or a step was changed after it was applied.
    """
    return [_for(step, schema) for step in pending(connection, schema)]


def pending(connection: Connection, schema: str) -> list[Migration]:
    """The steps that this schema lacks. Raises as `plan` does."""
    return not_among(applied(connection, schema))


def not_among(done: list[AppliedStep]) -> list[Migration]:
    """The steps that are to be added to these. Raises as `plan` does."""
    return lacking(known(), done)


def migrate(connection: Connection, schema: str) -> list[Migration]:
    """Bring the schema up to date; the steps applied. An up-to-date one is only read.

    All steps of one call are one transaction under an advisory lock, so of several processes one migrates and the
    others find it done, and a process killed on the way leaves the old schema whole.
    """
    if not pending(connection, schema):
        return []
    connection.command(
        f"BEGIN; SET LOCAL statement_timeout = {DEADLINE_MS}; SET LOCAL lock_timeout = {DEADLINE_MS}; "
        "SET LOCAL idle_in_transaction_session_timeout = 0"
    )
    try:
        connection.raw.execute(_LOCK, {"lock": f"{schema}.migrate"})
        steps = pending(connection, schema)  # another process may have been first
        if steps:
            connection.command(f"CREATE SCHEMA IF NOT EXISTS {schema}; {_table(schema)}", timed=False)
        for step in steps:
            connection.command(_for(step, schema), timed=False)
            connection.raw.execute(
                translate(_REMEMBER, schema),
                {"version": step.version, "name": step.name, "checksum": step.checksum, "serves": OLDEST_SERVED},
            )
        failpoints.hit("migrate.before_commit")
        connection.command("COMMIT")
    except BaseException:
        if not connection.raw.closed:
            connection.command("ROLLBACK")
        raise
    return steps


def applied(connection: Connection, schema: str) -> list[AppliedStep]:
    """What has been applied; nothing if there is no such schema, or nothing of ours in it."""
    # Not by to_regclass: it may answer from what this session remembers of the time before it waited for the lock.
    exists = connection.raw.execute(
        "SELECT FROM pg_catalog.pg_class WHERE relname = 'schema' AND relnamespace ="
        " (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s)",
        {"schema": schema},
    ).fetchone()
    if exists is None:
        return []
    try:
        rows = connection.raw.execute(
            translate("SELECT version, checksum, serves FROM forge_schema ORDER BY version", schema)
        ).fetchall()
    except psycopg.errors.UndefinedColumn as error:
        raise ConfigError(f"the schema {schema} has a table of another program's; choose another schema") from error
    return [AppliedStep(*row) for row in rows]


def _table(schema: str) -> str:
    return (
        f"CREATE TABLE IF NOT EXISTS {schema}.schema (version integer PRIMARY KEY, name text NOT NULL, "
        "checksum text NOT NULL, serves integer NOT NULL, applied_at bigint NOT NULL)"
    )


def _for(step: Migration, schema: str) -> str:
    return re.sub(r"\{schema\}", schema, step.sql)
