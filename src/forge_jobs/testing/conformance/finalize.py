"""An outcome is written once, by the owner of the claim, or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from forge_jobs import limits
from forge_jobs.clock import ManualClock
from forge_jobs.ids import new_id
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.answers import Retried
from forge_jobs.storage.types.finalize import (
    Applied,
    Dead,
    Done,
    ErrorText,
    Failed,
    Finalize,
    FinalizeOutcome,
    Lost,
    Released,
    Repeated,
)
from forge_jobs.storage.types.job import DeadReason, ErrorKind, JobStatus
from forge_jobs.testing.conformance.arrange import (
    LONG_SILENCE,
    STALE,
    Stand,
    add,
    add_many,
    all_events,
    bring,
    history,
    read,
    read_all,
    run,
    settle,
    take,
    take_one,
)
from forge_jobs.testing.factories import HOST, QUEUE, make_crashed, make_dead, make_failed, make_throttled

OUTCOMES: dict[str, FinalizeOutcome] = {
    "done": Done(),
    "failed": make_failed(delay=0),
    "dead": make_dead(),
    "throttled": make_throttled(10),
    "released": Released(),
    "crashed": make_crashed(),
}
every_outcome = pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES.keys())


class TestFinalize:
    async def test_the_answer_names_the_status_and_the_reason(self, storage: Storage) -> None:
        await add_many(storage, 6, max_attempts=2)
        jobs = await take(storage, 6)
        answers = [await settle(storage, job, outcome) for job, outcome in zip(jobs, OUTCOMES.values(), strict=True)]
        assert answers == [
            Applied(status=JobStatus.DONE),
            Applied(status=JobStatus.FAILED),
            Applied(status=JobStatus.DEAD, dead_reason=DeadReason.REJECTED),
            Applied(status=JobStatus.PENDING),
            Applied(status=JobStatus.PENDING),
            Applied(status=JobStatus.FAILED),
        ]

    @every_outcome
    async def test_a_repeat_is_recognised_and_changes_nothing(self, storage: Storage, outcome: FinalizeOutcome) -> None:
        await add(storage)
        job = await take_one(storage)
        assert isinstance(await settle(storage, job, outcome), Applied)
        before, queue, events = (
            await storage.jobs.get(job.id),
            await storage.queues.get(QUEUE),
            await all_events(storage),
        )
        assert await settle(storage, job, outcome) == Repeated()
        assert await storage.jobs.get(job.id) == before
        assert await storage.queues.get(QUEUE) == queue
        assert await all_events(storage) == events

    @every_outcome
    async def test_the_first_outcome_stays(self, storage: Storage, outcome: FinalizeOutcome) -> None:
        await add(storage)
        job = await take_one(storage)
        await settle(storage, job, Done())
        before = await storage.jobs.get(job.id)
        assert await settle(storage, job, outcome) == Repeated()
        assert await storage.jobs.get(job.id) == before

    @every_outcome
    async def test_a_reaped_job_cannot_be_finalized_by_its_old_owner(
        self, storage: Storage, clock: ManualClock, outcome: FinalizeOutcome
    ) -> None:
        await add(storage)
        job = await take_one(storage)
        clock.advance(LONG_SILENCE)
        await storage.jobs.revive_stale(STALE)
        await _settles_nothing(storage, Finalize(job.id, job.fence, outcome))

    @every_outcome
    async def test_a_job_claimed_again_cannot_be_finalized_by_its_old_owner(
        self, storage: Storage, clock: ManualClock, outcome: FinalizeOutcome
    ) -> None:
        await add(storage)
        old = await run(storage, make_failed(delay=0))
        new = await take_one(storage)
        await _settles_nothing(storage, Finalize(old.id, old.fence, outcome))
        assert isinstance(await settle(storage, new, Done()), Applied)

    async def test_an_attempt_that_was_given_back_does_not_confuse_owners(self, storage: Storage) -> None:
        """Two claims with the same attempt number have different fences."""
        await add(storage)
        old = await run(storage, Released())
        new = await take_one(storage)
        assert (old.attempts, new.attempts) == (1, 1)
        assert await settle(storage, old, Done()) == Lost()
        assert (await read(storage, new.id)).status == JobStatus.IN_PROGRESS

    @pytest.mark.parametrize("stand", Stand)
    @pytest.mark.parametrize("off", [-1, 1])
    async def test_a_fence_that_is_not_current_changes_nothing(
        self, storage: Storage, clock: ManualClock, stand: Stand, off: int
    ) -> None:
        row = await bring(storage, clock, stand)
        await _settles_nothing(storage, Finalize(row.id, row.fence + off, Done()))

    async def test_a_job_that_is_gone_cannot_be_finalized(self, storage: Storage) -> None:
        await add(storage)
        job = await run(storage, Done())
        await storage.jobs.delete(job.id)
        await _settles_nothing(storage, Finalize(job.id, job.fence, make_throttled()))
        await _settles_nothing(storage, Finalize(new_id(), 1, Done()))

    async def test_a_late_result_does_not_undo_an_operators_retry(self, storage: Storage) -> None:
        await add(storage)
        job = await run(storage, make_dead())
        assert await storage.jobs.retry(job.id) == Retried()
        assert not isinstance(await settle(storage, job, make_dead()), Applied)
        assert (await read(storage, job.id)).status == JobStatus.PENDING

    async def test_concurrent_finishes_of_one_claim_have_one_winner(self, storage: Storage, neighbour: Storage) -> None:
        for _ in range(5):
            await add(storage)
            job = await take_one(storage)
            answers = await asyncio.gather(
                settle(storage, job, Done()), settle(neighbour, job, make_dead()), settle(storage, job, Released())
            )
            applied = [answer for answer in answers if isinstance(answer, Applied)]
            assert [answer for answer in answers if answer not in applied] == [Repeated()] * 2
            (winner,) = applied
            assert (await read(storage, job.id)).status == winner.status
            await storage.jobs.delete(job.id)

    async def test_a_batch_with_one_claim_twice_settles_it_once(self, storage: Storage) -> None:
        await add(storage)
        job = await take_one(storage)
        exchange = await storage.jobs.settle_and_claim(
            [Finalize(job.id, job.fence, make_failed(delay=0)), Finalize(job.id, job.fence, Done())]
        )
        assert exchange.settled == (Applied(status=JobStatus.FAILED), Repeated())
        assert len(await history(storage, job.id)) == 1

    async def test_a_batch_of_done_jobs_is_done_and_told(self, storage: Storage, clock: ManualClock) -> None:
        await add_many(storage, 30, max_attempts=1)
        jobs = await take(storage, 30)
        clock.advance(3)
        exchange = await storage.jobs.settle_and_claim([Finalize(job.id, job.fence, Done(), job) for job in jobs])
        assert exchange.settled == (Applied(status=JobStatus.DONE),) * 30
        rows = (await read_all(storage)).values()
        assert {(row.status, row.completed_at, row.process_id, row.fence) for row in rows} == {
            ("done", clock.now(), None, 1)
        }
        told = [event for event in await all_events(storage) if event.type == "completed"]
        assert {(event.attempt, event.duration_us) for event in told} == {(1, 3_000_000)}
        assert sorted(event.job_id or "" for event in told) == sorted(job.id for job in jobs)

    @pytest.mark.parametrize("trouble", ["settled", "deleted", "revived", "claimed again"])
    async def test_one_claim_in_a_batch_of_done_jobs_that_is_not_current_is_left_alone(
        self, storage: Storage, clock: ManualClock, trouble: str
    ) -> None:
        await add(storage)
        old = await take_one(storage)
        match trouble:
            case "settled" | "deleted":
                await settle(storage, old, make_dead())
            case _:
                clock.advance(LONG_SILENCE)
                await storage.jobs.revive_stale(STALE)
        if trouble == "deleted":
            await storage.jobs.delete(old.id)
        if trouble == "claimed again":
            await take_one(storage)
        before = (await read_all(storage)).get(old.id)
        await add_many(storage, 2, kind="other")
        current = await take(storage, 2, kinds=("other",))
        exchange = await storage.jobs.settle_and_claim(
            [Finalize(job.id, job.fence, Done(), job) for job in (current[0], old, current[1])]
        )
        done = Applied(status=JobStatus.DONE)
        assert exchange.settled == (done, Repeated() if trouble == "settled" else Lost(), done)
        assert (await read_all(storage)).get(old.id) == before
        told = [event.job_id for event in await all_events(storage) if event.type == "completed"]
        assert sorted(map(str, told)) == [job.id for job in current]

    async def test_several_claims_in_a_batch_that_are_not_current_are_left_alone(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """Every way to be no longer current, between claims that are."""
        await add_many(storage, 7)
        revived, mine, settled, deleted, taken, other, cancelled = await take(storage, 7)
        for job in (settled, deleted):
            await settle(storage, job, make_dead())
        await storage.jobs.delete(deleted.id)
        await storage.jobs.cancel(cancelled.id)
        await settle(storage, taken, Released())
        again = await take_one(storage)
        before = await read(storage, again.id)
        batch = (revived, mine, settled, deleted, taken, other, cancelled)
        exchange = await storage.jobs.settle_and_claim(
            [Finalize(job.id, job.fence + (job is revived), Done(), job) for job in batch]
        )
        done = Applied(status=JobStatus.DONE)
        assert exchange.settled == (Lost(), done, Repeated(), Lost(), Lost(), done, done)
        assert await read(storage, again.id) == before
        told = [event.job_id for event in await all_events(storage) if event.type == "completed"]
        assert sorted(map(str, told)) == sorted([mine.id, other.id, cancelled.id])

    async def test_a_success_in_a_batch_forgets_the_throttles_of_its_job(self, storage: Storage) -> None:
        await add_many(storage, 2)
        for job in await take(storage, 2):
            await settle(storage, job, make_throttled(0, cool_down=False))
        await storage.jobs.settle_and_claim(
            [Finalize(job.id, job.fence, Done(), job) for job in await take(storage, 2)]
        )
        assert [row.throttles for row in (await read_all(storage)).values()] == [0, 0]

    async def test_a_large_batch_is_settled_each_by_its_own_outcome(self, storage: Storage) -> None:
        await add_many(storage, 120)
        jobs = await take(storage, 120)
        chosen = [list(OUTCOMES.values())[n % 6] for n in range(120)]
        exchange = await storage.jobs.settle_and_claim(
            [Finalize(job.id, job.fence, outcome, job) for job, outcome in zip(jobs, chosen, strict=True)]
        )
        rows = await read_all(storage)
        statuses = ["done", "failed", "dead", "pending", "pending", "failed"] * 20
        assert [rows[job.id].status for job in jobs] == statuses
        assert [answer.status for answer in exchange.settled if isinstance(answer, Applied)] == statuses


class TestAttempts:
    async def test_failures_end_with_the_last_attempt(self, storage: Storage) -> None:
        job_id = await add(storage, max_attempts=3)
        for _ in range(3):
            assert (await read(storage, job_id)).dead_reason is None
            await run(storage, make_failed(delay=0))
        row = await read(storage, job_id)
        assert (row.status, row.dead_reason, row.attempts) == (JobStatus.DEAD, DeadReason.EXHAUSTED, 3)

    async def test_a_budget_of_one_is_never_retried(self, storage: Storage) -> None:
        job_id = await add(storage, max_attempts=1)
        await run(storage, make_failed())
        assert (await read(storage, job_id)).dead_reason == DeadReason.EXHAUSTED

    @pytest.mark.parametrize("outcome", [make_throttled(0, cool_down=False), Released()], ids=["throttled", "released"])
    async def test_throttles_and_releases_never_use_up_the_budget(
        self, storage: Storage, outcome: FinalizeOutcome
    ) -> None:
        job_id = await add(storage, max_attempts=1)
        for _ in range(12):
            await run(storage, outcome)
        row = await read(storage, job_id)
        assert (row.status, row.attempts, row.fence) == (JobStatus.PENDING, 0, 12)
        await run(storage, Done())
        assert (await read(storage, job_id)).status == JobStatus.DONE

    async def test_crashes_end_a_job_whatever_attempts_it_has(self, storage: Storage) -> None:
        job_id = await add(storage, max_attempts=1000)
        await run(storage, make_crashed())
        await run(storage, make_crashed())
        await run(storage, make_crashed(), alone=True)
        row = await read(storage, job_id)
        assert (row.status, row.dead_reason, row.crashes, row.attempts) == ("dead", DeadReason.CRASHED, 3, 3)

    async def test_a_crash_on_the_last_attempt_exhausts_the_job(self, storage: Storage) -> None:
        job_id = await add(storage, max_attempts=1)
        await run(storage, make_crashed())
        row = await read(storage, job_id)
        assert (row.dead_reason, row.crashes) == (DeadReason.EXHAUSTED, 1)

    async def test_a_success_forgets_the_throttles_and_keeps_the_last_error(self, storage: Storage) -> None:
        job_id = await add(storage)
        await run(storage, make_failed("first", delay=0))
        await run(storage, make_throttled(0, cool_down=False))
        assert (await read(storage, job_id)).throttles == 1
        await run(storage, Done())
        row = await read(storage, job_id)
        assert (row.throttles, row.last_error) == (0, "first")


class TestErrors:
    async def test_the_history_tells_each_failure_oldest_first(self, storage: Storage, clock: ManualClock) -> None:
        job_id = await add(storage)
        for message in ("first", "second"):
            clock.advance(1)
            await run(storage, make_failed(message, delay=0))
        first, second = await history(storage, job_id)
        assert (first.message, first.attempt, first.fence, first.kind_of_error) == ("first", 1, 1, "failed")
        assert (second.message, second.attempt, second.fence, second.at) == ("second", 2, 2, clock.now())
        assert second.process == f"{QUEUE}-0-{HOST}"
        assert (await read(storage, job_id)).last_error == "second"

    @pytest.mark.parametrize("kind", [ErrorKind.FAILED, ErrorKind.TIMEOUT, ErrorKind.DEAD])
    async def test_the_kind_of_error_is_kept(self, storage: Storage, kind: ErrorKind) -> None:
        job_id = await add(storage)
        await run(storage, Dead(ErrorText("why", kind=kind)))
        (entry,) = await history(storage, job_id)
        assert entry.kind_of_error == kind

    async def test_the_newest_entries_are_kept(self, storage: Storage) -> None:
        job_id = await add(storage, max_attempts=100)
        for n in range(limits.ERROR_HISTORY + 3):
            await run(storage, make_failed(str(n), delay=0))
        kept = [entry.message for entry in await history(storage, job_id)]
        assert kept == [str(n) for n in range(3, limits.ERROR_HISTORY + 3)]

    async def test_the_traceback_is_the_newest_ones(self, storage: Storage) -> None:
        job_id = await add(storage)
        await run(storage, make_failed("first", delay=0, traceback="Traceback: first"))
        await run(storage, make_failed("second", delay=0, traceback="Traceback: second"))
        detail = await storage.jobs.get(job_id)
        assert detail is not None
        assert detail.traceback == "Traceback: second"

    async def test_throttles_and_releases_are_no_errors(self, storage: Storage) -> None:
        job_id = await add(storage)
        await run(storage, make_throttled(0, cool_down=False))
        await run(storage, Released())
        assert await history(storage, job_id) == ()
        assert (await read(storage, job_id)).last_error is None

    @pytest.mark.parametrize(
        "message", ["\ud800\udfff", "a\0b", "\x1b[2J\r\n", "", "\U0001f600" * 5_000, "x" * 2_000_000],
        ids=["surrogates", "NUL", "controls", "empty", "wide", "huge"],
    )  # fmt: skip
    async def test_no_text_of_an_error_keeps_a_job_from_being_settled(self, storage: Storage, message: str) -> None:
        job_id = await add(storage)
        await run(storage, Failed(error=ErrorText(message, message), delay=make_failed().delay))
        detail = await storage.jobs.get(job_id)
        assert detail is not None
        texts = [
            (detail.row.last_error or "", limits.ERROR_TEXT_BYTES),
            (detail.traceback or "", limits.TRACEBACK_BYTES),
        ]
        texts += [(entry.message, limits.ERROR_TEXT_BYTES) for entry in detail.history]
        for text, limit in texts:
            assert "\0" not in text
            assert len(text.encode()) <= limit

    async def test_a_short_error_is_kept_as_it_is(self, storage: Storage) -> None:
        job_id = await add(storage)
        await run(storage, make_failed("Zeile 1\n\tline 2: ü \U0001f600"))
        assert (await read(storage, job_id)).last_error == "Zeile 1\n\tline 2: ü \U0001f600"


class TestProgress:
    async def test_the_newest_progress_is_kept(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage)
        job = await take_one(storage)
        assert await _report(storage, job, current=1, total=None, message=None)
        clock.advance(1)
        assert await _report(storage, job, current=2.5, total=10, message="ünterwegs\0")
        detail = await storage.jobs.get(job.id)
        assert detail is not None
        assert detail.progress is not None
        assert (detail.progress.current, detail.progress.total, detail.progress.at) == (2.5, 10, clock.now())
        assert (detail.progress.message or "").startswith("ünterwegs")

    async def test_a_fence_that_is_not_current_is_refused(self, storage: Storage) -> None:
        await add(storage)
        old = await run(storage, make_failed(delay=0))
        assert not await _report(storage, old, current=1, total=None, message="settled")
        new = await take_one(storage)
        assert await _report(storage, new, current=1, total=None, message="new")
        assert not await _report(storage, old, current=2, total=None, message="old")
        detail = await storage.jobs.get(new.id)
        assert detail is not None
        assert detail.progress is not None
        assert detail.progress.message == "new"

    async def test_the_progress_of_an_earlier_run_is_not_shown_as_this_runs(self, storage: Storage) -> None:
        await add(storage)
        job = await take_one(storage)
        await _report(storage, job, current=9, total=10, message="nearly")
        await settle(storage, job, make_failed(delay=0))
        await take_one(storage)
        detail = await storage.jobs.get(job.id)
        assert detail is not None
        assert detail.progress is None

    async def test_a_job_that_is_gone_has_no_progress(self, storage: Storage) -> None:
        assert not await storage.jobs.set_progress(new_id(), 1, current=1, total=None, message=None)


async def _report(storage: Storage, job: Any, **progress: Any) -> bool:
    return await storage.jobs.set_progress(job.id, job.fence, **progress)


async def _settles_nothing(storage: Storage, late: Finalize) -> None:
    """A lost finalize leaves rows, queue and events as they were."""
    before = await read_all(storage), await storage.queues.list(), await all_events(storage)
    assert await storage.jobs.finalize(late.job_id, late.fence, late.outcome) == Lost()
    assert (await read_all(storage), await storage.queues.list(), await all_events(storage)) == before
