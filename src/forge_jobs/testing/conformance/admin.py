"""What people do with jobs: retry them, run them now, act on many, list and count."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs.clock import ManualClock
from forge_jobs.ids import JobId, new_id
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.answers import BulkReport, NotRetryable, Outstanding, Retried, SlotHeld
from forge_jobs.storage.types.finalize import Done
from forge_jobs.storage.types.job import DeadReason, Deduped, JobFilter, JobStatus
from forge_jobs.testing.conformance.arrange import (
    Stand,
    add,
    add_many,
    bring,
    events_of,
    history,
    read,
    read_all,
    run,
    settle,
    take,
    take_one,
)
from forge_jobs.testing.factories import KIND, QUEUE, make_crashed, make_dead, make_failed, make_request, make_throttled

RETRYABLE = [Stand.FAILED, Stand.DEAD]


class TestRetry:
    @pytest.mark.parametrize("stand", RETRYABLE)
    async def test_the_job_is_due_now_with_a_fresh_budget(
        self, storage: Storage, clock: ManualClock, stand: Stand
    ) -> None:
        before = await bring(storage, clock, stand)
        assert await storage.jobs.retry(before.id) == Retried()
        row = await read(storage, before.id)
        assert (row.status, row.scheduled_at) == (JobStatus.PENDING, clock.now())
        assert (row.attempts, row.crashes, row.dead_reason, row.completed_at) == (0, 0, None, None)
        assert (row.fence, row.last_error, row.enqueued_at) == (before.fence, before.last_error, before.enqueued_at)
        assert len(await history(storage, before.id)) == 1
        job = await take_one(storage)
        assert (job.id, job.attempts, job.fence) == (before.id, 1, before.fence + 1)
        assert (await events_of(storage, before.id))[-2:] == ["requeued", "started"]

    @pytest.mark.parametrize("stand", [stand for stand in Stand if stand not in RETRYABLE])
    async def test_any_other_job_is_left_alone(self, storage: Storage, clock: ManualClock, stand: Stand) -> None:
        before = await bring(storage, clock, stand)
        assert await storage.jobs.retry(before.id) == NotRetryable(before.status)
        assert await read(storage, before.id) == before

    async def test_a_job_that_is_not_there_is_not_retryable(self, storage: Storage) -> None:
        assert await storage.jobs.retry(new_id()) == NotRetryable(None)

    async def test_crashes_are_forgiven(self, storage: Storage) -> None:
        job_id = await add(storage, max_attempts=9)
        await run(storage, make_crashed())
        await run(storage, make_crashed())
        await run(storage, make_crashed(), alone=True)
        await storage.jobs.retry(job_id)
        await run(storage, make_crashed())
        row = await read(storage, job_id)
        assert (row.status, row.crashes, row.attempts) == (JobStatus.FAILED, 1, 1)

    async def test_a_failed_job_keeps_its_own_key(self, storage: Storage, clock: ManualClock) -> None:
        row = await bring(storage, clock, Stand.FAILED, dedupe_key="key")
        assert await storage.jobs.retry(row.id) == Retried()

    async def test_a_dead_job_takes_its_free_key_again(self, storage: Storage, clock: ManualClock) -> None:
        row = await bring(storage, clock, Stand.DEAD, dedupe_key="key")
        assert await storage.jobs.retry(row.id) == Retried()
        answer = await storage.jobs.enqueue(make_request(dedupe_key="key"))
        assert answer == Deduped(row.id, JobStatus.PENDING)

    @pytest.mark.parametrize("holder", [stand for stand in Stand if not stand.is_finished])
    async def test_a_dead_job_whose_key_is_held_stays_dead(
        self, storage: Storage, clock: ManualClock, holder: Stand
    ) -> None:
        dead = await bring(storage, clock, Stand.DEAD, dedupe_key="key")
        held = await bring(storage, clock, holder, dedupe_key="key")
        assert await storage.jobs.retry(dead.id) == SlotHeld(held.id)
        assert await read_all(storage) == {dead.id: dead, held.id: held}

    async def test_a_key_held_by_a_finished_unique_job_is_held_for_a_retry_too(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        dead = await bring(storage, clock, Stand.DEAD, dedupe_key="key")
        held = await bring(storage, clock, Stand.DONE, dedupe_key="key", unique_for=3600)
        assert await storage.jobs.retry(dead.id) == SlotHeld(held.id)
        assert (await read(storage, dead.id)).status == JobStatus.DEAD

    async def test_a_unique_job_is_not_in_its_own_way(self, storage: Storage, clock: ManualClock) -> None:
        dead = await bring(storage, clock, Stand.DEAD, dedupe_key="key", unique_for=3600)
        assert await storage.jobs.retry(dead.id) == Retried()

    async def test_concurrent_retries_of_one_job_count_once(self, storage: Storage, neighbour: Storage) -> None:
        job_id = await add(storage)
        await run(storage, make_dead())
        answers = await asyncio.gather(*(s.jobs.retry(job_id) for s in (storage, neighbour) * 3))
        assert answers.count(Retried()) == 1
        await neighbour.events.flush()
        assert (await events_of(storage, job_id)).count("requeued") == 1

    async def test_concurrent_retries_of_one_key_revive_one_job(self, storage: Storage, neighbour: Storage) -> None:
        dead = []
        for _ in range(4):
            dead.append(await add(storage, dedupe_key="key"))
            await run(storage, make_dead())
        answers = await asyncio.gather(*((storage, neighbour)[n % 2].jobs.retry(job) for n, job in enumerate(dead)))
        assert answers.count(Retried()) == 1
        assert [status for status in await _statuses(storage) if status != "dead"] == ["pending"]


class TestRunNow:
    async def test_a_scheduled_job_is_due_at_once(self, storage: Storage, clock: ManualClock) -> None:
        job_id = await add(storage, delay=3600)
        clock.advance(1)
        assert await storage.jobs.run_now(job_id) is True
        assert (await read(storage, job_id)).scheduled_at == clock.now()
        assert (await take_one(storage)).id == job_id

    @pytest.mark.parametrize("stand", [stand for stand in Stand if stand is not Stand.PENDING])
    async def test_any_other_job_is_left_alone(self, storage: Storage, clock: ManualClock, stand: Stand) -> None:
        before = await bring(storage, clock, stand)
        assert await storage.jobs.run_now(before.id) is False
        assert await read(storage, before.id) == before

    async def test_a_job_that_is_not_there_cannot_run(self, storage: Storage) -> None:
        assert await storage.jobs.run_now(new_id()) is False


class TestActOnMany:
    async def test_retry_takes_every_failed_and_dead_job_of_the_filter(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        stands = {stand: (await bring(storage, clock, stand, kind=stand.name.lower())).id for stand in Stand}
        report = await storage.jobs.act_on("retry", JobFilter(queues=(QUEUE,)))
        assert (report.changed, sum(report.skipped.values())) == (2, len(Stand) - 2)
        rows = await read_all(storage)
        assert {s for s, job_id in stands.items() if rows[job_id].status == "pending"} == {Stand.PENDING, *RETRYABLE}

    async def test_cancel_ends_the_waiting_and_asks_the_running(self, storage: Storage, clock: ManualClock) -> None:
        stands = {stand: (await bring(storage, clock, stand, kind=stand.name.lower())).id for stand in Stand}
        report = await storage.jobs.act_on("cancel", JobFilter(queues=(QUEUE,)))
        assert report.changed + sum(report.skipped.values()) == len(Stand)
        rows = await read_all(storage)
        for stand, job_id in stands.items():
            row = rows[job_id]
            if stand.is_waiting:
                assert row.dead_reason == DeadReason.CANCELLED
            elif stand.is_running:
                assert (row.status, row.cancel_requested_at is None) == (JobStatus.IN_PROGRESS, False)
            else:
                assert (row.status, row.dead_reason) in (("done", None), ("dead", DeadReason.REJECTED))

    async def test_delete_never_removes_a_running_job(self, storage: Storage, clock: ManualClock) -> None:
        stands = {stand: (await bring(storage, clock, stand, kind=stand.name.lower())).id for stand in Stand}
        await storage.jobs.act_on("delete", JobFilter(queues=(QUEUE,)))
        left = await read_all(storage)
        assert set(left) == {job_id for stand, job_id in stands.items() if stand.is_running}
        assert all(row.cancel_requested_at is not None for row in left.values())

    async def test_run_now_takes_the_scheduled_ones(self, storage: Storage, clock: ManualClock) -> None:
        later = await add(storage, delay=3600)
        failed = await bring(storage, clock, Stand.FAILED)
        report = await storage.jobs.act_on("run_now", JobFilter(queues=(QUEUE,)))
        assert (report.changed, sum(report.skipped.values())) == (1, 1)
        assert (await read(storage, later)).scheduled_at == clock.now()
        assert await read(storage, failed.id) == failed

    async def test_only_what_the_filter_names_is_touched(self, storage: Storage) -> None:
        mine, other = await add(storage, queue="mine"), await add(storage, queue="other")
        assert await storage.jobs.act_on("delete", JobFilter(queues=("mine",))) == BulkReport(changed=1)
        assert list(await read_all(storage)) == [other]
        assert await storage.jobs.act_on("delete", JobFilter(ids=(mine,))) == BulkReport(changed=0)

    async def test_an_empty_list_names_nothing(self, storage: Storage) -> None:
        await add(storage)
        for nothing in (JobFilter(ids=()), JobFilter(queues=()), JobFilter(statuses=(), queues=(QUEUE,))):
            assert await storage.jobs.act_on("delete", nothing) == BulkReport(changed=0)
        assert len(await read_all(storage)) == 1

    async def test_of_two_dead_jobs_with_one_key_one_is_retried(self, storage: Storage) -> None:
        for _ in range(2):
            await add(storage, dedupe_key="key")
            await run(storage, make_dead())
        report = await storage.jobs.act_on("retry", JobFilter(queues=(QUEUE,)))
        assert (report.changed, sum(report.skipped.values())) == (1, 1)
        assert sorted(await _statuses(storage)) == ["dead", "pending"]

    async def test_skipped_rows_never_hide_the_later_ones(self, storage: Storage) -> None:
        await add_many(storage, 700)
        running = await take(storage, 600)
        await _kill(storage, 100)
        assert len(running) == 600
        report = await storage.jobs.act_on("retry", JobFilter(queues=(QUEUE,)))
        assert (report.changed, sum(report.skipped.values())) == (100, 600)

    async def test_a_limit_bounds_what_is_touched(self, storage: Storage) -> None:
        await add_many(storage, 5)
        await storage.jobs.act_on("delete", JobFilter(queues=(QUEUE,)), limit=2)
        assert len(await read_all(storage)) == 3

    async def test_each_changed_job_has_its_event(self, storage: Storage) -> None:
        ids = await add_many(storage, 2)
        await storage.jobs.act_on("cancel", JobFilter(ids=tuple(ids)))
        assert [await events_of(storage, job_id) for job_id in ids] == [["enqueued", "failed"]] * 2


class TestList:
    async def test_the_newest_come_first(self, storage: Storage, clock: ManualClock) -> None:
        ids = []
        for _ in range(3):
            ids.append(await add(storage))
            clock.advance(1)
        ids += await add_many(storage, 2)
        assert await _ids(storage) == ids[::-1]

    async def test_pages_follow_each_other_without_gap_or_overlap(self, storage: Storage) -> None:
        ids = await add_many(storage, 7)
        seen, cursor = [], None
        for size in (3, 3, 1):
            page = await storage.jobs.list_jobs(JobFilter(), limit=3, cursor=cursor)
            assert (len(page.items), page.total) == (size, 7)
            seen += [row.id for row in page.items]
            cursor = page.next_cursor
        assert (seen, cursor) == (ids[::-1], None)

    async def test_new_jobs_do_not_disturb_the_paging(self, storage: Storage) -> None:
        ids = await add_many(storage, 4)
        page = await storage.jobs.list_jobs(JobFilter(), limit=2)
        await add_many(storage, 3)
        rest = await storage.jobs.list_jobs(JobFilter(), limit=10, cursor=page.next_cursor)
        assert [row.id for row in page.items + rest.items] == ids[::-1]

    async def test_the_last_full_page_has_no_successor(self, storage: Storage) -> None:
        await add_many(storage, 2)
        assert (await storage.jobs.list_jobs(JobFilter(), limit=2)).next_cursor is None

    async def test_an_empty_store_has_an_empty_page(self, storage: Storage) -> None:
        page = await storage.jobs.list_jobs(JobFilter())
        assert (page.items, page.next_cursor, page.total) == ((), None, 0)

    async def test_a_row_in_the_list_is_the_row_itself(self, storage: Storage, clock: ManualClock) -> None:
        for stand in Stand:
            await bring(storage, clock, stand, kind=stand.name.lower(), tags=("a",), payload={"n": stand.value})
        for job_id, row in (await read_all(storage)).items():
            assert row == await read(storage, job_id)


class TestFilter:
    """Each filter is tried on one list of jobs; the list, the count and the bulk acts share it."""

    @pytest.mark.parametrize(
        ("chosen", "expected"),
        [
            (JobFilter(), "abcdef"),
            (JobFilter(queues=("q2",)), "cd"),
            (JobFilter(queues=("q2", "q3")), "cdef"),
            (JobFilter(kinds=("blue",)), "bdf"),
            (JobFilter(statuses=("pending",)), "bcd"),
            (JobFilter(statuses=("dead", "done")), "af"),
            (JobFilter(dead_reasons=("rejected",)), "f"),
            (JobFilter(dead_reasons=("crashed", "expired")), ""),
            (JobFilter(key="Key_1"), "c"),
            (JobFilter(key="key_1"), ""),
            (JobFilter(tag="eu"), "bd"),
            (JobFilter(tag="e"), ""),
            (JobFilter(search="100%"), "d"),
            (JobFilter(search="HELLO"), "c"),
            (JobFilter(search="h_llo"), ""),
            (JobFilter(error="Timed OUT"), "e"),
            (JobFilter(error="%"), ""),
            (JobFilter(queues=("q1", "q2"), kinds=("blue",), statuses=("pending",), tag="eu"), "bd"),
            (JobFilter(queues=("q2",), dead_reasons=("rejected",)), ""),
            (JobFilter(queues=()), ""),
            (JobFilter(kinds=()), ""),
            (JobFilter(statuses=()), ""),
            (JobFilter(statuses=("no such status",)), ""),
        ],
        ids=lambda value: "".join(str(value).split("=None, ")[-1:])[:60] if isinstance(value, JobFilter) else value,
    )
    async def test_it_names_these_jobs(self, storage: Storage, chosen: JobFilter, expected: str) -> None:
        ids = await self._six(storage)
        assert await _names(storage, chosen, ids) == expected

    async def test_ids_name_these_jobs_and_unknown_ones_nothing(self, storage: Storage) -> None:
        ids = await self._six(storage)
        assert await _names(storage, JobFilter(ids=(ids["b"], ids["e"], new_id())), ids) == "be"
        assert await _names(storage, JobFilter(ids=()), ids) == ""

    async def test_times_bound_the_enqueue_inclusively(self, storage: Storage, clock: ManualClock) -> None:
        ids, times = {}, {}
        for name in "abc":
            ids[name], times[name] = await add(storage), clock.now()
            clock.advance(1)
        micro = timedelta(microseconds=1)
        assert await _names(storage, JobFilter(since=times["b"]), ids) == "bc"
        assert await _names(storage, JobFilter(since=times["b"] + micro), ids) == "c"
        assert await _names(storage, JobFilter(until=times["b"]), ids) == "ab"
        assert await _names(storage, JobFilter(until=times["b"] - micro), ids) == "a"
        assert await _names(storage, JobFilter(since=times["b"], until=times["b"]), ids) == "b"

    async def _six(self, storage: Storage) -> dict[str, JobId]:
        ids = {
            "a": await add(storage, kind="red", queue="q1"),
            "b": await add(storage, kind="blue", queue="q1", tags=("eu", "fast")),
            "c": await add(storage, kind="red", queue="q2", dedupe_key="Key_1", payload={"text": "Hello"}),
            "d": await add(storage, kind="blue", queue="q2", tags=("eu",), payload="100%"),
            "e": await add(storage, kind="red", queue="q3"),
            "f": await add(storage, kind="blue", queue="q3"),
        }
        await run(storage, Done(), queue="q1", kinds=("red",))
        await run(storage, make_failed("upstream timed out", delay=60), queue="q3", kinds=("red",))
        await run(storage, make_dead(), queue="q3", kinds=("blue",))
        return ids


class TestCounts:
    async def test_jobs_are_counted_by_status(self, storage: Storage, clock: ManualClock) -> None:
        for stand in Stand:
            await bring(storage, clock, stand, kind=stand.name.lower())
        counts = await storage.jobs.count(JobFilter())
        assert {status: n for status, n in counts.items() if n} == {
            "pending": 1, "in_progress": 4, "failed": 1, "done": 1, "dead": 1,
        }  # fmt: skip

    async def test_what_is_left_to_do_is_ready_running_or_waiting(self, storage: Storage) -> None:
        await add_many(storage, 3)
        await add(storage, delay=60)
        running, failed, done = await take(storage, 3)
        await settle(storage, failed, make_failed(delay=60))
        await settle(storage, done, Done())
        await add_many(storage, 2)
        await add(storage, kind="other")
        await add(storage, queue="other")
        assert (await read(storage, running.id)).status == JobStatus.IN_PROGRESS
        left = await storage.jobs.outstanding([QUEUE], [KIND])
        assert (left.ready, left.running, left.waiting > 0) == (2, 1, True)
        left = await storage.jobs.outstanding([QUEUE, "other"], [KIND, "other"])
        assert (left.ready, left.running) == (4, 1)
        assert await storage.jobs.outstanding([], [KIND]) == Outstanding(ready=0, running=0, waiting=0)
        assert await storage.jobs.outstanding([QUEUE], []) == Outstanding(ready=0, running=0, waiting=0)

    async def test_jobs_of_the_future_wait_and_are_not_ready(self, storage: Storage) -> None:
        await add(storage, delay=60)
        assert await storage.jobs.outstanding([QUEUE], [KIND]) == Outstanding(ready=0, running=0, waiting=1)

    async def test_finished_jobs_are_nothing_to_do(self, storage: Storage) -> None:
        await add_many(storage, 2)
        done, dead = await take(storage, 2)
        await settle(storage, done, Done())
        await settle(storage, dead, make_dead())
        assert await storage.jobs.outstanding([QUEUE], [KIND]) == Outstanding(ready=0, running=0, waiting=0)

    async def test_a_retry_that_is_due_is_ready(self, storage: Storage) -> None:
        await add(storage)
        await run(storage, make_failed(delay=0))
        assert (await storage.jobs.outstanding([QUEUE], [KIND])).ready == 1

    async def test_a_paused_queue_has_nothing_ready(self, storage: Storage) -> None:
        await add(storage)
        await storage.queues.pause(QUEUE)
        assert (await storage.jobs.outstanding([QUEUE], [KIND])).ready == 0


class TestNextDue:
    async def test_nothing_waits_in_an_empty_store(self, storage: Storage) -> None:
        assert await storage.jobs.next_due([QUEUE]) is None

    async def test_it_is_the_soonest_job_of_these_queues_that_is_not_due_yet(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await add(storage)
        await add(storage, queue="other", delay=5)
        await add(storage, delay=60)
        await add(storage, delay=30, priority=9)
        assert await storage.jobs.next_due([QUEUE]) == clock.now() + timedelta(seconds=30)
        assert await storage.jobs.next_due([QUEUE, "other"]) == clock.now() + timedelta(seconds=5)
        clock.advance(40)
        assert await storage.jobs.next_due([QUEUE]) == clock.now() + timedelta(seconds=20)

    async def test_a_retry_counts_as_well(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage)
        await run(storage, make_failed(delay=7))
        assert await storage.jobs.next_due([QUEUE]) == clock.now() + timedelta(seconds=7)

    async def test_the_end_of_a_cool_down_counts_as_well(self, storage: Storage, clock: ManualClock) -> None:
        await add_many(storage, 2)
        await run(storage, make_throttled(20))
        assert await storage.jobs.next_due([QUEUE]) == clock.now() + timedelta(seconds=20)


async def _ids(storage: Storage) -> list[JobId]:
    return [row.id for row in (await storage.jobs.list_jobs(JobFilter(), limit=1_000)).items]


async def _statuses(storage: Storage) -> list[str]:
    return [row.status for row in (await read_all(storage)).values()]


async def _names(storage: Storage, chosen: JobFilter, ids: dict[str, Any]) -> str:
    """The names of the jobs that the list gives; the count must agree with it."""
    page = await storage.jobs.list_jobs(chosen, limit=1_000)
    assert page.total == len(page.items) == sum((await storage.jobs.count(chosen)).values())
    found = {row.id for row in page.items}
    return "".join(name for name, job_id in ids.items() if job_id in found)


async def _kill(storage: Storage, count: int) -> None:
    for job in await take(storage, count):
        await settle(storage, job, make_dead())
