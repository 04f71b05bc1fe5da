"""Connections that are awaited: the event loop goes on, a cancel passes through, nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, assert_type

import aiosqlite
import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from forge_jobs import Deduped, Enqueued, EnqueueOutcome, EnqueueRequest, open_storage
from forge_jobs.integrations import aiosqlite as of_aiosqlite
from forge_jobs.integrations import asyncpg as of_asyncpg
from forge_jobs.integrations import psycopg as of_psycopg
from forge_jobs.integrations import sqlalchemy as of_sqlalchemy
from forge_jobs.storage.types.job import JobFilter
from forge_jobs.testing.cluster import until

KEYED = EnqueueRequest("receipt", dedupe_key="k")
WAITS = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@contextlib.asynccontextmanager
async def _by_psycopg(url: str) -> AsyncIterator[tuple[Any, Any]]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        yield connection, of_psycopg


@contextlib.asynccontextmanager
async def _by_asyncpg(url: str) -> AsyncIterator[tuple[Any, Any]]:
    """From a pool, in a transaction begun by a command."""
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool, pool.acquire() as connection:
        await connection.execute("BEGIN")
        connection_of_pool = _Commands(connection)
        yield connection_of_pool, of_asyncpg


class _Commands:
    """A connection of asyncpg's pool that commits and rolls back as the others do."""

    def __init__(self, connection: Any) -> None:
        self.raw = connection

    async def commit(self) -> None:
        await self.raw.execute("COMMIT")

    async def rollback(self) -> None:
        await self.raw.execute("ROLLBACK; BEGIN")


@contextlib.asynccontextmanager
async def _by_a_session(url: str) -> AsyncIterator[tuple[Any, Any]]:
    engine = create_async_engine(url.replace("://", "+asyncpg://", 1))
    async with AsyncSession(engine) as session:
        yield session, of_sqlalchemy
    await engine.dispose()


@pytest.mark.parametrize("opened", [_by_psycopg, _by_asyncpg, _by_a_session])
async def test_the_loop_goes_on_while_one_waits_for_a_key_and_a_cancel_ends_the_wait(
    database: str, opened: Callable[[str], contextlib.AbstractAsyncContextManager[tuple[Any, Any]]]
) -> None:
    async with (
        opened(database) as (first, module),
        opened(database) as (second, _),
        await psycopg.AsyncConnection.connect(database, autocommit=True) as looker,
    ):

        async def waits() -> bool:
            return await (await looker.execute(WAITS)).fetchone() is not None

        def enqueue(target: Any) -> Awaitable[EnqueueOutcome]:
            outcome: Awaitable[EnqueueOutcome] = module.enqueue(getattr(target, "raw", target), KEYED)
            return outcome

        mine = await enqueue(first)
        threads = set(threading.enumerate())
        waiting = asyncio.ensure_future(enqueue(second))
        await until(waits, within_s=20, what="the second waits for the key")  # which needs a loop that goes on
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(waiting, 20)
        await second.rollback()
        assert set(threading.enumerate()) <= threads

        waiting = asyncio.ensure_future(enqueue(second))
        await until(waits, within_s=20, what="it waits again, on the same connection")
        await first.commit()
        answer = await asyncio.wait_for(waiting, 20)
        await second.commit()
    assert isinstance(answer, Deduped)
    assert answer.id == mine.id
    async with open_storage(database, create=False) as storage:
        assert [job.id for job in (await storage.jobs.list_jobs(JobFilter())).items] == [mine.id]


async def test_the_loop_goes_on_while_aiosqlite_waits_for_the_file(file: Path) -> None:
    async with aiosqlite.connect(file, timeout=30) as connection:
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await connection.execute("BEGIN")
            asked = asyncio.Event()
            loop = asyncio.get_running_loop()
            await connection.set_trace_callback(lambda sql: loop.call_soon_threadsafe(asked.set))
            waiting = asyncio.ensure_future(of_aiosqlite.enqueue(connection, KEYED))
            await asyncio.wait_for(asked.wait(), 20)
            other.execute("INSERT INTO orders VALUES (1)")
            other.execute("COMMIT")  # after the first statement of the other: it must wait, not be refused
        outcome = await asyncio.wait_for(waiting, 20)
        await connection.commit()
    async with open_storage(f"sqlite:///{file}", create=False) as storage:
        assert [job.id for job in (await storage.jobs.list_jobs(JobFilter())).items] == [outcome.id]


async def test_what_must_be_awaited_is_awaitable_and_known_to_type_checkers(database: str) -> None:
    with psycopg.connect(database) as blocking:
        now = of_psycopg.enqueue(blocking, EnqueueRequest("receipt"))
        assert_type(now, EnqueueOutcome)
        assert isinstance(now, Enqueued)
    async with await psycopg.AsyncConnection.connect(database) as connection:
        later = of_psycopg.enqueue(connection, EnqueueRequest("receipt"))
        assert_type(later, Awaitable[EnqueueOutcome])
        assert isinstance(await later, Enqueued)
        many = of_psycopg.enqueue_bulk(connection, [EnqueueRequest("receipt")])
        assert_type(many, Awaitable[list[EnqueueOutcome]])
        assert len(await many) == 1
    engine = create_engine(database.replace("://", "+psycopg://", 1))
    with Session(engine) as session:
        outcome = of_sqlalchemy.enqueue(session, EnqueueRequest("receipt"))
        assert_type(outcome, EnqueueOutcome)
        assert isinstance(outcome, Enqueued)
    engine.dispose()
    async with _by_a_session(database) as (awaited, _):
        assert isinstance(awaited, AsyncSession)
        pending = of_sqlalchemy.enqueue(awaited, EnqueueRequest("receipt"))
        assert_type(pending, Awaitable[EnqueueOutcome])
        assert isinstance(await pending, Enqueued)


def test_no_library_is_imported_before_its_module_is() -> None:
    look = (
        "import sys, forge_jobs, forge_jobs.integrations\n"
        "assert not {'sqlalchemy', 'django', 'asyncpg', 'aiosqlite', 'psycopg'} & sys.modules.keys()\n"
        "import forge_jobs.integrations.aiosqlite\n"
        "import forge_jobs.integrations.asyncpg\n"
        "assert not {'sqlalchemy', 'django', 'psycopg'} & sys.modules.keys()\n"
        "sys.modules['asyncpg'] = None\n"
        "import forge_jobs.integrations.sqlalchemy\n"
        "assert not {'django', 'psycopg'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
