"""Behind a real PgBouncer in transaction mode everything works, by polling."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import psycopg
import pytest

from forge_jobs import (
    Deduped,
    EnqueueRequest,
    HandlerRegistry,
    JobCtx,
    QueueRuntime,
    RuntimeConfig,
    StoreConfig,
    SyncQueue,
    open_storage,
)
from forge_jobs.storage.types.job import JobFilter
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


def at_least(found: set[str], count: int) -> bool:
    return len(found) >= count


@pytest.fixture
def pooled(pg15: Server, bouncer: StartBouncer) -> Iterator[tuple[str, str]]:
    """A database by way of a pooler that has two connections to it, and directly."""
    database = pg15.new_database()
    yield bouncer(pg15.url, pool_size=2).url_through(database), database
    pg15.drop_database(database)


async def test_a_direct_connection_for_the_listener_brings_the_wake_ups_back(
    pooled: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    url, direct = pooled
    config = StoreConfig(listen_url=direct)
    started: set[str] = set()
    handlers = HandlerRegistry()

    @handlers.handler("brief")
    async def brief(ctx: JobCtx) -> None:
        started.add(ctx.job_id)

    async with open_storage(url, config=config) as storage, open_storage(url, config=config) as elsewhere:
        runtime = QueueRuntime(storage, handlers, queues=["default"], slots=2, config=replace(QUICK, poll_ms=30_000))
        await runtime.start()
        await until(lambda: storage.wakes_proven, within_s=10)
        for count in (1, 2, 3):
            await elsewhere.jobs.enqueue(EnqueueRequest("brief", queue="default"))
            await until(partial(at_least, started, count), within_s=5)
        status = await storage.maintenance.status()
        assert (status["pooled"], status["notifications"]) == (True, "arrive")
        await runtime.stop()
    assert "poll_mode" not in caplog.text


async def test_transactions_bulks_and_keys_work_with_two_connections_for_all(
    pooled: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    url, _ = pooled
    handlers = HandlerRegistry()

    @handlers.handler("order")
    async def order(ctx: JobCtx, number: int) -> None:
        async with ctx.transaction() as tx:
            await tx.execute("INSERT INTO orders VALUES (%s)", (number,))
            await tx.enqueue(EnqueueRequest("mail", number, queue="default", dedupe_key=f"mail-{number % 5}"))

    @handlers.handler("mail")
    async def mail(ctx: JobCtx) -> None: ...

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (number integer)")
    async with open_storage(url) as storage, open_storage(url) as other:
        runtimes = [
            QueueRuntime(each, handlers, queues=["default"], slots=4, config=QUICK) for each in (storage, other)
        ]
        for runtime in runtimes:
            await runtime.start()
        await storage.jobs.enqueue_bulk([EnqueueRequest("order", n, queue="default") for n in range(40)])

        async def finished() -> bool:
            counts = await storage.jobs.count(JobFilter())
            return set(counts) == {"done"}

        await until(finished, within_s=60)
        for runtime in runtimes:
            await runtime.stop()
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute("SELECT number FROM orders ORDER BY number").fetchall()
    assert [number for (number,) in rows] == list(range(40))
    assert "lost_ownership" not in caplog.text
    assert "OutcomeUnknown" not in caplog.text


def test_programs_without_an_event_loop_enqueue_and_wait(pooled: tuple[str, str]) -> None:
    url, _ = pooled
    with SyncQueue(url) as queue, ThreadPoolExecutor(4) as threads:
        keyed = EnqueueRequest("mail", dedupe_key="one")
        outcomes = list(threads.map(lambda _: queue.enqueue(keyed), range(20)))
        assert len({outcome.id for outcome in outcomes}) == 1
        assert sum(isinstance(outcome, Deduped) for outcome in outcomes) == 19
        queue.enqueue_bulk([EnqueueRequest("mail", n) for n in range(300)])
        assert queue.count(JobFilter()) == {"pending": 301}
        assert queue.cancel(outcomes[0].id) == "cancelled"
        assert queue.wait(outcomes[0].id, timeout=10).row.dead_reason == "cancelled"
