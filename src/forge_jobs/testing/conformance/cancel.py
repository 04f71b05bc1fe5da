"""Cancel and delete: a waiting job ends, a running one is asked to stop, a finished one stays as it is."""

from __future__ import annotations

import asyncio

import pytest

from forge_jobs.clock import ManualClock
from forge_jobs.ids import new_id
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.answers import CancelOutcome, DeleteOutcome, Retried
from forge_jobs.storage.types.finalize import Applied, Done, FinalizeOutcome, Released
from forge_jobs.storage.types.job import DeadReason, JobStatus
from forge_jobs.testing.conformance.arrange import (
    LONG_SILENCE,
    STALE,
    Stand,
    add,
    all_events,
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
from forge_jobs.testing.factories import KIND, make_crashed, make_dead, make_failed, make_request, make_throttled

WAITING = [stand for stand in Stand if stand.is_waiting]
RUNNING = [stand for stand in Stand if stand.is_running]
FINISHED = [stand for stand in Stand if stand.is_finished]
CANCELLED = Applied(status=JobStatus.DEAD, dead_reason=DeadReason.CANCELLED)


class TestCancel:
    @pytest.mark.parametrize("stand", WAITING)
    async def test_a_waiting_job_never_starts(self, storage: Storage, clock: ManualClock, stand: Stand) -> None:
        before = await bring(storage, clock, stand, dedupe_key="key")
        assert await storage.jobs.cancel(before.id) is CancelOutcome.CANCELLED
        row = await read(storage, before.id)
        assert (row.status, row.dead_reason, row.completed_at) == (
            JobStatus.DEAD, DeadReason.CANCELLED, clock.now(),
        )  # fmt: skip
        assert row.last_error == before.last_error
        clock.advance("1h")
        assert await take(storage, 5) == ()
        await add(storage, dedupe_key="key")
        assert (await events_of(storage, before.id))[-1] == "failed"

    @pytest.mark.parametrize("stand", RUNNING)
    async def test_a_running_job_is_asked_once(self, storage: Storage, clock: ManualClock, stand: Stand) -> None:
        before = await bring(storage, clock, stand)
        assert await storage.jobs.cancel(before.id) is CancelOutcome.CANCEL_REQUESTED
        asked = await read(storage, before.id)
        assert asked.status == JobStatus.IN_PROGRESS
        assert asked.cancel_requested_at == (before.cancel_requested_at or clock.now())
        clock.advance(5)
        assert await storage.jobs.cancel(before.id) is CancelOutcome.CANCEL_REQUESTED
        assert await read(storage, before.id) == asked

    @pytest.mark.parametrize("stand", FINISHED)
    async def test_a_finished_job_stays_as_it_is(self, storage: Storage, clock: ManualClock, stand: Stand) -> None:
        before = await bring(storage, clock, stand)
        assert await storage.jobs.cancel(before.id) is CancelOutcome.ALREADY_FINISHED
        assert await read(storage, before.id) == before

    async def test_a_job_that_is_not_there_is_not_found(self, storage: Storage) -> None:
        assert await storage.jobs.cancel(new_id()) is CancelOutcome.NOT_FOUND

    async def test_a_running_job_that_finishes_first_is_done(self, storage: Storage, clock: ManualClock) -> None:
        await bring(storage, clock, Stand.CANCEL_REQUESTED)
        (row,) = (await read_all(storage)).values()
        assert await storage.jobs.finalize(row.id, row.fence, Done()) == Applied(status=JobStatus.DONE)

    @pytest.mark.parametrize(
        "outcome",
        [make_failed(), make_dead(), make_throttled(cool_down=False), Released(), make_crashed()],
        ids=["failed", "dead", "throttled", "released", "crashed"],
    )
    async def test_any_other_outcome_of_a_job_asked_to_stop_is_cancelled(
        self, storage: Storage, clock: ManualClock, outcome: FinalizeOutcome
    ) -> None:
        row = await bring(storage, clock, Stand.CANCEL_REQUESTED, dedupe_key="key")
        assert await storage.jobs.finalize(row.id, row.fence, outcome) == CANCELLED
        after = await read(storage, row.id)
        assert (after.dead_reason, after.completed_at) == (DeadReason.CANCELLED, clock.now())
        assert (await history(storage, row.id))[-1].kind_of_error == "cancelled"
        await add(storage, dedupe_key="key")

    async def test_the_wish_survives_the_death_of_the_worker(self, storage: Storage, clock: ManualClock) -> None:
        row = await bring(storage, clock, Stand.CANCEL_REQUESTED)
        clock.advance(LONG_SILENCE)
        (revived,) = await storage.jobs.revive_stale(STALE)
        assert (revived.status, revived.dead_reason) == ("dead", "cancelled")
        after = await read(storage, row.id)
        assert (after.crashes, after.dead_reason) == (1, DeadReason.CANCELLED)

    async def test_a_retry_forgets_the_wish(self, storage: Storage, clock: ManualClock) -> None:
        row = await bring(storage, clock, Stand.CANCEL_REQUESTED)
        await storage.jobs.finalize(row.id, row.fence, Released())
        assert await storage.jobs.retry(row.id) == Retried()
        await run(storage, make_failed())
        assert (await read(storage, row.id)).status == JobStatus.FAILED

    async def test_a_cancel_racing_a_finish_ends_in_one_of_both(self, storage: Storage, neighbour: Storage) -> None:
        for _ in range(10):
            await add(storage)
            job = await take_one(storage)
            answer, settled = await asyncio.gather(
                neighbour.jobs.cancel(job.id), settle(storage, job, make_failed(delay=0))
            )
            row = await read(storage, job.id)
            match answer:
                case CancelOutcome.CANCEL_REQUESTED:  # the cancel came first, and the finish saw it
                    assert settled == CANCELLED
                case CancelOutcome.CANCELLED:  # the finish came first, and the cancel found a waiting job
                    assert settled == Applied(status=JobStatus.FAILED)
                case _:
                    raise AssertionError(answer)
            assert (row.status, row.dead_reason) == (JobStatus.DEAD, DeadReason.CANCELLED)

    async def test_a_cancel_racing_a_claim_is_before_or_after_it(self, storage: Storage, neighbour: Storage) -> None:
        for _ in range(10):
            job_id = await add(storage)
            answer, jobs = await asyncio.gather(neighbour.jobs.cancel(job_id), take(storage))
            row = await read(storage, job_id)
            if jobs:
                assert answer is CancelOutcome.CANCEL_REQUESTED
                assert (row.status, row.cancel_requested_at is None) == (JobStatus.IN_PROGRESS, False)
                await settle(storage, jobs[0], Done())
            else:
                assert answer is CancelOutcome.CANCELLED
                assert row.status == JobStatus.DEAD


class TestDelete:
    @pytest.mark.parametrize("stand", WAITING + FINISHED)
    async def test_a_job_goes_with_all_that_is_known_of_it(
        self, storage: Storage, clock: ManualClock, stand: Stand
    ) -> None:
        row = await bring(storage, clock, stand, dedupe_key="key")
        assert await events_of(storage, row.id) != []
        assert await storage.jobs.delete(row.id) is DeleteOutcome.DELETED
        assert await storage.jobs.get(row.id) is None
        assert await read_all(storage) == {}
        assert await all_events(storage) == []
        assert await storage.jobs.delete(row.id) is DeleteOutcome.NOT_FOUND
        await add(storage, dedupe_key="key")

    @pytest.mark.parametrize("stand", RUNNING)
    async def test_a_running_job_is_asked_to_stop_instead(
        self, storage: Storage, clock: ManualClock, stand: Stand
    ) -> None:
        before = await bring(storage, clock, stand)
        assert await storage.jobs.delete(before.id) is DeleteOutcome.CANCEL_REQUESTED
        after = await read(storage, before.id)
        assert (after.status, after.fence) == (JobStatus.IN_PROGRESS, before.fence)
        assert after.cancel_requested_at == (before.cancel_requested_at or clock.now())

    async def test_a_job_deleted_while_running_ends_cancelled_and_goes_with_the_next_delete(
        self, storage: Storage
    ) -> None:
        await add(storage)
        job = await take_one(storage)
        await storage.jobs.delete(job.id)
        assert await settle(storage, job, Released()) == CANCELLED
        assert await storage.jobs.delete(job.id) is DeleteOutcome.DELETED
        assert await storage.jobs.get(job.id) is None

    async def test_a_job_that_is_not_there_is_not_found(self, storage: Storage) -> None:
        assert await storage.jobs.delete(new_id()) is DeleteOutcome.NOT_FOUND

    async def test_a_delete_racing_a_claim_loses_nothing(self, storage: Storage, neighbour: Storage) -> None:
        for _ in range(10):
            outcome = await storage.jobs.enqueue(make_request(KIND))
            answer, jobs = await asyncio.gather(neighbour.jobs.delete(outcome.id), take(storage))
            if jobs:
                assert answer is DeleteOutcome.CANCEL_REQUESTED
                assert await settle(storage, jobs[0], Done()) == Applied(status=JobStatus.DONE)
            else:
                assert answer is DeleteOutcome.DELETED
