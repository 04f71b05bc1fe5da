"""What the hot path costs on a server: heartbeats touch no index."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import psycopg

from forge_jobs import EnqueueRequest, open_storage
from forge_jobs.ids import new_id
from forge_jobs.storage.protocol import ClaimRequest
from forge_jobs.storage.types.process import Claimed, ProcessInfo, ProcessState
from forge_jobs.testing.cluster import until

JOBS, BEATS = 50, 20


def updates(database: str) -> tuple[int, int]:
    """How many rows of jobs were updated, and how many of these within their page and no index."""
    with psycopg.connect(database, autocommit=True) as look:
        row = look.execute(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE schemaname = 'forge' AND relname = 'jobs'"
        ).fetchone()
    assert row is not None
    return row[0], row[1]


async def test_a_heartbeat_touches_no_index(database: str) -> None:
    async with open_storage(database) as storage:
        await storage.jobs.enqueue_bulk([EnqueueRequest("brief", n, queue="default") for n in range(JOBS)])
        host = new_id()
        slots = tuple(f"default-{n}-x" for n in range(JOBS))
        claim = await storage.jobs.claim(ClaimRequest(queue="default", kinds=("brief",), host_id=host, slots=slots))
    await until(lambda: updates(database)[0] == JOBS, within_s=15)
    _, hot_before = updates(database)
    async with open_storage(database) as storage:
        info = ProcessInfo(
            host_id=host,
            label="beater",
            host_name="host",
            pid=1,
            version="0",
            queues=("default",),
            kinds=("brief",),
            slots={},
            running={},
            state=ProcessState.RUNNING,
        )
        heart = storage.processes.open_heart(timedelta(seconds=5))
        claims = [Claimed(job.id, job.fence) for job in claim.jobs]
        for _ in range(BEATS):
            answer = await asyncio.to_thread(heart.beat, info, claims)
            assert not answer.lost
        heart.close()
    await until(lambda: updates(database)[0] == JOBS * (BEATS + 1), within_s=15)
    assert updates(database)[1] - hot_before >= JOBS * BEATS * 0.9, "all but those that found no room in their page"
