"""Worker processes on a PostgreSQL server: what a file cannot show."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from forge_jobs import EnqueueRequest, RuntimeConfig, Storage, open_storage
from forge_jobs.storage.postgres.migrate import known
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.cluster import Cluster, until
from forge_jobs.testing.postgres import Server

from .stage import QUICK, Stage, all_finished, put, read, rows, when
from .worker_main import CLOCK_AHEAD

PATIENT = replace(QUICK, stale_s=30)
"""A wait for a lock of a table costs nobody its jobs."""
SLACK_S = 1.0
"""What a loaded machine may add."""
LATE_S = 5.0
OF_THE_WORKER = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'forge-jobs/%'
"""
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
            await more_ended(on_postgresql, 50)
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


# A cluster


async def test_a_cancel_reaches_a_handler_of_another_process_within_a_heartbeat(on_postgresql: Stage) -> None:
    config = replace(QUICK, heartbeat_s=0.5, stale_s=30, poll_ms=30_000)
    async with open_storage(on_postgresql.url) as storage:
        with on_postgresql.cluster(2, slots=2, config=config) as cluster:
            await all_started(cluster)
            ids = [await put(storage, "long", 60) for _ in range(4)]
            for job_id in ids:
                await when(storage, job_id, "in_progress", within_s=20)
            cancelled = time.monotonic()
            for job_id in ids[:2]:
                await storage.jobs.cancel(job_id)
            told = await until(lambda: on_postgresql.read("told")[1:], within_s=20)
            assert told[-1].at - cancelled < config.heartbeat_s * 1.1 + SLACK_S
            assert {(entry.job, entry.note) for entry in on_postgresql.read("told")} == {(n, "user") for n in ids[:2]}
            for job_id in ids[2:]:
                assert (await read(storage, job_id)).row.status == "in_progress", "the others go on"


async def test_after_a_pause_has_returned_no_claim_succeeds_and_no_attempt_is_burnt(on_postgresql: Stage) -> None:
    config = replace(PATIENT, heartbeat_s=0.5, poll_ms=20)
    claimed_later = "SELECT count(*) FROM forge.jobs WHERE started_at > %s"
    async with open_storage(on_postgresql.url) as storage, fed(storage) as stream:
        with on_postgresql.cluster(2, slots=4, config=config) as cluster:
            await all_started(cluster)
            for pauses in (1, 2, 3):
                await more_ended(on_postgresql, 30)
                heeding = await put(storage, "heeding", priority=0)
                await when(storage, heeding, "in_progress", within_s=20)
                assert await storage.queues.pause("default")
                [(paused_us,)] = await in_database(on_postgresql.url, "SELECT forge.now_us()")
                released = await when(storage, heeding, "pending", within_s=20)
                assert (released.row.attempts, released.row.crashes) == (0, 0)
                cluster.start()  # a program that learns of the pause from the store
                await all_started(cluster)
                await stream.more(50)
                assert await in_database(on_postgresql.url, claimed_later, paused_us) == [(0,)]
                assert len(on_postgresql.read("told")) == pauses
                assert await storage.queues.resume("default")
            stream.end()
            assert await all_finished(storage, within_s=20) == {"done": stream.count + 3}
    assert {entry.note for entry in on_postgresql.read("told")} == {"pause"}
    assert await in_database(on_postgresql.url, "SELECT DISTINCT attempts, crashes FROM forge.jobs") == [(1, 0)]


