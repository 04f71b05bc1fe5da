"""Behind a real PgBouncer in transaction mode everything works, by polling."""

from __future__ import annotations

import logging

import pytest

from forge_jobs import EnqueueRequest, HandlerRegistry, JobCtx, QueueRuntime, RuntimeConfig, open_storage
from forge_jobs.testing.cluster import until
from forge_jobs.testing.postgres import Server

from .starters import StartBouncer

QUICK = RuntimeConfig(heartbeat_s=0.5, stale_s=3.0, reaper_s=0.5, supervisor_s=0.1, poll_ms=50, shutdown_grace_s=0.5)


async def test_jobs_are_enqueued_run_cancelled_and_finished(
    pg15: Server, bouncer: StartBouncer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "forge_jobs")
    database = pg15.new_database()
    handlers = HandlerRegistry()

    @handlers.handler("quick")
    async def quick(ctx: JobCtx) -> None: ...

    @handlers.handler("long")
    async def long(ctx: JobCtx) -> None:
        await ctx.cancel.wait()
        ctx.cancel.raise_if_cancelled()

    async with open_storage(bouncer(pg15.url, pool_size=4).url_through(database)) as storage:
        status = await storage.maintenance.status()
        assert status["pooled"] is True
        runtime = QueueRuntime(storage, handlers, queues=["default"], slots=8, config=QUICK)
        await runtime.start()
        outcomes = await storage.jobs.enqueue_bulk([EnqueueRequest("quick", n, queue="default") for n in range(200)])
        key = EnqueueRequest("long", queue="default", dedupe_key="one", max_attempts=1)
        kept = await storage.jobs.enqueue(key)
        assert (await storage.jobs.enqueue(key)).id == kept.id

        async def all_done() -> bool:
            return (await storage.queues.counts())["default"].done == len(outcomes)

        await until(all_done, within_s=30)

        async def runs() -> bool:
            return (await storage.queues.counts())["default"].in_progress == 1

        await until(runs, within_s=10)
        await storage.jobs.cancel(kept.id)

        async def cancelled() -> bool:
            detail = await storage.jobs.get(kept.id)
            return detail is not None and detail.row.dead_reason == "cancelled"

        await until(cancelled, within_s=10)
        await until(lambda: "poll_mode" in caplog.text, within_s=10)
        assert storage.wakes_proven is False
        await runtime.stop()
    assert caplog.text.count("poll_mode") == 1
    assert "store_error" not in caplog.text
