"""Wake-ups between processes by NOTIFY: quick, few, proven, mended, and never needed."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from typing import Any, Final

import psycopg
import pytest

from forge_jobs import EnqueueRequest, HandlerRegistry, JobCtx, QueueRuntime, RuntimeConfig, Storage, open_storage
from forge_jobs.config import StoreConfig
from forge_jobs.storage.postgres.listen import COALESCE_S, PAYLOAD_BYTES
from forge_jobs.testing.cluster import until

LAZY: Final = RuntimeConfig(poll_ms=30_000)
"""Whoever finds a job soon was woken: longer than any test waits."""
SOON_S: Final = 3.0
LISTENERS: Final = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"


class Worker:
    """A runtime with a store of its own, as in another process, that notes when its jobs start."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.started: dict[str, float] = {}


@asynccontextmanager
async def worker(
    database: str, config: RuntimeConfig = LAZY, store: StoreConfig | None = None
) -> AsyncIterator[Worker]:
    handlers = HandlerRegistry()
    async with open_storage(database, config=store or StoreConfig()) as storage:
        made = Worker(storage)

        @handlers.handler("brief")
        async def brief(ctx: JobCtx) -> None:
            made.started[ctx.job_id] = time.monotonic()

        runtime = QueueRuntime(storage, handlers, queues=["default"], slots=5, config=config)
        await runtime.start()
        try:
            yield made
        finally:
            await runtime.stop()


async def has_started(worker: Worker, job_id: str) -> None:
    await until(lambda: job_id in worker.started, within_s=SOON_S, what="the job started")


async def pickup_s(worker: Worker, storage: Storage) -> float:
    """How long after its enqueue was acknowledged a job was started."""
    job_id = (await storage.jobs.enqueue(EnqueueRequest("brief", queue="default"))).id
    enqueued = time.monotonic()
    await has_started(worker, job_id)
    return worker.started[job_id] - enqueued


def of_listeners(database: str, sql: str) -> list[Any]:
    """What `sql` makes of the connections that listen in this database."""
    with closing(psycopg.connect(database, autocommit=True)) as look:
        return [row[0] for row in look.execute(sql.encode(), ["forge-jobs/listen"])]


async def test_a_job_of_another_process_starts_long_before_the_next_poll(database: str) -> None:
    async with worker(database) as woken, open_storage(database) as elsewhere:
        await until(lambda: woken.storage.wakes_proven)
        took = sorted([await pickup_s(woken, elsewhere) for _ in range(10)])
        assert took[len(took) // 2] < 0.5, took


async def test_a_listener_proves_itself_before_workers_rely_on_it(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(database) as woken:
        await until(lambda: woken.storage.wakes_proven, within_s=SOON_S)
        assert (await woken.storage.maintenance.status())["notifications"] == "arrive"
    assert "poll_mode" not in caplog.text


async def test_a_burst_of_enqueues_is_told_a_few_times_and_after_its_commit(database: str) -> None:
    count = 1_000
    async with (
        open_storage(database) as storage,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as listening,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as look,
    ):
        await listening.execute("LISTEN forge_wake")
        began = time.monotonic()
        await asyncio.gather(
            *(storage.jobs.enqueue(EnqueueRequest("brief", n, queue="default")) for n in range(count // 2))
        )
        for n in range(count // 2):
            await storage.jobs.enqueue(EnqueueRequest("brief", n, queue="default"))
        took = time.monotonic() - began
        heard = 0
        async for notice in listening.notifies(timeout=1.0):
            heard += 1
            assert len(notice.payload) <= PAYLOAD_BYTES
            assert json.loads(notice.payload) == ["default"]
            jobs = await (await look.execute("SELECT count(*) FROM forge.jobs")).fetchone()
            assert jobs is not None
            assert jobs[0] > 0, "what was told of is there"
    assert 1 <= heard <= took / COALESCE_S + 2
    assert heard < count / 2


async def test_a_lost_listener_comes_back_polls_at_once_and_is_woken_again(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "forge_jobs")
    async with worker(database) as woken, open_storage(database, config=StoreConfig(notify=False)) as silent:
        await until(lambda: woken.storage.wakes_proven)
        before = of_listeners(database, LISTENERS)
        assert len(before) == 1
        job_id = (await silent.jobs.enqueue(EnqueueRequest("brief", queue="default"))).id  # nobody is told of it
        of_listeners(database, f"SELECT pg_terminate_backend(pid) FROM ({LISTENERS}) AS listener")
        await until(lambda: job_id in woken.started, within_s=5, what="the job nobody was told of is found")
        await until(lambda: woken.storage.wakes_proven, within_s=5)
        assert len(of_listeners(database, LISTENERS)) == 1
        assert of_listeners(database, LISTENERS) != before
        async with open_storage(database) as elsewhere:
            assert await pickup_s(woken, elsewhere) < SOON_S
    assert caplog.text.count("listener_lost") == 1


async def test_a_process_whose_way_to_tell_was_cut_tells_of_the_next_job(database: str) -> None:
    async with worker(database) as woken, open_storage(database) as elsewhere:
        await until(lambda: woken.storage.wakes_proven)
        await pickup_s(woken, elsewhere)
        hearing, telling = sorted(of_listeners(database, LISTENERS + " ORDER BY backend_start"))
        of_listeners(database, f"SELECT pg_terminate_backend({telling}) WHERE %s <> ''")
        await until(lambda: of_listeners(database, LISTENERS) == [hearing])
        assert await pickup_s(woken, elsewhere) < SOON_S


async def test_without_notifications_jobs_are_found_by_polling(database: str, caplog: pytest.LogCaptureFixture) -> None:
    off = StoreConfig(notify=False)
    async with (
        worker(database, replace(LAZY, poll_ms=50), off) as polling,
        open_storage(database, config=off) as elsewhere,
    ):
        for _ in range(3):
            await pickup_s(polling, elsewhere)
        assert of_listeners(database, LISTENERS) == []
        assert polling.storage.wakes_proven is False
        assert (await polling.storage.maintenance.status())["notifications"] == "off"
    assert "poll_mode" not in caplog.text, "it was asked for"


async def test_a_job_of_the_near_future_arms_a_timer_instead_of_waiting_for_a_poll(database: str) -> None:
    async with open_storage(database) as elsewhere:
        began = time.monotonic()
        job_id = (await elsewhere.jobs.enqueue(EnqueueRequest("brief", queue="default", delay=1.0))).id
    async with worker(database) as woken:
        await until(lambda: job_id in woken.started, within_s=10)
        assert woken.started[job_id] - began >= 1.0


async def test_a_program_that_ends_right_after_its_enqueue_has_told_of_it(database: str) -> None:
    async with worker(database) as working:
        await until(lambda: working.storage.wakes_proven, within_s=10)
        for _ in range(5):
            async with open_storage(database) as brief:
                job_id = (await brief.jobs.enqueue(EnqueueRequest("brief", queue="default"))).id
            await has_started(working, job_id)