async def test_hosts_whose_clocks_are_minutes_off_work_as_all_others(on_postgresql: Stage) -> None:
    """One is five minutes ahead, one as much behind, one right; the server's clock decides."""
    config = replace(QUICK, stale_s=2.0, rebalance_s=0.2, lease_ttl_s=1.0)
    async with open_storage(on_postgresql.url) as storage:
        await storage.queues.ensure("default", QueueChange(max_workers=6))
        with on_postgresql.cluster(1, slots=6, config=config) as cluster:
            for ahead_s in (300, -300):
                name = cluster.start(environment={CLOCK_AHEAD: str(ahead_s)})
                await all_started(cluster)
                assert f"ahead_s={ahead_s}" in cluster.log(name)

            async def shared() -> bool:
                return sorted(row.open for row in await storage.shares.list()) == [2, 2, 2]

            await until(shared, within_s=20, what="each has its share")
            running = [await put(storage, payload=5.0) for _ in range(3)]  # longer than silence is allowed to be
            asked = time.monotonic()
            delayed = [await put(storage, delay=1.5) for _ in range(30)]
            for job_id in (*running, *delayed):
                await when(storage, job_id, "done", within_s=30)
            starts = {entry.job: entry.at for entry in on_postgresql.read("start")}
            assert min(starts[job_id] for job_id in delayed) >= asked + 1.5, "never early"
            assert max(starts[job_id] for job_id in delayed) < asked + 1.5 + LATE_S
            assert len({entry.pid for entry in on_postgresql.read("start")}) == 3, "all had a part"
            assert await shared()
            leases = await storage.leases.list()
            assert "rebalance" in {lease.name for lease in leases}
            assert max(lease.token for lease in leases) == 1, "nobody took a lease that was held"
            assert [row.crashes for row in (await rows(storage)).values()] == [0] * 33
            assert set(on_postgresql.runs().values()) == {1}

            stuck = [await put(storage, "long", 30) for _ in range(6)]  # their second run ends at once
            for job_id in stuck:
                await when(storage, job_id, "in_progress", within_s=20)
            for name in cluster.names[1:]:
                cluster.kill(name)
            again = await until(
                lambda: {e.job for e in on_postgresql.read("start") if e.job in stuck and e.fence > 1}, within_s=20
            )
            assert again, "what the two left is run by the one that is right"
            live = [row.info.label for row in await storage.processes.list(config.stale_after) if row.live]
            assert live == ["worker-0"]


async def test_a_process_with_two_hundred_slots_holds_as_few_connections_as_any(on_postgresql: Stage) -> None:
    looks: list[int] = []
    async with open_storage(on_postgresql.url) as storage:
        documented = (await storage.maintenance.status())["connections_of_a_process"]
        requests = [EnqueueRequest("brief", 0.05, queue="default") for _ in range(2_000)]
        await storage.jobs.enqueue_bulk(requests)
    with on_postgresql.cluster(1, slots=200, config=RuntimeConfig()) as cluster:
        while len(on_postgresql.read("end")) < len(requests):
            [(count,)] = await in_database(on_postgresql.url, OF_THE_WORKER)
            looks.append(count)
            assert cluster.exit_status("worker-0") is None
            await asyncio.sleep(0.02)
    assert max_at_once(on_postgresql) > 50, "many slots were at work"
    assert 1 < max(looks) <= documented == 6


def max_at_once(stage: Stage) -> int:
    """Most runs that were under way at the same time."""
    running = most = 0
    for entry in stage.read("start", "end"):
        running += 1 if entry.what == "start" else -1
        most = max(most, running)
    return most


async def all_started(cluster: Cluster) -> None:
    await until(lambda: all("worker_started" in cluster.log(name) for name in cluster.names), within_s=20)


async def more_ended(stage: Stage, runs: int) -> None:
    """Wait until so many more jobs have ended."""
    goal = len(stage.read("end")) + runs
    await until(lambda: len(stage.read("end")) >= goal, within_s=20, what=f"{runs} more jobs ended")


class Fed:
    """Jobs that are enqueued one after the other until it ends."""

    def __init__(self) -> None:
        self.count = 0
        self.ended = False

    def end(self) -> None:
        self.ended = True

    async def more(self, jobs: int) -> None:
        """Wait until so many more jobs were enqueued."""
        goal = self.count + jobs
        await until(lambda: self.count >= goal, within_s=20, what=f"{jobs} more jobs enqueued")


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
