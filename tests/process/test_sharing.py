"""Worker processes that share a total come, go, die and freeze under load, and never run more jobs than the total."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import pytest

from forge_jobs import Storage
from forge_jobs.storage.types.job import JobFilter
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.cluster import until

from .stage import QUICK, Stage, all_finished, put, rows

TOTAL: Final = 10
SHARING: Final = replace(QUICK, rebalance_s=0.2, lease_ttl_s=0.6)
RUNNING: Final = JobFilter(queues=("default",), statuses=("in_progress",))
WAITING: Final = JobFilter(queues=("default",), statuses=("pending",))
LONG_S: Final = 25.0
"""A process frozen in a transaction keeps its locks until PostgreSQL ends the transaction, after ten seconds."""


@pytest.fixture(params=["sqlite", "postgresql"])
def stage(request: pytest.FixtureRequest) -> Stage:
    """A file, and a database of a server."""
    found = request.getfixturevalue("on_a_file" if request.param == "sqlite" else "on_postgresql")
    assert isinstance(found, Stage)
    return found


class Load:
    """Enough jobs for everybody, and how many of them run, looked at all the time."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.most_allowed = TOTAL
        self.running = 0
        self.looks = 0
        self._over: list[str] = []
        self._ended = False

    async def look(self) -> None:
        while not self._ended:
            allowed = self.most_allowed
            self.running = sum((await self.storage.jobs.count(RUNNING)).values())
            self.looks += 1
            if self.running > max(allowed, self.most_allowed):
                self._over.append(f"{self.running} of {allowed}")
            await asyncio.sleep(0.002)

    async def feed(self) -> None:
        while not self._ended:
            if sum((await self.storage.jobs.count(WAITING)).values()) < 2 * TOTAL:
                for _ in range(TOTAL):
                    await put(self.storage, payload=0.2)
            await asyncio.sleep(0.02)

    async def lower_to(self, total: int) -> None:
        """Lower the total: as many as it allowed before may run until their jobs have ended."""
        await self.storage.queues.change("default", QueueChange(max_workers=total))
        await self.until_open(total)
        await until(lambda: self.running <= total, within_s=LONG_S)
        self.most_allowed = total

    async def raise_to(self, total: int) -> None:
        self.most_allowed = total
        await self.storage.queues.change("default", QueueChange(max_workers=total))

    async def until_open(self, total: int, parts: list[int] | None = None) -> None:
        """Wait until live processes have `total` slots open, in these parts."""

        async def there() -> bool:
            live = {row.info.host_id for row in await self.storage.processes.list(SHARING.stale_after) if row.live}
            found = sorted((row.open for row in await self.storage.shares.list() if row.host_id in live), reverse=True)
            return sum(found) == total and (parts is None or found == parts)

        await until(there, within_s=LONG_S, what=f"{parts or total} open slots")

    def end(self) -> None:
        self._ended = True
        assert self._over == [], "never more jobs ran than the total"
        assert self.looks > 100


@asynccontextmanager
async def load_on(storage: Storage) -> AsyncIterator[Load]:
    """A queue with a total under load, until the block ends and all its jobs have."""
    await storage.queues.ensure("default", QueueChange(max_workers=TOTAL))
    load = Load(storage)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load.look())
        tasks.create_task(load.feed())
        try:
            yield load
        finally:
            load.end()
    await all_finished(storage)


async def test_shares_follow_the_processes_that_come_and_go_and_only_a_crash_costs_an_attempt(
    stage: Stage, storage: Storage
) -> None:
    with stage.cluster(3, slots=TOTAL, config=SHARING) as cluster:
        async with load_on(storage) as load:
            await load.until_open(TOTAL, [4, 3, 3])
            cluster.kill("worker-0")
            await load.until_open(TOTAL, [5, 5])
            await load.lower_to(2)
            await load.until_open(2, [1, 1])
            await load.raise_to(TOTAL)
            await load.until_open(TOTAL, [5, 5])
            for old in ("worker-1", "worker-2"):  # a rolling restart
                cluster.start()
                await load.until_open(TOTAL, [4, 3, 3])
                assert cluster.stop(old) == 0
                await load.until_open(TOTAL, [5, 5])
        crashed = [row for row in (await rows(storage)).values() if row.crashes]
        assert len(crashed) <= 4, "what ran in the one that was killed"
        assert {row.attempts - row.crashes for row in (await rows(storage)).values()} == {1}


async def test_a_process_that_was_frozen_takes_back_no_slot_that_others_have_by_now(
    stage: Stage, storage: Storage
) -> None:
    with stage.cluster(3, slots=TOTAL, config=SHARING) as cluster:
        async with load_on(storage) as load:
            await load.until_open(TOTAL, [4, 3, 3])
            for name in ("worker-0", "worker-1"):
                cluster.freeze(name)
                await load.until_open(TOTAL, [5, 5])
                cluster.thaw(name)
                await load.until_open(TOTAL, [4, 3, 3])
