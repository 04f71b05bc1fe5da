"""Metrics by minute: what happened to jobs is counted and timed, and series merge minutes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from forge_jobs.clock import ManualClock, from_us
from forge_jobs.storage.error import InvalidInput
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.event import JobEvent
from forge_jobs.storage.types.finalize import Done, Released
from forge_jobs.storage.types.metric import COUNTERS, Summary
from forge_jobs.testing.conformance.arrange import (
    EVER,
    LONG_SILENCE,
    STALE,
    Stand,
    add,
    add_many,
    bring,
    run,
    settle,
    take,
    take_one,
)
from forge_jobs.testing.factories import KIND, QUEUE, make_crashed, make_dead, make_failed, make_throttled

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
ALL_TIME = timedelta(days=365 * 5)


async def roll(storage: Storage, clock: ManualClock) -> int:
    """Let the present minute close, and roll up."""
    await storage.events.flush()
    clock.advance(MINUTE)
    return await storage.metrics.rollup()


async def total(storage: Storage, metric: str, **chosen: Any) -> int:
    """The count of a metric since ever."""
    return sum(bucket.value.count for bucket in await storage.metrics.series(metric, *EVER, bucket=ALL_TIME, **chosen))


async def totals(storage: Storage) -> dict[str, int]:
    return {metric: count for metric in COUNTERS if (count := await total(storage, metric))}


async def summary(storage: Storage, metric: str, **chosen: Any) -> Summary:
    """The one bucket of a metric since ever."""
    (bucket,) = await storage.metrics.series(metric, *EVER, bucket=ALL_TIME, **chosen)
    return bucket.value


def minute_of(clock: ManualClock) -> datetime:
    return from_us(clock.now_us() // 60_000_000 * 60_000_000)


async def push_runs(storage: Storage, clock: ManualClock, milliseconds: Sequence[int], **of: str) -> None:
    """Completed runs that took so long."""
    queue, kind = of.get("queue", QUEUE), of.get("kind", KIND)
    storage.events.push(
        [
            JobEvent(clock.now_us(), "completed", queue, kind, f"job-{n}", 1, None, ms * 1000)
            for n, ms in enumerate(milliseconds)
        ]
    )


class TestRollup:
    async def test_nothing_happened_in_a_new_store(self, storage: Storage) -> None:
        assert await storage.metrics.rollup() == 0
        assert await totals(storage) == {}

    async def test_what_happens_to_jobs_is_counted(self, storage: Storage, clock: ManualClock) -> None:
        await add_many(storage, 8)
        for outcome in (
            Done(), Done(), make_failed(), make_dead(), make_throttled(cool_down=False),
            Released(delay=timedelta(hours=1)), make_crashed(delay=3600),
        ):  # fmt: skip
            await run(storage, outcome)
        await take_one(storage)
        clock.advance(LONG_SILENCE)
        await storage.jobs.revive_stale(STALE)
        await roll(storage, clock)
        await roll(storage, clock)
        assert await totals(storage) == {
            "enqueued": 8, "started": 8, "completed": 2, "failed": 1, "retried": 4, "throttled": 1, "released": 1,
            "crashed": 2,
        }  # fmt: skip

    async def test_the_present_minute_is_not_counted_yet(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage)
        await storage.events.flush()
        assert await storage.metrics.rollup() == 0
        assert await totals(storage) == {}

    async def test_rolling_up_again_changes_nothing(self, storage: Storage, clock: ManualClock) -> None:
        await bring(storage, clock, Stand.DONE)
        await roll(storage, clock)
        before = await totals(storage), await summary(storage, "proc_ms")
        await storage.metrics.rollup()
        await storage.metrics.rollup()
        assert (await totals(storage), await summary(storage, "proc_ms")) == before

    async def test_an_event_that_was_flushed_late_is_counted(self, storage: Storage, clock: ManualClock) -> None:
        await push_runs(storage, clock, [10])
        late = clock.now_us()
        await roll(storage, clock)
        storage.events.push([JobEvent(late, "completed", QUEUE, KIND, "late", 1, None, 30_000)])
        await roll(storage, clock)
        assert await total(storage, "completed") == 2
        assert (await summary(storage, "proc_ms")).max == 30

    async def test_deleted_jobs_stay_counted(self, storage: Storage, clock: ManualClock) -> None:
        row = await bring(storage, clock, Stand.DONE)
        await bring(storage, clock, Stand.DONE)
        await roll(storage, clock)
        before = await totals(storage), await summary(storage, "total_ms")
        await storage.jobs.delete(row.id)
        await storage.metrics.rollup()
        assert (await totals(storage), await summary(storage, "total_ms")) == before

    async def test_minutes_that_were_missed_are_made_good(self, storage: Storage, clock: ManualClock) -> None:
        for _ in range(5):
            await add(storage)
            clock.advance(timedelta(hours=5))
        assert await roll(storage, clock) == 5
        assert await total(storage, "enqueued") == 5

    async def test_two_may_roll_up_at_the_same_time(
        self, storage: Storage, neighbour: Storage, clock: ManualClock
    ) -> None:
        await bring(storage, clock, Stand.DONE)
        await roll(storage, clock)
        await neighbour.metrics.rollup()
        assert await total(storage, "completed") == 1

    async def test_events_that_stand_for_many_count_as_many(self, storage: Storage, clock: ManualClock) -> None:
        storage.events.push([JobEvent(clock.now_us(), "completed", QUEUE, KIND, count=5_000)])
        await roll(storage, clock)
        assert await total(storage, "completed") == 5_000
        assert await storage.metrics.series("proc_ms", *EVER, bucket=ALL_TIME) == []


class TestSeries:
    async def test_waiting_running_and_both_are_timed(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage, delay=10)
        clock.advance(12)
        job = await take_one(storage)
        clock.advance(3)
        await settle(storage, job, Done())
        await roll(storage, clock)
        for metric, ms in (("wait_ms", 2_000), ("proc_ms", 3_000), ("total_ms", 15_000)):
            assert await summary(storage, metric) == Summary.of(ms)

    async def test_a_retry_waits_from_when_it_was_due(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage)
        await run(storage, make_failed(delay=60))
        clock.advance(61)
        await take_one(storage)
        await roll(storage, clock)
        assert (await summary(storage, "wait_ms")).max == 1_000

    async def test_percentiles_are_of_nearest_rank(self, storage: Storage, clock: ManualClock) -> None:
        await push_runs(storage, clock, range(100, 0, -1))
        await roll(storage, clock)
        assert await summary(storage, "proc_ms") == Summary(
            count=100, sum=5_050, min=1, p50=50, p95=95, p99=99, max=100
        )

    async def test_merged_medians_are_weighted_and_the_worst_of_the_others_counts(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await push_runs(storage, clock, [100] * 2)
        await roll(storage, clock)
        await push_runs(storage, clock, [500] * 5)
        await roll(storage, clock)
        assert await summary(storage, "proc_ms") == Summary(
            count=7, sum=2_700, min=100, p50=386, p95=500, p99=500, max=500
        )

    async def test_a_series_is_of_a_queue_and_a_kind(self, storage: Storage, clock: ManualClock) -> None:
        for queue, kind, runs in (("a", "x", 1), ("a", "y", 2), ("b", "x", 4)):
            await push_runs(storage, clock, [5] * runs, queue=queue, kind=kind)
        await roll(storage, clock)
        assert await total(storage, "completed") == 7
        assert await total(storage, "completed", queue="a") == 3
        assert await total(storage, "completed", kind="x") == 5
        assert await total(storage, "completed", queue="a", kind="y") == 2

    async def test_a_series_holds_its_start_and_not_its_end(self, storage: Storage, clock: ManualClock) -> None:
        first = minute_of(clock)
        for runs in (1, 2, 3):
            await push_runs(storage, clock, [5] * runs)
            await roll(storage, clock)
        found = await storage.metrics.series("completed", first, first + 2 * MINUTE)
        assert [(bucket.at, bucket.value.count) for bucket in found] == [(first, 1), (first + MINUTE, 2)]
        found = await storage.metrics.series("completed", first + timedelta(seconds=1), first + 3 * MINUTE)
        assert [bucket.value.count for bucket in found] == [2, 3]
        assert await storage.metrics.series("completed", first, first) == []
        assert await storage.metrics.series("completed", first + MINUTE, first) == []

    async def test_a_series_is_bounded(self, storage: Storage, clock: ManualClock) -> None:
        now = minute_of(clock)
        assert await storage.metrics.series("completed", now - 2_000 * MINUTE, now) == []
        with pytest.raises(InvalidInput):
            await storage.metrics.series("completed", now - 2_001 * MINUTE, now)
        for bucket in (timedelta(seconds=30), timedelta(seconds=90), timedelta(0)):
            with pytest.raises(InvalidInput):
                await storage.metrics.series("completed", now - MINUTE, now, bucket=bucket)
        with pytest.raises(InvalidInput):
            await storage.metrics.series("no such metric", now - MINUTE, now)


class TestRecord:
    async def test_a_process_keeps_its_own(self, storage: Storage, clock: ManualClock) -> None:
        await storage.metrics.record({"threads": Summary.of(7)}, host_id="one")
        await storage.metrics.record({"threads": Summary.of(9)}, host_id="two")
        assert await summary(storage, "threads", host_id="one") == Summary.of(7)
        assert await summary(storage, "threads", host_id="two") == Summary.of(9)
        with pytest.raises(InvalidInput):
            await storage.metrics.record({"no such metric": Summary.of(1)})

    async def test_they_do_not_hold_back_what_is_rolled_up(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage)
        await storage.events.flush()
        clock.advance(timedelta(hours=1))
        await storage.metrics.record({"wal_bytes": Summary.of(1)})
        await storage.metrics.rollup()
        assert await total(storage, "enqueued") == 1

    async def test_what_is_old_goes(self, storage: Storage, clock: ManualClock) -> None:
        await take(storage)
        await add(storage)
        await storage.metrics.record({"threads": Summary.of(7)}, host_id="one")
        await roll(storage, clock)
        clock.advance(2 * DAY)
        assert (await storage.maintenance.cleanup()).metrics == 0
        clock.advance(DAY)
        assert (await storage.maintenance.cleanup()).metrics == 1
        clock.advance(26 * DAY)
        assert (await storage.maintenance.cleanup()).metrics == 0
        clock.advance(DAY)
        assert (await storage.maintenance.cleanup()).metrics == 1
        assert await totals(storage) == {}
