"""The server did what it was asked, and the connection broke before it said so."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from forge_jobs import (
    EnqueueRequest,
    Failed,
    HandlerRegistry,
    JobCtx,
    OutcomeUnknown,
    QueueRuntime,
    Storage,
)
from forge_jobs.ids import JobId, new_id
from forge_jobs.storage.protocol import ClaimRequest
from forge_jobs.storage.types.job import Enqueued, JobFilter
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.cluster import until
from forge_jobs.testing.fault_proxy import FaultProxy
from forge_jobs.testing.postgres import Server

from .stage import HEALED_S, QUICK, Stage, loaded, staged

CLAIM = b'"slots":["'
"""A word of every claim on the wire."""
SLOW_HEART = replace(QUICK, heartbeat_s=1.0, stale_s=20.0, supervisor_s=60.0)


@asynccontextmanager
async def beyond(folder: Path, server: Server) -> AsyncIterator[tuple[Stage, FaultProxy]]:
    """A stage whose workers and callers come through a proxy."""
    with FaultProxy(server.url) as proxy:
        async with staged(folder, server.new_store(), through=proxy.url_through) as stage:
            yield stage, proxy


@asynccontextmanager
async def working(storage: Storage, handlers: HandlerRegistry, *, slots: int = 1) -> AsyncIterator[QueueRuntime]:
    """A worker in this process, whose heart and supervisor say little."""
    runtime = QueueRuntime(storage, handlers, queues=["default"], slots=slots, config=SLOW_HEART)
    await runtime.start()
    try:
        yield runtime
    finally:
        await runtime.stop()


async def put(stage: Stage, kind: str) -> JobId:
    return (await stage.storage.jobs.enqueue(EnqueueRequest(kind, queue="default"))).id


async def swallowed(proxy: FaultProxy, count: int = 1) -> None:
    await until(lambda: proxy.traffic.swallowed == count, within_s=HEALED_S, what=f"{count} answers swallowed")


async def done(stage: Stage, job_id: str) -> None:
    await until(lambda: stage.jobs()[job_id].status == "done", within_s=HEALED_S, what="the job done")


async def test_an_enqueue_whose_commit_was_not_answered_is_sent_again_and_there_once(
    pg18: Server, tmp_path: Path
) -> None:
    async with beyond(tmp_path, pg18) as (stage, proxy), stage.caller() as storage:
        proxy.swallow_answer_after(b"COMMIT")
        outcome = await storage.jobs.enqueue(EnqueueRequest("brief", queue="default", dedupe_key="one"))
        assert isinstance(outcome, Enqueued), "not taken for a duplicate of itself"
        assert proxy.traffic.swallowed == 1
        assert stage.jobs().keys() == {outcome.id}


async def test_an_enqueue_that_cannot_be_sent_again_in_time_is_of_unknown_outcome_and_may_be_repeated(
    pg15: Server, tmp_path: Path
) -> None:
    async with beyond(tmp_path, pg15) as (stage, proxy), stage.caller(1.0) as storage:
        first = await storage.jobs.enqueue(EnqueueRequest("brief", queue="default"))  # makes the connection
        request = EnqueueRequest("brief", queue="default", id=new_id())
        proxy.swallow_answer_after(b"COMMIT")
        proxy.refuse()
        with pytest.raises(OutcomeUnknown) as caught:
            await storage.jobs.enqueue(request)
        assert caught.value.ids == (request.id,)
        assert stage.jobs().keys() == {first.id, request.id}
        proxy.accept()
        assert (await storage.jobs.enqueue(request)).id == request.id
        assert stage.jobs().keys() == {first.id, request.id}


async def test_nothing_written_is_never_said_of_an_enqueue_whose_first_try_may_have_been_committed(
    pg18: Server, tmp_path: Path
) -> None:
    """The later tries meet conflicts for as long as the call may last."""
    async with beyond(tmp_path, pg18) as (stage, proxy), stage.caller(2.0) as storage:
        first = await storage.jobs.enqueue(EnqueueRequest("brief", queue="default"))  # makes the connection
        request = EnqueueRequest("brief", queue="default", id=new_id())
        proxy.swallow_answer_after(b"COMMIT")
        proxy.refuse()
        answer = asyncio.ensure_future(storage.jobs.enqueue(request))
        await swallowed(proxy)
        stage.refuse(["40001"], when="TRUE")
        proxy.accept()
        with pytest.raises(OutcomeUnknown):
            await answer
        assert stage.jobs().keys() == {first.id, request.id}


async def test_a_claim_whose_answer_was_lost_is_found_and_its_jobs_are_run_once(pg15: Server, tmp_path: Path) -> None:
    handlers = HandlerRegistry()
    runs: list[tuple[str, int]] = []

    @handlers.handler("brief")
    async def brief(ctx: JobCtx) -> None:
        runs.append((ctx.job_id, ctx.fence))

    async with beyond(tmp_path, pg15) as (stage, proxy), stage.caller() as storage:
        ids = [await put(stage, "brief") for _ in range(3)]
        proxy.swallow_answer_after(CLAIM)
        async with working(storage, handlers, slots=3):
            await stage.settled()
        assert proxy.traffic.swallowed == 1
        assert sorted(job_id for job_id, _ in runs) == ids, "each ran once"
        assert 2 in {fence for _, fence in runs}, "what the lost answer held ran under its second claim"
        assert {(job.attempts, job.crashes) for job in stage.jobs().values()} == {(1, 0)}


async def test_a_claim_that_nobody_knows_is_found_while_exchanges_follow_each_other_without_a_break(
    pg18: Server, tmp_path: Path
) -> None:
    handlers = HandlerRegistry()

    @handlers.handler("brief")
    async def brief(ctx: JobCtx) -> None:
        await asyncio.sleep(random.uniform(0, 0.01))

    async with staged(tmp_path, pg18.new_store()) as stage, stage.caller() as storage:
        await stage.storage.jobs.enqueue_bulk([EnqueueRequest("brief", n, queue="default") for n in range(10_000)])
        lost = await put(stage, "elsewhere")
        async with working(storage, handlers, slots=30) as runtime:
            health = runtime.env.health
            claim = await stage.storage.jobs.claim(
                ClaimRequest(queue="default", kinds=("elsewhere",), host_id=runtime.host_id, slots=("default-9-x",))
            )
            assert [job.id for job in claim.jobs] == [lost]
            beats = health.beats
            await until(lambda: stage.jobs()[lost].status == "pending", within_s=HEALED_S, what="the claim given back")
            assert health.beats - beats <= 3, "one may have been on its way already"
            left = await stage.storage.jobs.count(JobFilter(kinds=("brief",), statuses=("pending",)))
            assert left.get("pending", 0) > 100, "the worker was never idle"
        assert (stage.jobs()[lost].attempts, stage.jobs()[lost].crashes) == (0, 0)


async def test_an_exchange_whose_answer_was_lost_settles_once_and_finds_what_it_claimed(
    pg18: Server, tmp_path: Path
) -> None:
    handlers = HandlerRegistry()
    runs: list[tuple[str, int]] = []
    async with beyond(tmp_path, pg18) as (stage, proxy), stage.caller() as storage:

        @handlers.handler("brief")
        async def brief(ctx: JobCtx) -> None:
            if not runs:
                proxy.swallow_answer_after(CLAIM)  # the only slot is busy, so the next claim tells of this job's end
            runs.append((ctx.job_id, ctx.fence))

        first, second = [await put(stage, "brief") for _ in range(2)]
        async with working(storage, handlers):
            await done(stage, second)
        assert proxy.traffic.swallowed == 1
        assert runs == [(first, 1), (second, 2)]
        assert {(job.attempts, job.crashes) for job in stage.jobs().values()} == {(1, 0)}


async def test_a_failure_whose_commit_was_not_answered_is_recorded_once(pg15: Server, tmp_path: Path) -> None:
    handlers = HandlerRegistry()
    runs: list[int] = []
    async with beyond(tmp_path, pg15) as (stage, proxy), stage.caller() as storage:

        @handlers.handler("brief")
        async def brief(ctx: JobCtx) -> Failed | None:
            runs.append(ctx.fence)
            if len(runs) > 1:
                return None
            proxy.swallow_answer_after(b"COMMIT", following=ctx.job_id.encode())
            return Failed("once")

        await stage.storage.queues.ensure("default", QueueChange(backoff_base_s=1))
        job_id = await put(stage, "brief")
        async with working(storage, handlers):
            await done(stage, job_id)
        assert proxy.traffic.swallowed == 1
        detail = await stage.storage.jobs.get(job_id)
        assert detail is not None
        assert (runs, detail.row.attempts, [entry.message for entry in detail.history]) == ([1, 2], 2, ["once"])


async def test_a_handlers_transaction_whose_commit_was_not_answered_happened_once(pg18: Server, tmp_path: Path) -> None:
    handlers = HandlerRegistry()
    told: list[OutcomeUnknown] = []
    async with beyond(tmp_path, pg18) as (stage, proxy), stage.caller() as storage:
        stage.sql("CREATE TABLE notes (job text, fence bigint)")

        @handlers.handler("pay")
        async def pay(ctx: JobCtx) -> None:
            proxy.swallow_answer_after(b"COMMIT", following=b"notes")
            try:
                async with ctx.transaction() as tx:
                    await tx.execute("INSERT INTO notes VALUES (%s, %s)", (ctx.job_id, ctx.fence))
                    await tx.enqueue(EnqueueRequest("mail", queue="later"))
            except OutcomeUnknown as error:
                told.append(error)
                raise

        job_id = await put(stage, "pay")
        async with working(storage, handlers):
            await done(stage, job_id)
            await until(lambda: told, within_s=HEALED_S)
        assert proxy.traffic.swallowed == 1
        assert stage.sql("SELECT * FROM notes") == [(job_id, 1)]
        statuses = sorted((job.status, job.attempts) for job in stage.jobs().values())
        assert statuses == [("done", 1), ("pending", 0)], "the failure that the handler saw did not undo the commit"


@pytest.mark.parametrize("answers", [15, pytest.param(200, marks=pytest.mark.slow)])
async def test_answers_lost_under_load_cost_no_job_and_no_second_run(
    pg15: Server, tmp_path: Path, answers: int
) -> None:
    async with beyond(tmp_path, pg15) as (stage, proxy):
        with stage.workers() as cluster:
            async with loaded(stage) as load:
                for number in range(1, answers + 1):
                    proxy.swallow_answer_after(random.choice([b"COMMIT", CLAIM]))
                    await swallowed(proxy, number)
                    await stage.busy(3)
            await stage.settled()
            assert cluster.stop("worker-0") == 0
        assert load.errors == {}
        stage.account(load)
