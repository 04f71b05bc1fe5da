"""Conflicts between transactions are ours to resolve: the same work is tried again, and callers see nothing of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from forge_jobs import EnqueueRequest, HandlerRegistry, JobCtx, QueueRuntime
from forge_jobs.storage.types.finalize import Applied, Failed, FinalizeOutcome, Released
from forge_jobs.storage.types.job import JobStatus
from forge_jobs.testing.cluster import until
from forge_jobs.testing.factories import make_claim, make_failed, make_throttled
from forge_jobs.testing.postgres import Server

from .stage import HEALED_S, QUICK, Stage, loaded, staged

CONFLICTS = ["40001", "40P01", "55P03"]


@pytest.mark.parametrize("sqlstate", CONFLICTS)
async def test_an_enqueue_that_meets_conflicts_is_tried_again(pg15: Server, tmp_path: Path, sqlstate: str) -> None:
    async with staged(tmp_path, pg15.new_store()) as stage, stage.caller() as storage:
        stage.refuse([sqlstate], when="n <= 4", on="INSERT")
        outcome = await storage.jobs.enqueue(EnqueueRequest("brief", queue="default"))
        assert stage.jobs().keys() == {outcome.id}
        assert stage.sql("SELECT last_value FROM refusals") == [(5,)]


@pytest.mark.parametrize(
    "outcome", [make_failed(delay=60), make_throttled(), Released()], ids=lambda one: type(one).__name__
)
@pytest.mark.parametrize("sqlstate", CONFLICTS)
async def test_an_outcome_that_meets_conflicts_is_recorded_as_it_is(
    pg18: Server, tmp_path: Path, sqlstate: str, outcome: FinalizeOutcome
) -> None:
    """A conflict is nobody's fault: it must not end the job."""
    async with staged(tmp_path, pg18.new_store()) as stage, stage.caller() as storage:
        await storage.jobs.enqueue(EnqueueRequest("brief", queue="default"))
        (job,) = (await storage.jobs.claim(make_claim(queue="default", kinds=("brief",)))).jobs
        stage.refuse([sqlstate], when="n <= 3", on="UPDATE")
        settled = await storage.jobs.finalize(job.id, job.fence, outcome)
        assert isinstance(settled, Applied)
        assert settled.status == (JobStatus.FAILED if isinstance(outcome, Failed) else JobStatus.PENDING)
        assert stage.sql("SELECT last_value FROM refusals") == [(4,)]


async def test_a_settlement_in_a_deadlock_is_tried_again_and_applied(pg18: Server, tmp_path: Path) -> None:
    """Two jobs end together; somebody else locks them in the other order, and is more patient."""
    handlers = HandlerRegistry()
    go_on = asyncio.Event()
    runs: list[str] = []

    @handlers.handler("brief")
    async def brief(ctx: JobCtx) -> None:
        runs.append(ctx.job_id)
        await go_on.wait()

    async with staged(tmp_path, pg18.new_store()) as stage, stage.caller() as storage:
        requests = [EnqueueRequest("brief", queue="default") for _ in range(2)]
        first, second = sorted(outcome.id for outcome in await storage.jobs.enqueue_bulk(requests))
        config = replace(QUICK, heartbeat_s=3.0, stale_s=20.0)
        runtime = QueueRuntime(storage, handlers, queues=["default"], slots=2, config=config)
        await runtime.start()
        try:
            await until(lambda: len(runs) == 2, within_s=HEALED_S)
            with psycopg.connect(stage.direct) as other:
                other.execute("SET deadlock_timeout = '60s'")
                lock = "SELECT FROM forge.jobs WHERE id = %s FOR UPDATE"
                other.execute(lock, (second,))
                go_on.set()
                await until(lambda: waits_for_a_lock(stage), within_s=HEALED_S)
                await asyncio.to_thread(other.execute, lock, (first,))
            await stage.settled()
        finally:
            await runtime.stop()
        assert sorted(runs) == [first, second]
        assert {(job.status, job.attempts) for job in stage.jobs().values()} == {("done", 1)}
        assert await until(lambda: deadlocks(stage), within_s=HEALED_S) == 1


@pytest.mark.parametrize("jobs", [300, pytest.param(5_000, marks=pytest.mark.slow)])
async def test_conflicts_at_random_cost_no_job_and_no_second_run(pg15: Server, tmp_path: Path, jobs: int) -> None:
    """One write of a row in thirty fails: claims, settlements, beats and enqueues alike."""
    async with staged(tmp_path, pg15.new_store()) as stage:
        stage.refuse(CONFLICTS, when="random() < 1.0 / 30")
        with stage.workers() as cluster:
            async with loaded(stage) as load:
                await until(lambda: len(load.acknowledged) >= jobs, within_s=jobs / 10)
            await stage.settled()
            assert cluster.stop("worker-0") == 0
        assert load.errors == {}
        stage.account(load)


def waits_for_a_lock(stage: Stage) -> bool:
    """Whether our exchange does."""
    return bool(
        stage.sql(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name = 'forge-jobs/exchange' AND wait_event_type = 'Lock'"
        )
    )


def deadlocks(stage: Stage) -> int:
    """How many the server has resolved in this database."""
    found: int = stage.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")[0][0]
    return found
