"""Somebody else's lock on a row of a running job concerns that job alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg

from forge_jobs import EnqueueRequest, open_storage
from forge_jobs.ids import new_id
from forge_jobs.storage.protocol import ClaimRequest
from forge_jobs.storage.types.process import Claimed, ProcessInfo, ProcessState
from forge_jobs.testing.clock import ManualClock
from forge_jobs.testing.cluster import until
from forge_jobs.testing.postgres import Server
from process.stage import put, when

from .stage import HEALED_S, QUICK, Stage, loaded, staged

CONFIG = replace(QUICK, heartbeat_s=0.5, stale_s=2.5, reaper_s=0.05)
"""Reapers look far more often than owners beat: a row that falls free is seen by them first."""


@contextmanager
def locked_row(database: str, job_id: str) -> Iterator[None]:
    """Somebody holds this job's row."""
    with psycopg.connect(database) as other:
        other.execute("SELECT FROM forge.jobs WHERE id = %s FOR UPDATE", (job_id,))
        yield


async def test_a_beat_goes_past_a_locked_row_and_the_row_waits_for_its_owner_while_that_one_beats(
    database: str,
) -> None:
    clock = ManualClock()
    stale = timedelta(seconds=30)
    async with open_storage(database, clock=clock) as storage:
        await storage.jobs.enqueue_bulk([EnqueueRequest("brief", n, queue="default") for n in range(2)])
        host, slots = new_id(), ("default-0-x", "default-1-x")
        claim = await storage.jobs.claim(ClaimRequest(queue="default", kinds=("brief",), host_id=host, slots=slots))
        held, free = claim.jobs
        info = ProcessInfo(
            host_id=host,
            label="beater",
            host_name="host",
            pid=1,
            version="0",
            queues=("default",),
            kinds=("brief",),
            slots={"default": 2},
            running={slots[0]: held.id, slots[1]: free.id},
            state=ProcessState.RUNNING,
        )
        heart = storage.processes.open_heart(timedelta(seconds=5))
        claims = [Claimed(job.id, job.fence) for job in (held, free)]
        with locked_row(database, held.id):
            for _ in range(4):
                clock.advance(timedelta(seconds=10))
                answer = await asyncio.to_thread(heart.beat, info, claims)
                assert not answer.lost
            assert await storage.jobs.revive_stale(stale) == []
        assert await storage.jobs.revive_stale(stale) == [], "its owner is alive and will beat for it"
        clock.advance(stale)
        assert {revived.job_id for revived in await storage.jobs.revive_stale(stale)} == {held.id, free.id}
        answer = await asyncio.to_thread(heart.beat, info, claims)
        assert answer.lost == set(claims)
        heart.close()


async def test_a_job_whose_row_is_locked_beyond_the_stale_threshold_stays_with_its_owner_and_so_do_all_others(
    pg15: Server, tmp_path: Path
) -> None:
    async with staged(tmp_path, pg15.new_store()) as stage:
        with stage.workers(2, config=CONFIG) as cluster:
            job_id = await put(stage.storage, "brief", 3 * CONFIG.stale_s)
            await when(stage.storage, job_id, "in_progress", within_s=HEALED_S)
            async with loaded(stage) as load:
                load.tried.add(job_id)
                with locked_row(stage.direct, job_id):
                    await silent_for(stage, job_id, CONFIG.stale_s / 2)
                    await stage.busy()
                    await silent_for(stage, job_id, CONFIG.stale_s * 2)
                    await stage.busy()
                await when(stage.storage, job_id, "done", within_s=HEALED_S)
                await stage.busy()
            await stage.settled()
            for name in cluster.names:
                assert "fenced" not in cluster.log(name)
                assert "beat_refused" not in cluster.log(name)
        assert stage.runs()[job_id] == 1
        stage.account(load)


async def silent_for(stage: Stage, job_id: str, seconds: float) -> None:
    """Wait until the job's last beat is that old."""
    silent = "SELECT forge.now_us() - heartbeat_at > %s FROM forge.jobs WHERE id = %s"
    await until(lambda: stage.sql(silent, round(seconds * 1e6), job_id) == [(True,)], within_s=HEALED_S)
