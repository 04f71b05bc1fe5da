"""Finished jobs are kept as long as their queue says, and no longer."""

from __future__ import annotations

from datetime import timedelta

import pytest

from forge_jobs.clock import ManualClock
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.answers import CleanupReport
from forge_jobs.storage.types.finalize import Done
from forge_jobs.storage.types.job import JobFilter
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.conformance.arrange import (
    Stand,
    add,
    add_many,
    all_events,
    bring,
    read,
    read_all,
    run,
    settle,
    take,
)
from forge_jobs.testing.factories import QUEUE, make_dead

DAY = timedelta(days=1)


class TestRetention:
    async def test_a_new_store_has_nothing_to_clean_up(self, storage: Storage) -> None:
        assert await storage.maintenance.cleanup() == CleanupReport()

    async def test_done_jobs_go_after_a_week_and_dead_ones_after_a_month(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await bring(storage, clock, Stand.DONE)
        dead = await bring(storage, clock, Stand.DEAD)
        clock.advance(7 * DAY - timedelta(minutes=1))
        assert (await storage.maintenance.cleanup()).done == 0
        clock.advance(timedelta(minutes=2))
        report = await storage.maintenance.cleanup()
        assert (report.done, report.dead) == (1, 0)
        assert list(await read_all(storage)) == [dead.id]
        clock.advance(22 * DAY)
        assert (await storage.maintenance.cleanup()).dead == 0
        clock.advance(DAY)
        assert (await storage.maintenance.cleanup()).dead == 1
        assert await read_all(storage) == {}

    async def test_the_events_of_a_job_go_with_it(self, storage: Storage, clock: ManualClock) -> None:
        await bring(storage, clock, Stand.DONE)
        await storage.events.flush()
        clock.advance(8 * DAY)
        kept = await add(storage)
        await storage.maintenance.cleanup()
        assert {event.job_id for event in await all_events(storage)} == {kept}

    @pytest.mark.parametrize("stand", [stand for stand in Stand if not stand.is_finished])
    async def test_unfinished_jobs_stay_for_ever(self, storage: Storage, clock: ManualClock, stand: Stand) -> None:
        before = await bring(storage, clock, stand)
        clock.advance(4000 * DAY)
        report = await storage.maintenance.cleanup()
        assert (report.done, report.dead) == (0, 0)
        assert await read(storage, before.id) == before

    async def test_the_age_counts_from_the_end_and_not_from_the_enqueue(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await add(storage)
        clock.advance(100 * DAY)
        await run(storage, Done())
        clock.advance(6 * DAY)
        assert (await storage.maintenance.cleanup()).done == 0

    async def test_each_queue_has_its_own_limits(self, storage: Storage, clock: ManualClock) -> None:
        await storage.queues.ensure("short", QueueChange(retain_done_days=1))
        await storage.queues.ensure("ever", QueueChange(retain_done_days=None))
        for queue in ("short", "ever", "usual"):
            await add(storage, queue=queue)
            await run(storage, Done(), queue=queue)
        clock.advance(2 * DAY)
        await storage.maintenance.cleanup()
        assert {row.queue for row in (await read_all(storage)).values()} == {"ever", "usual"}
        clock.advance(4000 * DAY)
        await storage.maintenance.cleanup()
        assert {row.queue for row in (await read_all(storage)).values()} == {"ever"}

    async def test_nothing_to_keep_goes_with_the_next_sweep(self, storage: Storage, clock: ManualClock) -> None:
        await storage.queues.ensure(QUEUE, QueueChange(retain_done_days=0, retain_dead_days=0))
        await bring(storage, clock, Stand.DONE)
        await bring(storage, clock, Stand.DEAD)
        report = await storage.maintenance.cleanup()
        assert (report.done, report.dead) == (1, 1)

    async def test_a_sweep_takes_more_than_one_batch(self, storage: Storage, clock: ManualClock) -> None:
        await add_many(storage, 1_100)
        for job in await take(storage, 1_100):
            await settle(storage, job, make_dead())
        clock.advance(31 * DAY)
        assert (await storage.maintenance.cleanup()).dead == 1_100
        assert (await storage.jobs.list_jobs(JobFilter(), limit=1)).total == 0

    async def test_lapsed_holds_of_keys_go_too(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage, dedupe_key="key", unique_for=3600)
        await run(storage, Done())
        clock.advance(8 * DAY)
        await storage.maintenance.cleanup()
        assert await storage.maintenance.cleanup() == CleanupReport()
        await add(storage, dedupe_key="key")

    async def test_a_purged_id_may_come_again(self, storage: Storage, clock: ManualClock) -> None:
        row = await bring(storage, clock, Stand.DONE)
        clock.advance(8 * DAY)
        await storage.maintenance.cleanup()
        assert await add(storage, id=row.id) == row.id
