"""What a job logged is kept within its bounds, under the fence of its run, and goes with the job."""

from __future__ import annotations

from datetime import timedelta

import pytest

from forge_jobs import limits
from forge_jobs.clock import ManualClock, to_us
from forge_jobs.ids import new_id
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.finalize import Done
from forge_jobs.storage.types.job import JobFilter, JobRecord
from forge_jobs.storage.types.log import LogLine, NewLine, RunLog
from forge_jobs.testing.conformance.arrange import (
    EVER,
    LONG_SILENCE,
    STALE,
    add,
    add_many,
    run,
    settle,
    take,
    take_one,
)
from forge_jobs.testing.factories import KIND, QUEUE, make_failed

DAY = timedelta(days=1)


def line(number: int, message: str = "said", *, at_us: int = 1_000, size: int = 10, skipped: int = 0) -> NewLine:
    return NewLine(at_us, number, "INFO", "app", message, size, skipped)


def log_of(job: JobRecord, *lines: NewLine, ended: bool = False) -> RunLog:
    return RunLog(job_id=job.id, fence=job.fence, attempt=job.attempts, lines=lines, ended=ended)


async def messages(storage: Storage, job: JobRecord) -> list[str]:
    return [one.message for one in await storage.logs.of_job(job.id)]


async def running(storage: Storage) -> JobRecord:
    await add(storage)
    return await take_one(storage)


class TestJobLog:
    async def test_a_line_says_when_where_and_of_which_job(self, storage: Storage, clock: ManualClock) -> None:
        job = await running(storage)
        at = to_us(clock.now())
        assert await storage.logs.append([log_of(job, line(1, "hällo\n\x1b[2J", at_us=at))]) == set()
        (found,) = await storage.logs.of_job(job.id)
        assert found == LogLine(at, job.id, QUEUE, KIND, 1, 1, found.seq, "INFO", "app", "hällo\n\x1b[2J", 0)
        assert await storage.logs.between(*EVER) == [found]

    async def test_lines_come_in_order_and_from_where_they_were_read_last(self, storage: Storage) -> None:
        job = await running(storage)
        await storage.logs.append([log_of(job, line(1, "a"), line(2, "b"))])
        await storage.logs.append([log_of(job, line(3, "c"))])
        assert await messages(storage, job) == ["a", "b", "c"]
        first = (await storage.logs.of_job(job.id, limit=1))[0]
        assert [one.message for one in await storage.logs.of_job(job.id, after=first.seq)] == ["b", "c"]

    async def test_lines_of_a_later_run_come_later(self, storage: Storage, clock: ManualClock) -> None:
        first = await running(storage)
        await settle(storage, first, make_failed(delay=0))
        second = await take_one(storage)
        await storage.logs.append([log_of(second, line(1, "second"))])
        await storage.logs.append([log_of(first, line(7, "first"), ended=True)])
        assert [(one.message, one.attempt) for one in await storage.logs.of_job(first.id)] == [
            ("first", 1),
            ("second", 2),
        ]

    async def test_appending_again_changes_nothing(self, storage: Storage) -> None:
        job = await running(storage)
        for _ in range(2):
            await storage.logs.append([log_of(job, line(1, "once"))])
        assert await messages(storage, job) == ["once"]

    async def test_a_run_that_lost_its_job_leaves_no_line(self, storage: Storage, clock: ManualClock) -> None:
        lost = await running(storage)
        clock.advance(LONG_SILENCE)
        await storage.jobs.revive_stale(STALE)
        assert await storage.logs.append([log_of(lost, line(1))]) == set()
        assert await messages(storage, lost) == []

    async def test_a_run_that_ended_in_order_leaves_its_last_lines(self, storage: Storage) -> None:
        job = await running(storage)
        await settle(storage, job, Done())
        await storage.logs.append([log_of(job, line(1))])
        assert await messages(storage, job) == ["said"]

    async def test_one_job_that_is_gone_costs_the_others_nothing(self, storage: Storage) -> None:
        job = await running(storage)
        gone = RunLog(job_id=new_id(), fence=1, attempt=1, lines=(line(1),), ended=True)
        assert await storage.logs.append([gone, log_of(job, line(1))]) == set()
        assert await storage.logs.of_job(gone.job_id) == []
        assert await messages(storage, job) == ["said"]

    @pytest.mark.parametrize("size", [10, limits.LOG_LINE_BYTES])
    async def test_of_a_long_log_the_newest_lines_are_kept(self, storage: Storage, size: int) -> None:
        job = await running(storage)
        kept = min(limits.LOG_LINES, limits.LOG_BYTES // size)
        for start in range(1, 1_201, 300):
            lines = [line(number, str(number), size=size) for number in range(start, start + 300)]
            await storage.logs.append([log_of(job, *lines)])
        found = await storage.logs.of_job(job.id, limit=2_000)
        assert [one.message for one in found] == [str(number) for number in range(1_201 - kept, 1_201)]
        assert sum(one.skipped for one in found) == found[0].skipped == 1_200 - kept

    async def test_lines_dropped_before_are_counted_with_those_dropped_later(self, storage: Storage) -> None:
        job = await running(storage)
        await storage.logs.append([log_of(job, line(1), line(100, skipped=98))])
        lines = [line(number) for number in range(101, 101 + limits.LOG_LINES)]
        await storage.logs.append([log_of(job, *lines)])
        found = await storage.logs.of_job(job.id, limit=2_000)
        assert (len(found), found[0].skipped) == (limits.LOG_LINES, 100)

    async def test_the_bound_is_of_all_runs_of_a_job(self, storage: Storage) -> None:
        first = await running(storage)
        await storage.logs.append([log_of(first, *(line(n, "first") for n in range(1, 401)))])
        await settle(storage, first, make_failed(delay=0))
        second = await take_one(storage)
        await storage.logs.append([log_of(second, *(line(n, "second") for n in range(1, 201)))])
        found = await messages(storage, second)
        assert (found.count("first"), found.count("second")) == (300, 200)

    async def test_lines_of_many_jobs_are_told_by_time(self, storage: Storage) -> None:
        await add_many(storage, 3)
        jobs = await take(storage, 3)
        await storage.logs.append([log_of(job, line(1, at_us=10 - place)) for place, job in enumerate(jobs)])
        found = await storage.logs.between(*EVER)
        assert [one.job_id for one in found] == [job.id for job in reversed(jobs)]
        assert len(await storage.logs.between(*EVER, limit=2)) == 2

    async def test_the_log_goes_with_its_job(self, storage: Storage) -> None:
        await add_many(storage, 3)
        jobs = await take(storage, 3)
        await storage.logs.append([log_of(job, line(1)) for job in jobs])
        for job in jobs:
            await settle(storage, job, Done())
        await storage.jobs.delete(jobs[0].id)
        await storage.jobs.act_on("delete", JobFilter(ids=(jobs[1].id,)))
        assert [await messages(storage, job) for job in jobs] == [[], [], ["said"]]
        assert await add(storage, id=jobs[0].id) == jobs[0].id  # nothing of it is left
        assert await messages(storage, jobs[0]) == []

    async def test_retention_takes_the_log_along(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage)
        job = await run(storage, Done())
        await storage.logs.append([log_of(job, line(1))])
        clock.advance(8 * DAY)
        assert (await storage.maintenance.cleanup()).done == 1
        await add(storage, id=job.id)
        assert await messages(storage, job) == []
