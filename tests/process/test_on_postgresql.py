"""Worker processes on a PostgreSQL server: what a file cannot show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from forge_jobs import Storage, open_storage
from forge_jobs.storage.postgres.migrate import known
from forge_jobs.testing.cluster import Cluster, until
from forge_jobs.testing.postgres import Server

from .stage import QUICK, Stage, all_finished, put

PATIENT = replace(QUICK, stale_s=30)
"""A wait for a lock of a table costs nobody its jobs."""
NEWEST = known()[-1].version


async def in_database(url: str, sql: str, *values: object) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(sql.encode(), values or None)
        return await cursor.fetchall() if cursor.description else []


# Migrations


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
async def test_ten_processes_that_start_together_on_an_empty_database_are_all_healthy(
    server: Server, tmp_path: Any, rounds: int
) -> None:
    stage = Stage(tmp_path)
    for _ in range(rounds):
        stage.url = server.new_database()
        failed, said = await stage.act("migrate_together", 10)
        assert (failed, [word for word, *_ in said]) == (0, ["ready"] * 10)
        assert max(float(took) for _, _, took in said) < 5
        steps = await in_database(stage.url, "SELECT version, count(*) FROM forge.schema GROUP BY 1 ORDER BY 1")
        assert steps == [(step.version, 1) for step in known()], "each step was applied once"
        assert await in_database(stage.url, "SELECT count(*) FROM forge.jobs") == [(10,)]
        server.drop_database(stage.url)


async def test_a_process_killed_in_the_middle_of_a_migration_leaves_it_to_the_next(on_postgresql: Stage) -> None:
    status, _ = await on_postgresql.act("migrate", failpoints="migrate.before_commit=kill")
    assert status == -9
    assert await in_database(on_postgresql.url, "SELECT to_regnamespace('forge')::text") == [(None,)]
    status, [[word, version, _]] = await on_postgresql.act("migrate")
    assert (status, word, int(version)) == (0, "ready", NEWEST)


async def test_workers_under_load_go_on_while_a_migration_adds_to_their_tables(on_postgresql: Stage) -> None:
    additive = [
        "ALTER TABLE forge.jobs ADD COLUMN of_the_future text, ADD COLUMN another integer NOT NULL DEFAULT 7",
        "ALTER TABLE forge.queues ADD COLUMN of_the_future text",
        "ALTER TABLE forge.processes ADD COLUMN of_the_future text",
        "CREATE INDEX jobs_of_the_future ON forge.jobs (of_the_future)",
        f"INSERT INTO forge.schema VALUES ({NEWEST + 1}, 'additive', 'c', {NEWEST}, 0)",
    ]
    async with open_storage(on_postgresql.url) as storage, fed(storage) as ids:
        with on_postgresql.cluster(2, config=PATIENT) as cluster:
            await all_started(cluster)
            await until(lambda: len(on_postgresql.read("end")) > 50, within_s=20)
            for step in additive:
                await in_database(on_postgresql.url, step)
            before = len(on_postgresql.read("end"))
            await until(lambda: len(on_postgresql.read("end")) > before + 50, within_s=20)
            cluster.start()  # a program of the older version, on the newer schema
            await all_started(cluster)
            for name in cluster.names:
                assert "ERROR" not in cluster.log(name)
                assert cluster.exit_status(name) is None
            ids.end()
            assert await all_finished(storage, within_s=20) == {"done": ids.count}
    assert set(on_postgresql.runs().values()) == {1}


async def all_started(cluster: Cluster) -> None:
    await until(lambda: all("worker_started" in cluster.log(name) for name in cluster.names), within_s=20)


class Fed:
    """Jobs that are enqueued one after the other until it ends."""

    def __init__(self) -> None:
        self.count = 0
        self.ended = False

    def end(self) -> None:
        self.ended = True


@asynccontextmanager
async def fed(storage: Storage) -> AsyncIterator[Fed]:
    """A stream of jobs, for as long as the block runs or until it is ended."""
    stream = Fed()

    async def feed() -> None:
        while not stream.ended:
            await put(storage)
            stream.count += 1
            await asyncio.sleep(0.005)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(feed())
        try:
            yield stream
        finally:
            stream.end()
