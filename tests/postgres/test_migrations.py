"""The schema on a server: made once, checked at every opening, refused when this program does not fit it."""

from __future__ import annotations

import logging
from contextlib import closing
from typing import Any

import psycopg
import pytest

from forge_jobs import (
    ConfigError,
    EnqueueRequest,
    SchemaMismatch,
    StoreConfig,
    StoreUnavailable,
    failpoints,
    open_storage,
)
from forge_jobs.storage.open import migrate, schema_sql
from forge_jobs.storage.postgres.migrate import known, schema_text
from forge_jobs.storage.types.job import JobFilter

NEWEST = known()[-1].version
PLAIN = StoreConfig()


async def make(database: str, config: StoreConfig = PLAIN, *, create: bool = True) -> None:
    async with open_storage(database, config=config, create=create) as storage:
        await storage.jobs.enqueue(EnqueueRequest("brief", queue="default"))


def change(database: str, sql: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(psycopg.connect(database, autocommit=True)) as connection:
        cursor = connection.execute(sql.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def steps(database: str) -> list[int]:
    return [version for (version,) in change(database, "SELECT version FROM forge.schema ORDER BY version")]


def relations(database: str) -> int:
    """How much of ours is there."""
    [(count,)] = change(database, "SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('forge')")
    return int(count)


@pytest.fixture
def of_the_first_version(database: str) -> str:
    """A store as the first version of the schema had it."""
    first = known()[0]
    before_the_first, _, _ = schema_text("forge").partition(first.sql.replace("{schema}", "forge").rstrip())
    change(database, before_the_first + first.scripted(first.sql.replace("{schema}", "forge"), "forge.schema", "0"))
    return database


async def test_a_step_that_was_changed_after_it_was_applied_is_refused(database: str) -> None:
    await make(database)
    change(database, "UPDATE forge.schema SET checksum = 'another' WHERE version = 1")
    with pytest.raises(SchemaMismatch, match="migration 1"):
        await make(database)


async def test_a_schema_that_needs_a_newer_program_is_refused_with_both_versions_and_what_to_do(database: str) -> None:
    await make(database)
    change(database, "INSERT INTO forge.schema VALUES (%s, 'future', 'c', %s, 0)", NEWEST + 8, NEWEST + 7)
    with pytest.raises(SchemaMismatch) as refused:
        await make(database)
    message = str(refused.value)
    assert f"version {NEWEST + 8}" in message
    assert f"version {NEWEST + 7}; this one knows {NEWEST}" in message
    assert message.endswith("Upgrade forge-jobs")
    assert "\n" not in message


async def test_a_newer_schema_that_still_serves_this_program_is_used(database: str) -> None:
    await make(database)
    change(database, "INSERT INTO forge.schema VALUES (%s, 'additive', 'c', %s, 0)", NEWEST + 1, NEWEST)
    change(database, "ALTER TABLE forge.jobs ADD COLUMN of_the_future text")
    await make(database)


async def test_a_failed_migration_leaves_nothing_behind_and_a_rerun_completes(database: str) -> None:
    failpoints.arm("migrate.before_commit", "error")
    try:
        with pytest.raises(StoreUnavailable, match="failpoint"):
            await make(database)
    finally:
        failpoints.disarm()
    assert relations(database) == 0
    await make(database)
    assert steps(database) == [step.version for step in known()]


async def test_an_older_schema_is_left_alone_and_the_error_says_which_command_migrates_it(
    of_the_first_version: str,
) -> None:
    with pytest.raises(SchemaMismatch, match=rf"lacks {NEWEST - 1} migrations?; `forge-jobs db migrate`"):
        await make(of_the_first_version)
    assert steps(of_the_first_version) == [1]


async def test_an_older_schema_is_brought_up_to_date_where_that_is_allowed(
    of_the_first_version: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "forge_jobs")
    allowed = StoreConfig(auto_migrate=True)
    with pytest.raises(SchemaMismatch):
        await make(of_the_first_version, allowed, create=False)
    await make(of_the_first_version, allowed)
    assert steps(of_the_first_version) == [step.version for step in known()]
    assert caplog.text.count("migrated version=") == NEWEST - 1


async def test_an_empty_database_is_filled_unless_it_is_only_to_be_looked_at(database: str) -> None:
    with pytest.raises(SchemaMismatch, match="`forge-jobs db create`"):
        await make(database, create=False)
    assert relations(database) == 0


async def test_opening_an_up_to_date_store_writes_nothing(database: str) -> None:
    """No transaction of it gets a number, which the server gives to each that writes."""
    await make(database)
    with closing(psycopg.connect(database, autocommit=True)) as look:

        def numbers() -> Any:
            return look.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())").fetchone()

        before = numbers()
        async with open_storage(database):
            pass
        assert numbers() == before
        async with open_storage(database) as storage:
            await storage.jobs.enqueue(EnqueueRequest("brief", queue="default"))
        assert numbers() != before, "a write would have been seen"


async def test_the_plan_of_a_migration_changes_nothing(database: str) -> None:
    planned = await migrate(database, plan=True)
    assert relations(database) == 0
    assert len(planned) == len(known())
    assert await migrate(database) == planned
    assert await migrate(database) == []


async def test_the_printed_schema_is_the_one_that_is_made_and_is_used_as_it_is(database: str) -> None:
    columns = (
        "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns"
        " WHERE table_schema = 'forge' ORDER BY 1, ordinal_position"
    )
    change(database, schema_sql(database))
    by_hand = change(database, columns)
    assert await migrate(database) == []
    await make(database, create=False)
    change(database, "DROP SCHEMA forge CASCADE")
    await make(database)
    assert change(database, columns) == by_hand


async def test_a_schema_of_another_program_is_refused_and_not_touched(database: str) -> None:
    change(database, "CREATE SCHEMA forge")
    change(database, "CREATE TABLE forge.jobs (id integer)")
    with pytest.raises(SchemaMismatch, match="give another `schema`"):
        await make(database)
    change(database, "CREATE TABLE forge.schema (theirs integer)")
    with pytest.raises(ConfigError, match="choose another schema"):
        await make(database)
    assert relations(database) == 2
    await make(database, StoreConfig(schema="ours"))


async def test_two_schemas_of_one_database_are_two_stores(database: str) -> None:
    for schema in ("one", "two"):
        await make(database, StoreConfig(schema=schema))
    for schema in ("one", "two"):
        async with open_storage(database, config=StoreConfig(schema=schema)) as storage:
            assert await storage.jobs.count(JobFilter()) == {"pending": 1}
