"""The schema: made once, checked at every opening, refused when this program does not fit it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from forge_jobs import EnqueueRequest, SchemaMismatch, failpoints, open_storage
from forge_jobs.storage.open import migrate, schema_sql
from forge_jobs.storage.sqlite.connection import connect
from forge_jobs.storage.sqlite.migrate import migrations


def url(database: Path) -> str:
    return f"sqlite:///{database}"


async def make(database: Path) -> None:
    async with open_storage(url(database)) as storage:
        await storage.jobs.enqueue(EnqueueRequest("brief", queue="default"))


def change(database: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(sql, values)


async def test_a_step_that_was_changed_after_it_was_applied_is_refused(database: Path) -> None:
    await make(database)
    change(database, "UPDATE forge_schema SET checksum = 'another' WHERE version = 1")
    with pytest.raises(SchemaMismatch, match="migration 1"):
        await make(database)


async def test_a_schema_that_needs_a_newer_program_is_refused_with_both_versions(database: Path) -> None:
    await make(database)
    known = migrations()[-1].version
    change(database, "INSERT INTO forge_schema VALUES (?, 'future', 'c', ?, 0)", known + 8, known + 7)
    with pytest.raises(SchemaMismatch) as refused:
        await make(database)
    message = str(refused.value)
    assert f"version {known + 8}" in message
    assert f"knows {known}" in message


async def test_a_newer_schema_that_still_serves_this_program_is_used(database: Path) -> None:
    await make(database)
    known = migrations()[-1].version
    change(database, "INSERT INTO forge_schema VALUES (?, 'additive', 'c', ?, 0)", known + 1, known)
    change(database, "ALTER TABLE forge_jobs ADD COLUMN of_the_future TEXT")
    await make(database)


async def test_a_failed_step_leaves_nothing_behind_and_a_rerun_completes(database: Path) -> None:
    failpoints.arm("migrate.before_commit", "error")
    try:
        with pytest.raises(failpoints.FailpointError):
            await make(database)
    finally:
        failpoints.disarm()
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    await make(database)


async def test_opening_an_up_to_date_store_writes_nothing(database: Path) -> None:
    await make(database)
    with closing(connect(database)) as watch:
        before = watch.execute("PRAGMA data_version").fetchone()
        async with open_storage(url(database)):
            pass
        assert watch.execute("PRAGMA data_version").fetchone() == before


async def test_the_plan_of_a_migration_changes_nothing(database: Path) -> None:
    planned = await migrate(url(database), plan=True)
    assert not database.exists()
    assert await migrate(url(database)) == planned
    assert await migrate(url(database)) == []


async def test_the_printed_schema_is_the_one_that_is_made_and_is_used_as_it_is(database: Path, tmp_path: Path) -> None:
    schema = "SELECT name, sql FROM sqlite_master ORDER BY name"
    with closing(sqlite3.connect(database)) as by_hand:
        by_hand.executescript(schema_sql(url(database)))
        printed = by_hand.execute(schema).fetchall()
    assert await migrate(url(database)) == []
    await make(database)
    made = tmp_path / "made.db"
    await make(made)
    with closing(sqlite3.connect(made)) as connection:
        assert connection.execute(schema).fetchall() == printed
