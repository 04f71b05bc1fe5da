"""Events tell what happened to jobs; the audit tells what people did."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from forge_jobs.clock import ManualClock, to_us
from forge_jobs.storage.error import DedupeConflict
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.event import Actor, JobEvent
from forge_jobs.storage.types.finalize import Done, FinalizeOutcome, Released
from forge_jobs.storage.types.job import JobFilter, JobStatus
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.conformance.arrange import (
    EVER,
    LONG_SILENCE,
    STALE,
    Stand,
    add,
    add_many,
    all_events,
    bring,
    events_of,
    read_all,
    run,
    settle,
    take,
)
from forge_jobs.testing.factories import KIND, QUEUE, make_crashed, make_dead, make_failed, make_request, make_throttled

BOB = Actor(name="bob", role="operate", surface="http", address="192.0.2.1", request_id="r-1")


class TestEvents:
    async def test_a_throttled_job_reads_started_retried_started_completed(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        job_id = await add(storage)
        await run(storage, make_throttled(10))
        clock.advance(10)
        await run(storage, Done())
        assert await events_of(storage, job_id) == ["enqueued", "started", "retried", "started", "completed"]

    async def test_an_event_says_when_what_and_of_which_job(self, storage: Storage, clock: ManualClock) -> None:
        job_id = await add(storage)
        clock.advance(1)
        jobs = await take(storage)
        clock.advance(3)
        await settle(storage, jobs[0], Done())
        started, completed = (await all_events(storage))[1:]
        assert (started.type, started.queue, started.kind, started.job_id) == ("started", QUEUE, KIND, job_id)
        assert (started.attempt, started.count) == (1, 1)
        assert (completed.at_us, completed.duration_us) == (to_us(clock.now()), 3_000_000)

    @pytest.mark.parametrize(
        ("outcome", "cause"),
        [(make_failed(), "failed"), (make_throttled(), "throttled"), (make_crashed(), "crashed")],
        ids=["failed", "throttled", "crashed"],
    )
    async def test_a_retry_tells_its_cause(self, storage: Storage, outcome: Any, cause: str) -> None:
        await add(storage)
        await run(storage, outcome)
        last = (await all_events(storage))[-1]
        assert (last.type, last.cause) == ("retried", cause)

    async def test_a_revival_tells_its_cause(self, storage: Storage, clock: ManualClock) -> None:
        await bring(storage, clock, Stand.RUNNING)
        clock.advance(LONG_SILENCE)
        await storage.jobs.revive_stale(STALE)
        last = (await all_events(storage))[-1]
        assert (last.type, last.cause) == ("retried", "lost_worker")

    async def test_started_runs_are_ended_or_in_progress(self, storage: Storage, clock: ManualClock) -> None:
        outcomes: list[FinalizeOutcome] = [
            Done(),
            make_failed(),
            make_dead(),
            make_throttled(cool_down=False),
            Released(),
            make_crashed(),
        ]
        await add_many(storage, 10)
        jobs = await take(storage, 8)
        for job, outcome in zip(jobs, outcomes, strict=False):
            await settle(storage, job, outcome)
        clock.advance(LONG_SILENCE)
        await storage.jobs.revive_stale(STALE, limit=1)
        types = Counter(event.type for event in await all_events(storage))
        ended = types["completed"] + types["failed"] + types["retried"] + types["released"]
        running = [row for row in (await read_all(storage)).values() if row.status == JobStatus.IN_PROGRESS]
        assert types["started"] - ended == len(running) == 1

    async def test_what_is_refused_is_not_told(self, storage: Storage) -> None:
        await add(storage, dedupe_key="key")
        before = await all_events(storage)
        await storage.jobs.enqueue(make_request(dedupe_key="key"))
        with pytest.raises(DedupeConflict):
            await storage.jobs.enqueue_bulk([make_request(), make_request(dedupe_key="key", on_conflict="error")])
        assert await all_events(storage) == before

    async def test_a_flush_tells_how_many_it_wrote(self, storage: Storage) -> None:
        await storage.events.flush()
        await add_many(storage, 3)
        written = await storage.events.flush()
        assert written <= 3  # a background flush may have been faster
        assert await storage.events.flush() == 0
        assert len(await storage.events.timeline(*EVER)) == 3

    async def test_the_timeline_holds_its_start_and_not_its_end(self, storage: Storage, clock: ManualClock) -> None:
        ids, times = [], []
        for _ in range(3):
            ids.append(await add(storage))
            times.append(clock.now())
            clock.advance(1)
        await storage.events.flush()
        found = await storage.events.timeline(times[0], times[2])
        assert [event.job_id for event in found] == ids[:2]
        found = await storage.events.timeline(times[1], times[2] + timedelta(microseconds=1))
        assert [event.job_id for event in found] == ids[1:]
        assert await storage.events.timeline(times[1], times[1]) == []

    async def test_the_timeline_is_bounded(self, storage: Storage) -> None:
        await add_many(storage, 5)
        await storage.events.flush()
        assert len(await storage.events.timeline(*EVER, limit=2)) == 2

    async def test_at_full_speed_they_are_counts_and_none_is_left_out(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        clock.advance(1 - clock.now().microsecond / 1_000_000)
        kept = []
        for count in (3_000, 3_000, 400, 400):
            await add_many(storage, count)
            await storage.events.flush()
            kept.append(sum(event.job_id is not None for event in await storage.events.timeline(*EVER, limit=9_000)))
            clock.advance(1)
        events = await storage.events.timeline(*EVER, limit=9_000)
        assert sum(event.count for event in events if event.type == "enqueued") == 6_800
        one_by_one = [after - before for before, after in pairwise([0, *kept])]
        assert one_by_one == [1_000, 100, 100, 400], "fewer behind a second with very many"

    async def test_events_of_others_are_kept_when_a_job_is_deleted(self, storage: Storage) -> None:
        gone, kept = await add_many(storage, 2)
        await storage.events.flush()
        await storage.jobs.delete(gone)
        assert [event.job_id for event in await all_events(storage)] == [kept]

    async def test_a_pushed_event_is_written_with_the_next_flush(self, storage: Storage, clock: ManualClock) -> None:
        job_id = await add(storage)
        event = JobEvent(clock.now_us() + 1, "released", QUEUE, KIND, job_id, 1, "own", 5)
        storage.events.push([event])
        assert (await all_events(storage))[-1] == event
        assert storage.events.dropped == 0


class TestAudit:
    async def test_nothing_was_done_to_a_new_store(self, storage: Storage) -> None:
        assert await storage.audit.list() == []

    async def test_each_act_on_a_job_is_kept_with_who_did_it(self, storage: Storage, clock: ManualClock) -> None:
        job_id = await add(storage, delay=60)
        clock.advance(1)
        await storage.jobs.run_now(job_id, actor=BOB)
        await storage.jobs.cancel(job_id, actor=BOB)
        await storage.jobs.retry(job_id, actor=BOB)
        await storage.jobs.delete(job_id, actor=BOB)
        rows = await storage.audit.list()
        assert [row.action.rpartition(".")[2] for row in rows] == ["delete", "retry", "cancel", "run_now"]
        assert all(job_id in row.target for row in rows)
        assert all((row.actor, row.at, row.count) == (BOB, clock.now(), 1) for row in rows)

    async def test_each_act_on_a_queue_is_kept(self, storage: Storage) -> None:
        await storage.queues.ensure(QUEUE)
        await storage.queues.change(QUEUE, QueueChange(max_workers=2), actor=BOB)
        await storage.queues.pause(QUEUE, actor=BOB)
        await storage.queues.resume(QUEUE, actor=BOB)
        await storage.queues.clear_cool_down(QUEUE, actor=BOB)
        await storage.queues.delete(QUEUE, actor=BOB)
        rows = await storage.audit.list()
        assert len(rows) == 5
        assert all(QUEUE in row.target and row.actor == BOB for row in rows)

    async def test_a_bulk_act_is_kept_with_its_count(self, storage: Storage) -> None:
        await add_many(storage, 3)
        await storage.jobs.act_on("delete", JobFilter(queues=(QUEUE,)), actor=BOB)
        assert sum(row.count for row in await storage.audit.list()) == 3

    async def test_what_workers_do_is_no_act(self, storage: Storage, clock: ManualClock) -> None:
        await bring(storage, clock, Stand.FAILED)
        await bring(storage, clock, Stand.RUNNING)
        clock.advance(LONG_SILENCE)
        await storage.jobs.revive_stale(STALE)
        await storage.maintenance.cleanup()
        assert await storage.audit.list() == []

    async def test_the_newest_acts_are_listed(self, storage: Storage) -> None:
        await storage.queues.ensure(QUEUE)
        for total in range(5):
            await storage.queues.change(QUEUE, QueueChange(max_workers=total))
        rows = await storage.audit.list(limit=2)
        assert len(rows) == 2
        assert rows == (await storage.audit.list())[:2]
