"""What a handler returns, raises and is told means the same on every executor."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from forge_jobs import Enqueued, EnqueueRequest, QueueRuntime, Storage, StoreConfig, open_storage
from forge_jobs.ids import JobId
from forge_jobs.storage.types.job import JobDetail
from forge_jobs.testing.cluster import until
from forge_jobs.testing.postgres import Server

from . import table
from .world import World, scaled

PLACES = ["async", "thread", "process", "process-async"]
FOR_GOOD = ("done", "failed", "dead")


@asynccontextmanager
async def at_work(storage: Storage, slots: int = 8) -> AsyncIterator[QueueRuntime]:
    runtime = QueueRuntime(storage, table.handlers, slots=slots, config=scaled(), registry=table.PATH)
    await runtime.start()
    try:
        yield runtime
    finally:
        await runtime.stop(0)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def put(storage: Storage, kind: str) -> JobId:
    outcome = await storage.jobs.enqueue(EnqueueRequest(kind, queue="default", max_attempts=3))
    return outcome.id


async def settled(storage: Storage, job_id: JobId) -> JobDetail:
    """The job once its first run is over."""

    async def over() -> JobDetail | None:
        detail = await storage.jobs.get(job_id)
        assert detail is not None
        row = detail.row
        return detail if row.status in FOR_GOOD or (row.status == "pending" and row.fence) else None

    return await until(over, within_s=20, what=f"the run of {job_id} over")


async def check_table(storage: Storage, place: str) -> None:
    jobs = {name: await put(storage, f"{place}.{name}") for name in table.ROWS}
    wrong = []
    for name, job_id in jobs.items():
        row, detail = table.ROWS[name], await settled(storage, job_id)
        error = detail.row.last_error or ""
        if (detail.row.status, detail.row.attempts) != (row.status, row.attempts) or (row.error or "") not in error:
            wrong.append(f"{name}: {detail.row.status} after {detail.row.attempts}: {error[:200]}")
        if row.status == "failed" and "Traceback" in error:
            wrong.append(f"{name}: the message holds a traceback")
    assert wrong == []
    late = (await settled(storage, jobs["own_backoff"])).row
    assert (late.scheduled_at - late.enqueued_at).total_seconds() > 500
    for name in ("error", "cause", "dead_on"):
        traceback = (await settled(storage, jobs[name])).traceback or ""
        assert "Traceback (most recent call last)" in traceback, name
        assert "table.py" in traceback, name


async def test_the_table_of_handlers_holds_on_every_executor(world: World, place: str) -> None:
    async with at_work(world.storage) as runtime:
        await check_table(world.storage, place)
        assert not runtime.env.stopping.is_set()
        assert runtime.env.health.counts["abandoned"] == 0


@pytest.mark.parametrize("place", ["thread", "process"])
async def test_the_table_of_handlers_holds_on_postgresql(server: Server, place: str) -> None:
    url = server.new_store()
    async with open_storage(url, config=StoreConfig(event_flush_s=0.1)) as storage, at_work(storage):
        await check_table(storage, place)


async def test_a_timeout_ends_a_handler_that_heeds_it_and_one_that_does_not(world: World, place: str) -> None:
    async with at_work(world.storage):
        heeded = await put(world.storage, f"{place}.heed_timeout")
        ignored = await put(world.storage, f"{place}.ignore_timeout")
        late = await put(world.storage, f"{place}.finish_late")
        for job_id in (heeded, ignored):
            detail = await settled(world.storage, job_id)
            assert (detail.row.status, detail.row.attempts, detail.row.crashes) == ("failed", 1, 0)
            assert [(entry.kind_of_error, entry.message) for entry in detail.history] == [
                ("timeout", "timeout after 0.3 s")
            ]
        assert (await settled(world.storage, late)).row.status == "done"
        await settled(world.storage, await put(world.storage, f"{place}.done"))


async def test_a_cancel_ends_a_handler_that_heeds_it_and_one_that_does_not(world: World, place: str) -> None:
    async with at_work(world.storage) as runtime:
        jobs = [await put(world.storage, f"{place}.{name}") for name in ("heed", "ignore")]
        await until(lambda: len(runtime.env.running) == 2, what="both running")
        await asyncio.sleep(0.2)
        for job_id in jobs:
            await world.storage.jobs.cancel(job_id)
        heeded, ignored = [(await settled(world.storage, job_id)).row for job_id in jobs]
        assert (heeded.status, heeded.dead_reason, heeded.crashes) == ("dead", "cancelled", 0)
        assert (ignored.status, ignored.dead_reason, ignored.crashes) == ("dead", "cancelled", 0)
        assert "told: user" in (heeded.last_error or "")
        await settled(world.storage, await put(world.storage, f"{place}.done"))


async def test_a_shutdown_releases_a_handler_that_heeds_it_and_one_that_does_not(world: World, place: str) -> None:
    async with at_work(world.storage) as runtime:
        jobs = [await put(world.storage, f"{place}.{name}") for name in ("heed", "ignore")]
        await until(lambda: len(runtime.env.running) == 2, what="both running")
        await asyncio.sleep(0.2)
    for job_id in jobs:
        row = (await world.detail(job_id)).row
        assert (row.status, row.attempts, row.crashes, row.last_error) == ("pending", 0, 0, None)


async def test_ctx_does_the_same_on_every_executor(world: World, place: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "forge_jobs.job")
    async with at_work(world.storage):
        job_id = await put(world.storage, f"{place}.follow")
        detail = await settled(world.storage, job_id)
        first, named, keyed, again, held = (detail.row.last_error or "").split()
        assert (again, held) == ("Deduped", keyed)
        child = (await world.detail(JobId(first))).row
        assert json.loads(child.payload_text) == {"of": job_id, "n": 10**30}
        assert child.parent_id == job_id
        assert child.queue == "default"
        assert 590 < (child.scheduled_at - child.enqueued_at).total_seconds() <= 600
        other = (await world.detail(JobId(named))).row
        assert (other.queue, other.tags) == ("named", ("a",))
        assert detail.progress is not None
        assert detail.progress.message == "halfway"
        lines = [record for record in caplog.records if record.getMessage() == "following up"]
        assert [line.job_id for line in lines] == [job_id]  # type: ignore[attr-defined]
        refused = await settled(world.storage, await put(world.storage, f"{place}.refused"))
        assert refused.row.last_error == "payload.tuple invalid_type"
        assert isinstance(await world.storage.jobs.enqueue(EnqueueRequest("x", queue="y")), Enqueued)
