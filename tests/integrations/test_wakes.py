"""Where a library tells of its commits, workers are woken by them, and by nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from forge_jobs import EnqueueRequest, HandlerRegistry, QueueRuntime, RuntimeConfig, SyncQueue, open_storage
from forge_jobs.storage.error import ConfigError
from forge_jobs.storage.types.job import JobStatus
from forge_jobs.testing.cluster import until

from .libraries import LIBRARIES, POSTGRESQL, Caller, Shop

WITH_A_HOOK = [library for library in LIBRARIES if library.hook]
with_each_hook = pytest.mark.parametrize("library", WITH_A_HOOK, ids=str)


@pytest.mark.parametrize("library", [library for library in WITH_A_HOOK if library.store == POSTGRESQL], ids=str)
async def test_an_idle_worker_runs_the_job_at_once_after_the_commit(shop: Shop) -> None:
    handlers = HandlerRegistry()

    @handlers.handler("receipt")
    async def receipt(ctx: Any, payload: Any) -> None: ...

    async with open_storage(shop.url, create=False) as storage:
        runtime = QueueRuntime(storage, handlers, slots=1, config=RuntimeConfig(poll_ms=60_000))
        await runtime.start()

        async def is_done(job_id: Any) -> bool:
            detail = await storage.jobs.get(job_id)
            return detail is not None and detail.row.status == JobStatus.DONE

        try:
            await until(lambda: storage.wakes_proven, within_s=20, what="notifications arrive")
            first = await storage.jobs.enqueue(EnqueueRequest("receipt", queue="default"))
            await until(lambda: is_done(first.id), within_s=20, what="the worker works, and is idle afterwards")
            unseen = await asyncio.to_thread(_buy, shop, None)
            assert not await is_done(unseen)
            seen = await asyncio.to_thread(_buy, shop, _waker)
            await until(lambda: is_done(seen), within_s=20, what="the worker was woken")
            await until(lambda: is_done(unseen), within_s=20, what="and found the other job too")
        finally:
            await runtime.stop(0)


def _buy(shop: Shop, waker: Callable[[Caller, str], contextlib.AbstractContextManager[Any]] | None) -> Any:
    with shop.open() as caller:
        caller.write(7)
        with waker(caller, shop.url) if waker else contextlib.nullcontext() as wake:
            outcome = caller.enqueue(EnqueueRequest("receipt"), wake=wake)
            caller.commit()
        return outcome.id


@contextlib.contextmanager
def _waker(caller: Caller, url: str) -> Iterator[Any]:
    """What the application has to wake workers with: a store on its own event loop, or a `SyncQueue`."""
    if not caller.awaited:
        with SyncQueue(url, create=False) as queue:
            yield queue.wake
        return
    opening = open_storage(url, create=False)
    storage = caller.settle(opening.__aenter__())
    yield storage.wake
    caller.settle(opening.__aexit__(None, None, None))


@with_each_hook
def test_it_is_told_after_the_commit_of_what_is_new(shop: Shop) -> None:
    told: list[list[str]] = []
    with shop.open() as caller:
        caller.write(7)
        caller.enqueue_bulk(
            [EnqueueRequest("a", queue="b"), EnqueueRequest("a", queue="a"), EnqueueRequest("a", queue="b")],
            wake=told.append,
        )
        with caller.savepoint():
            caller.enqueue(EnqueueRequest("a", queue="c", dedupe_key="k"), wake=told.append)
        caller.enqueue(EnqueueRequest("a", queue="d", dedupe_key="k"), wake=told.append)  # held: nothing new there
        assert told == []
        caller.commit()
        assert told == [["a", "b"], ["c"]]
        caller.write(8)
        caller.commit()
        assert told == [["a", "b"], ["c"]]


@with_each_hook
def test_it_is_not_told_of_what_was_rolled_back(shop: Shop) -> None:
    told: list[list[str]] = []
    with shop.open() as caller:
        caller.write(7)
        caller.enqueue(EnqueueRequest("a", queue="whole"), wake=told.append)
        with caller.savepoint():
            caller.enqueue(EnqueueRequest("a", queue="part-of-it"), wake=told.append)
        caller.rollback()
        caller.write(8)
        with pytest.raises(LookupError), caller.savepoint():
            with caller.savepoint():
                caller.enqueue(EnqueueRequest("a", queue="inner"), wake=told.append)
            caller.enqueue(EnqueueRequest("a", queue="outer"), wake=told.append)
            raise LookupError
        caller.enqueue(EnqueueRequest("a", queue="kept"), wake=told.append)
        caller.commit()
    assert told == [["kept"]]
    assert [job.queue for job in shop.jobs()] == ["kept"]


@pytest.mark.parametrize("library", [library for library in WITH_A_HOOK if "Session" in library.name], ids=str)
def test_a_session_that_is_closed_forgets_what_it_had_not_committed(shop: Shop) -> None:
    told: list[list[str]] = []
    with shop.open() as caller:
        caller.enqueue(EnqueueRequest("a", queue="lost"), wake=told.append)
        caller.settle(caller.target.close())
        caller.enqueue(EnqueueRequest("a", queue="kept"), wake=told.append)
        caller.commit()
    assert told == [["kept"]]


@with_each_hook
def test_a_wake_that_fails_does_not_make_the_commit_fail(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    def wake(queues: list[str]) -> None:
        raise RuntimeError("nobody is there")

    with shop.open() as caller:
        caller.write(7)
        outcome = caller.enqueue(EnqueueRequest("a"), wake=wake)
        caller.commit()
    assert [job.id for job in shop.jobs()] == [outcome.id]
    assert "wake_fault" in caplog.text
    assert "nobody is there" in caplog.text


@pytest.mark.parametrize("library", [library for library in LIBRARIES if "Connection" in library.name], ids=str)
def test_a_connection_that_does_not_tell_of_its_commit_refuses_a_wake(shop: Shop) -> None:
    with shop.open() as caller, pytest.raises(ConfigError, match="give a Session"):
        caller.enqueue(EnqueueRequest("a"), wake=print)
    assert shop.jobs() == []
