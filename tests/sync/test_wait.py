"""Waiting for a job that a worker runs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import assert_type

import pytest

from forge_jobs import (
    ConfigError,
    Dead,
    EnqueueRequest,
    Failed,
    ForgeError,
    HandlerRegistry,
    JobCtx,
    JobOutcome,
    NotFound,
    QueueRuntime,
    SyncQueue,
    WaitTimeout,
    open_storage,
)
from forge_jobs.ids import new_id
from forge_jobs.storage.types.job import JobDetail

handlers = HandlerRegistry()


@handlers.handler("work")
async def work(ctx: JobCtx, payload: dict[str, float]) -> None:
    await asyncio.sleep(payload["seconds"])


@handlers.handler("refuse")
async def refuse(ctx: JobCtx) -> JobOutcome:
    return Dead("never")


@handlers.handler("fail")
async def fail(ctx: JobCtx) -> JobOutcome:
    return Failed("not now")


@pytest.fixture
def worker(url: str) -> Iterator[None]:
    """A worker with a thread, a loop and a store of its own."""
    loop, runtimes, ready = asyncio.new_event_loop(), list[QueueRuntime](), threading.Event()

    async def main() -> None:
        async with open_storage(url) as storage:
            runtimes.append(QueueRuntime(storage, handlers))
            await runtimes[0].start()
            ready.set()
            await runtimes[0].run()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    assert ready.wait(10)
    yield
    loop.call_soon_threadsafe(runtimes[0].request_stop)
    thread.join(10)
    loop.close()


@pytest.mark.usefixtures("worker")
def test_a_wait_gives_the_job_once_it_is_done(queue: SyncQueue) -> None:
    job_id = queue.enqueue(EnqueueRequest("work", {"seconds": 0.3})).id
    began = time.monotonic()
    detail = queue.wait(job_id, timeout=20)
    assert_type(detail, JobDetail)
    assert (detail.row.id, detail.row.status) == (job_id, "done")
    assert time.monotonic() - began >= 0.3
    assert queue.wait(job_id, timeout=0).row.status == "done", "one that has ended is not waited for"


@pytest.mark.usefixtures("worker")
def test_a_dead_job_has_ended_too_and_says_why(queue: SyncQueue) -> None:
    detail = queue.wait(queue.enqueue(EnqueueRequest("refuse")).id, timedelta(seconds=20))
    assert (detail.row.status, detail.row.dead_reason, detail.row.last_error) == ("dead", "rejected", "never")


@pytest.mark.usefixtures("worker")
def test_many_threads_wait_at_the_same_time(queue: SyncQueue) -> None:
    ids = [queue.enqueue(EnqueueRequest("work", {"seconds": 0.05})).id for _ in range(10)]
    ended: list[str] = []
    threads = [threading.Thread(target=lambda i=i: ended.append(queue.wait(i, 20).row.status)) for i in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == ["done"] * 10


@pytest.mark.usefixtures("worker")
def test_a_job_that_waits_for_its_retry_has_not_ended(queue: SyncQueue) -> None:
    job_id = queue.enqueue(EnqueueRequest("fail")).id
    status = ""
    while status != "failed":
        with pytest.raises(WaitTimeout) as caught:
            queue.wait(job_id, timeout=0.2)
        status = caught.value.status
    with pytest.raises(TimeoutError, match=f"job {job_id} is failed after 0.05 s"):
        queue.wait(job_id, timeout=0.05)


def test_a_wait_ends_at_its_limit_with_the_status_of_the_job(queue: SyncQueue) -> None:
    job_id = queue.enqueue(EnqueueRequest("work")).id
    for limit in (0.3, timedelta(seconds=0.3), 0):
        began = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            queue.wait(job_id, timeout=limit)
        assert time.monotonic() - began >= (0.3 if limit else 0)
        assert isinstance(caught.value, WaitTimeout)
        assert isinstance(caught.value, ForgeError)
        assert (caught.value.job_id, caught.value.status) == (job_id, "pending")
    assert queue.cancel(job_id) == "cancelled"
    assert queue.wait(job_id).row.dead_reason == "cancelled"


def test_there_is_nothing_to_wait_for_without_a_job(queue: SyncQueue) -> None:
    for job_id in (new_id(), "nonsense"):
        with pytest.raises(NotFound, match=job_id):
            queue.wait(job_id)


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "5", None, True])
def test_a_wait_has_a_limit(queue: SyncQueue, timeout: float) -> None:
    with pytest.raises(ConfigError, match="timeout"):
        queue.wait(new_id(), timeout=timeout)
