"""What was acknowledged is there when the store is opened again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from forge_jobs.clock import ManualClock
from forge_jobs.storage.error import StoreUnavailable
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.finalize import Applied, Done, Repeated
from forge_jobs.storage.types.job import Enqueued, JobStatus
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.conformance.arrange import (
    EVER,
    LONG_SILENCE,
    STALE,
    Stand,
    add,
    add_many,
    bring,
    history,
    read_all,
    run,
    settle,
    take,
    take_one,
)
from forge_jobs.testing.conformance.backend import Backend
from forge_jobs.testing.factories import HOST, QUEUE, make_failed, make_request, make_throttled


class TestReopen:
    async def test_jobs_in_every_status_are_there_again(self, backend: Backend, clock: ManualClock) -> None:
        async with backend.open(clock) as storage:
            for stand in Stand:
                await bring(storage, clock, stand, kind=stand.name.lower(), dedupe_key=stand.value)
            before = await read_all(storage)
            errors = {job_id: await history(storage, job_id) for job_id in before}
        async with backend.reopen(clock) as storage:
            assert await read_all(storage) == before
            assert {job_id: await history(storage, job_id) for job_id in before} == errors

    async def test_settings_pause_and_cool_down_are_there_again(self, backend: Backend, clock: ManualClock) -> None:
        async with backend.open(clock) as storage:
            await add_many(storage, 2)
            await run(storage, make_throttled(600))
            await storage.queues.ensure("other", QueueChange(max_workers=3, retain_dead_days=None))
            await storage.queues.pause("other")
            before = await storage.queues.list()
        async with backend.reopen(clock) as storage:
            assert await storage.queues.list() == before
            assert await take(storage) == ()

    async def test_a_claim_outlives_the_store_that_made_it(self, backend: Backend, clock: ManualClock) -> None:
        async with backend.open(clock) as storage:
            await add(storage)
            job = await take_one(storage)
        async with backend.reopen(clock) as storage:
            assert await take(storage, 5) == ()
            assert await settle(storage, job, Done()) == Applied(status=JobStatus.DONE)
            assert await settle(storage, job, Done()) == Repeated()

    async def test_a_silent_owner_is_found_after_reopening(self, backend: Backend, clock: ManualClock) -> None:
        async with backend.open(clock) as storage:
            await add(storage)
            await take_one(storage)
        clock.advance(LONG_SILENCE)
        async with backend.reopen(clock) as storage:
            assert len(await storage.jobs.revive_stale(STALE)) == 1

    async def test_a_repeat_is_recognised_after_reopening(self, backend: Backend, clock: ManualClock) -> None:
        async with backend.open(clock) as storage:
            job_id = await add(storage)
        async with backend.reopen(clock) as storage:
            assert await storage.jobs.enqueue(make_request(id=job_id)) == Enqueued(job_id, repeated=True)

    async def test_future_jobs_are_found_when_due(self, backend: Backend, clock: ManualClock) -> None:
        async with backend.open(clock) as storage:
            later = await add(storage, delay=60)
            await add(storage)
            await run(storage, make_failed(delay=30))
        clock.advance(61)
        async with backend.reopen(clock) as storage:
            jobs = await take(storage, 5)
            assert (len(jobs), jobs[-1].id) == (2, later)

    async def test_closing_writes_the_events_that_wait(self, backend: Backend, clock: ManualClock) -> None:
        async with backend.open(clock) as storage:
            await add_many(storage, 3)
        async with backend.reopen(clock) as storage:
            assert len(await storage.events.timeline(*EVER)) == 3

    async def test_a_closed_store_says_so_at_once(self, backend: Backend, clock: ManualClock) -> None:
        async with backend.open(clock) as storage:
            job_id = await add(storage)
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "enqueue": lambda: storage.jobs.enqueue(make_request()),
            "enqueue_bulk": lambda: storage.jobs.enqueue_bulk([make_request()]),
            "claim": lambda: take(storage),
            "finalize": lambda: storage.jobs.finalize(job_id, 1, Done()),
            "cancel": lambda: storage.jobs.cancel(job_id),
            "get": lambda: storage.jobs.get(job_id),
            "ensure": lambda: storage.queues.ensure(QUEUE),
        }
        answers = {name: await _within_seconds(call()) for name, call in calls.items()}
        assert {name: type(answer) for name, answer in answers.items()} == dict.fromkeys(calls, StoreUnavailable)

    async def test_closing_twice_is_harmless(self, backend: Backend, clock: ManualClock) -> None:
        async with backend.open(clock) as storage:
            await storage.close()
            await storage.close()


class TestTwoStores:
    async def test_what_one_process_writes_the_other_reads(self, backend: Backend, clock: ManualClock) -> None:
        async with backend.open(clock) as one, backend.reopen(clock) as two:
            job_id = await add(one)
            job = await take_one(two)
            assert job.id == job_id
            assert await take(one) == ()
            await settle(one, job, make_failed(delay=0))
            assert (await take_one(two)).fence == job.fence + 1

    async def test_work_shared_by_two_processes_is_done_once(self, backend: Backend, clock: ManualClock) -> None:
        async with backend.open(clock) as one, backend.reopen(clock) as two:
            done: list[str] = []

            async def enqueue() -> None:
                for n in range(40):
                    await add(one, payload=n)

            async def work(storage: Storage) -> None:
                while len(done) < 40:
                    for job in await take(storage, 3):
                        assert await settle(storage, job, Done()) == Applied(status=JobStatus.DONE)
                        done.append(job.id)

            await asyncio.gather(enqueue(), work(one), work(two))
            rows = await read_all(one)
            assert sorted(done) == sorted(rows)
            assert {(row.status, row.fence) for row in rows.values()} == {("done", 1)}
            assert {queue.name for queue in await two.queues.list()} == {QUEUE}


class TestWake:
    """Wakes are hints; these are the ones that a store gives within one process."""

    async def test_whoever_listens_is_woken(self, backend: Backend, clock: ManualClock) -> None:
        async with backend.open(clock) as storage:
            woken = asyncio.Event()
            stop = storage.subscribe(HOST, lambda queues: woken.set())
            storage.wake([QUEUE])
            await asyncio.wait_for(woken.wait(), 10)
            stop()

    async def test_a_ready_job_wakes_the_listeners_of_its_queue(self, backend: Backend, clock: ManualClock) -> None:
        async with backend.open(clock) as storage:
            woken = asyncio.Event()

            def on_wake(queues: frozenset[str] | None) -> None:
                if queues is None or QUEUE in queues:
                    woken.set()

            stop = storage.subscribe(HOST, on_wake)
            await add(storage)
            await asyncio.wait_for(woken.wait(), 10)
            stop()

    async def test_who_left_is_not_woken(self, backend: Backend, clock: ManualClock) -> None:
        async with backend.open(clock) as storage:
            heard: list[object] = []
            woken = asyncio.Event()
            storage.subscribe(HOST, heard.append)()
            stop = storage.subscribe(HOST, lambda queues: woken.set())
            storage.wake()
            await asyncio.wait_for(woken.wait(), 10)
            assert heard == []
            stop()


async def _within_seconds(call: Awaitable[object]) -> object:
    """What a call gives or raises; a call that hangs raises `TimeoutError`."""
    try:
        return await asyncio.wait_for(call, 3)
    except Exception as error:
        return error
