"""Explaining beside very many jobs, and of rows that are damaged; on each backend."""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import psycopg
import pytest
import pytest_asyncio

from forge_jobs import EnqueueRequest, StoreConfig, open_storage
from forge_jobs.storage.protocol import Storage
from forge_jobs.testing.conformance.arrange import add, take
from forge_jobs.testing.conformance.fixtures import Beater
from forge_jobs.testing.factories import KIND, QUEUE, make_process
from forge_jobs.testing.postgres import Server

KINDS: Final = tuple(f"kind-{number}" for number in range(20))
Spoil = Callable[[str], None]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Storage, Spoil]]:
    """A store, and how to run SQL on it behind its back."""
    if request.param == "sqlite":
        path = tmp_path / "jobs.db"

        def spoil_file(sql: str) -> None:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA wal_autocheckpoint=0")
                connection.execute(sql.replace("$table", "forge_jobs"))
                connection.commit()

        async with open_storage(f"sqlite:///{path}") as storage:
            yield storage, spoil_file
        return
    running: Server = request.getfixturevalue("server")
    database = running.new_store()

    def spoil_schema(sql: str) -> None:
        with psycopg.connect(database) as connection:
            connection.execute(sql.replace("$table", "forge.jobs"))

    async with open_storage(database, config=StoreConfig()) as storage:
        yield storage, spoil_schema
    running.drop_database(database)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("payload = '{\"cut off'", "its payload"),
        ("status = 'parked', ready = NULL", "it does not know the status 'parked'"),
    ],
)
async def test_a_row_that_is_damaged_or_of_a_newer_version(
    opened: tuple[Storage, Spoil], damage: str, says: str
) -> None:
    storage, spoil = opened
    job_id = await add(storage)
    spoil(f"UPDATE $table SET {damage}")
    (blocker,) = await storage.jobs.explain(job_id)
    assert blocker.code == "unreadable"
    assert says in blocker.text


@pytest.mark.parametrize(
    "jobs", [20_000, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(1_200)])]
)
async def test_it_answers_within_a_tenth_of_a_second_beside_very_many_jobs(
    opened: tuple[Storage, Spoil], jobs: int
) -> None:
    """Of every place a job can be in: at the end of a long line, due later, waiting alone, running."""
    storage, _ = opened
    for start in range(0, jobs, 10_000):
        await storage.jobs.enqueue_bulk(
            [
                EnqueueRequest(
                    KINDS[number % len(KINDS)],
                    {},
                    queue=QUEUE,
                    priority=number % 3,
                    delay=3_600 if number % 4 == 0 else None,
                )
                for number in range(start, start + 10_000)
            ]
        )
    running = await take(storage, 100, kinds=KINDS)
    last = await add(storage, kind=KINDS[0], priority=9)
    strange = await add(storage, kind=KIND)
    later = await add(storage, kind=KINDS[0], delay=60)
    expected = {last: "behind_others", strange: "kind_unserved", later: "scheduled", running[0].id: "running"}
    with Beater(storage) as beater:
        await beater.beat(make_process(kinds=KINDS, slots={QUEUE: 110}, running={job.id: job.id for job in running}))
        for job_id, code in expected.items():
            spans = []
            for _ in range(5):
                began = time.perf_counter()
                found = await storage.jobs.explain(job_id)
                spans.append(time.perf_counter() - began)
            assert code in {str(one.code) for one in found}, found
            assert statistics.median(spans) < 0.1, (code, spans)
        spans = []
        for _ in range(3):
            began = time.perf_counter()
            await storage.queues.explain(QUEUE)
            spans.append(time.perf_counter() - began)
        assert min(spans) < 0.5, spans
