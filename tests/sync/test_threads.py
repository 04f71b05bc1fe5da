"""One queue for many threads, one loop for many queues."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from forge_jobs import EnqueueRequest, OutcomeUnknown, Storage, StoreUnavailable, SyncQueue, open_storage
from forge_jobs.storage.types.job import JobFilter
from forge_jobs.sync.background import BackgroundStore

from .stage import until

EVERYTHING = JobFilter()
THREADS, EACH = 8, 50


def ours() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name == "forge-sync")


def test_what_many_threads_enqueue_is_all_there(queue: SyncQueue) -> None:
    together = threading.Barrier(THREADS)

    def enqueue(thread: int) -> list[str]:
        together.wait(10)
        return [queue.enqueue(EnqueueRequest("mail", [thread, n])).id for n in range(EACH)]

    with ThreadPoolExecutor(THREADS) as threads:
        ids = [job_id for found in threads.map(enqueue, range(THREADS)) for job_id in found]
    rows = queue.list_jobs(EVERYTHING, limit=1_000).items
    assert {row.id for row in rows} == set(ids)
    assert sorted(row.payload for row in rows) == [[t, n] for t in range(THREADS) for n in range(EACH)]
    assert len({row.enqueued_at for row in rows}) < len(rows), "jobs of one commit are of one instant"


def test_threads_that_enqueue_at_the_same_time_share_a_commit(queue: SyncQueue, database: Path) -> None:
    queue.count(EVERYTHING)
    with ThreadPoolExecutor(THREADS) as threads, closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("PRAGMA wal_autocheckpoint=0")
        other.execute("BEGIN IMMEDIATE")
        waiting = [threads.submit(queue.enqueue, EnqueueRequest("mail", n)) for n in range(THREADS)]
        held = queue._store._held
        assert held is not None
        until(lambda: len(held._calls) == THREADS)
        other.execute("COMMIT")
        for answer in waiting:
            answer.result(10)
    rows = queue.list_jobs(EVERYTHING).items
    assert len(rows) == THREADS
    assert len({row.enqueued_at for row in rows}) <= 2, "one commit for the first to come, one for all that waited"


def test_the_first_calls_of_many_threads_open_one_store(url: str) -> None:
    opened: list[str] = []
    together = threading.Barrier(THREADS)

    @asynccontextmanager
    async def opener() -> AsyncIterator[Storage]:
        async with open_storage(url) as storage:
            opened.append(storage.url)
            yield storage

    store = BackgroundStore(opener, limit_s=10, in_memory=False)

    def count() -> dict[str, int]:
        together.wait(10)
        return store.call(lambda storage: storage.jobs.count(EVERYTHING))

    with ThreadPoolExecutor(THREADS) as threads:
        for answer in [threads.submit(count) for _ in range(THREADS)]:
            assert answer.result(10) == {}
    assert len(opened) == 1
    store.close()


def test_each_of_many_threads_gets_an_error_of_its_own_when_the_store_cannot_be_opened(tmp_path: Path) -> None:
    queue = SyncQueue(f"sqlite:///{tmp_path}/missing/jobs.db")
    with ThreadPoolExecutor(THREADS) as threads:
        answers = [threads.submit(queue.enqueue, EnqueueRequest("mail")) for _ in range(THREADS)]
        errors = [answer.exception(10) for answer in answers]
    assert all(isinstance(error, StoreUnavailable) for error in errors)
    assert len({id(error) for error in errors}) == THREADS
    queue.close()


def test_all_queues_share_one_thread_which_ends_with_the_last_one(tmp_path: Path) -> None:
    queues = [SyncQueue(f"sqlite:///{tmp_path}/{name}.db") for name in "abc"]
    assert ours() == []
    for queue in queues:
        queue.enqueue(EnqueueRequest("mail"))
    assert ours() == ["forge-sync"]
    for queue in queues[:-1]:
        queue.close()
    assert queues[-1].count(EVERYTHING) == {"pending": 1}
    queues[-1].close()
    assert ours() == []


def test_a_close_lets_the_calls_of_other_threads_end(url: str) -> None:
    begun = threading.Event()

    async def in_two_steps(storage: Storage) -> dict[str, int]:
        await storage.jobs.count(EVERYTHING)
        begun.set()
        await asyncio.sleep(0.2)  # the close comes meanwhile
        return await storage.jobs.count(EVERYTHING)

    store = BackgroundStore(lambda: open_storage(url), limit_s=10, in_memory=False)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(store.call, in_two_steps)
        assert begun.wait(10)
        store.close()
        assert answer.result(10) == {}
    with pytest.raises(StoreUnavailable, match="closed"):
        store.call(in_two_steps)


def test_a_queue_that_nobody_holds_any_more_is_closed(url: str) -> None:
    SyncQueue(url).enqueue(EnqueueRequest("mail"))
    gc.collect()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("forge-sqlite")])
    with SyncQueue(url) as again:
        assert again.count(EVERYTHING) == {"pending": 1}


def test_a_call_that_is_never_answered_ends_at_its_limit(url: str) -> None:
    go_on = threading.Event()

    async def blocked(storage: Storage) -> None:
        go_on.wait(10)  # nothing of ours does this; it stands for a loop that does not get to run

    store = BackgroundStore(lambda: open_storage(url), limit_s=0.3, in_memory=False)
    store.open()
    with pytest.raises(OutcomeUnknown, match=r"within 0\.3 s") as lost:
        store.call(blocked, ids=("01ARZ3NDEKTSV4RRFFQ69G5FAV",))
    assert lost.value.ids == ("01ARZ3NDEKTSV4RRFFQ69G5FAV",)
    with pytest.raises(StoreUnavailable, match="did not answer"):
        store.call(blocked)
    go_on.set()
    until(lambda: store.call(lambda storage: storage.jobs.count(EVERYTHING)) == {})
    store.close()


def test_an_opening_that_takes_too_long_is_told_and_goes_on(url: str) -> None:
    may_open = threading.Event()

    @asynccontextmanager
    async def opener() -> AsyncIterator[Storage]:
        await asyncio.to_thread(may_open.wait, 10)
        async with open_storage(url) as storage:
            yield storage

    store = BackgroundStore(opener, limit_s=0.2, in_memory=False)
    with pytest.raises(StoreUnavailable, match=r"not open within 0\.2 s"):
        store.open()
    may_open.set()
    held = store._held
    assert held is not None
    held.opened.result(10)
    store.open()
    store.close()


def test_a_timeout_that_is_the_answer_is_raised_as_it_is(queue: SyncQueue) -> None:
    async def late(storage: Storage) -> None:
        raise TimeoutError("of the work itself")

    with pytest.raises(TimeoutError, match="of the work itself"):
        queue._store.call(late)
