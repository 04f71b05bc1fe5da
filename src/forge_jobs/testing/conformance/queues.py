"""Queues: settings that are kept, clamped and never overwritten, pause and resume, counts, deletion."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs.clock import ManualClock
from forge_jobs.storage.error import InvalidInput, InvalidName, NotFound, QueueInUse
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.event import Actor
from forge_jobs.storage.types.finalize import Applied, Done
from forge_jobs.storage.types.job import JobStatus
from forge_jobs.storage.types.queue import BackoffPolicy, QueueChange, QueueCounts, QueueSettings
from forge_jobs.testing.conformance.arrange import add, add_many, run, settle, take
from forge_jobs.testing.conformance.fixtures import Beater
from forge_jobs.testing.factories import HOST, OTHER_HOST, QUEUE, make_dead, make_failed, make_process

ANN = Actor(name="ann", role="operate", surface="cli")


class TestQueueSettings:
    async def test_a_new_queue_has_the_defaults(self, storage: Storage) -> None:
        settings = await storage.queues.ensure(QUEUE)
        assert _plain(settings) == QueueSettings(name=QUEUE)
        assert await storage.queues.get(QUEUE) == settings

    async def test_a_check_sees_what_is_stored_and_may_refuse_the_change(self, storage: Storage) -> None:
        await storage.queues.ensure(QUEUE)
        await storage.queues.change(QUEUE, QueueChange(max_workers=7))
        seen: list[int | None] = []

        def check(found: QueueSettings) -> None:
            seen.append(found.max_workers)
            raise LookupError

        with pytest.raises(LookupError):
            await storage.queues.change(QUEUE, QueueChange(max_workers=1), check=check)
        stored = await storage.queues.get(QUEUE)
        assert (stored and stored.max_workers, set(seen)) == (7, {7})
        acts = [row.after["max_workers"] for row in await storage.audit.list() if row.action == "queue.set"]
        assert acts == [7]

    async def test_a_new_queue_may_have_other_defaults(self, storage: Storage) -> None:
        settings = await storage.queues.ensure(QUEUE, QueueChange(max_workers=3, backoff_base_s=2.0, cool_down=False))
        assert _plain(settings) == QueueSettings(
            name=QUEUE, max_workers=3, backoff=BackoffPolicy(base_s=2.0), cool_down=False
        )

    async def test_a_tuned_value_is_never_overwritten_by_a_default(self, storage: Storage) -> None:
        await storage.queues.ensure(QUEUE)
        tuned = await storage.queues.change(QUEUE, QueueChange(max_workers=7))
        assert await storage.queues.ensure(QUEUE, QueueChange(max_workers=1, backoff_cap_s=60)) == tuned

    async def test_an_unknown_queue_has_no_settings(self, storage: Storage) -> None:
        assert await storage.queues.get(QUEUE) is None

    async def test_queues_are_listed_by_name(self, storage: Storage) -> None:
        for name in ("b", "a", "C", "a.1"):
            await storage.queues.ensure(name)
        assert [queue.name for queue in await storage.queues.list()] == sorted(["b", "a", "C", "a.1"])

    async def test_a_bad_name_is_refused(self, storage: Storage) -> None:
        with pytest.raises(InvalidName):
            await storage.queues.ensure("a,b")
        assert await storage.queues.list() == []

    @pytest.mark.parametrize(
        "change",
        [
            {"max_workers": 5},
            {"max_workers": 0},
            {"retain_done_days": 0.5, "retain_dead_days": 0},
            {"retain_done_days": None, "retain_dead_days": None},
            {"max_pending": 100},
            {"cool_down": False},
        ],
        ids=str,
    )
    async def test_a_change_touches_what_it_names(self, storage: Storage, change: dict[str, Any]) -> None:
        before = await storage.queues.ensure(QUEUE)
        after = await storage.queues.change(QUEUE, QueueChange(**change))
        assert _plain(after) == replace(_plain(before), **change)
        assert await storage.queues.get(QUEUE) == after

    async def test_the_backoff_is_changed_value_by_value(self, storage: Storage) -> None:
        await storage.queues.ensure(QUEUE)
        await storage.queues.change(QUEUE, QueueChange(backoff_base_s=10.0))
        await storage.queues.change(QUEUE, QueueChange(backoff_enabled=False, backoff_jitter=0.0))
        after = await storage.queues.change(QUEUE, QueueChange(backoff_cap_s=20.0))
        assert after.backoff == BackoffPolicy(enabled=False, base_s=10.0, cap_s=20.0, jitter=0.0)

    async def test_a_limit_can_be_taken_away_again(self, storage: Storage) -> None:
        await storage.queues.ensure(QUEUE, QueueChange(max_workers=3, max_pending=10))
        after = await storage.queues.change(QUEUE, QueueChange(max_workers=None, max_pending=None))
        assert (after.max_workers, after.max_pending) == (None, None)

    async def test_values_beyond_the_limits_are_clamped_and_returned(self, storage: Storage) -> None:
        await storage.queues.ensure(QUEUE)
        after = await storage.queues.change(
            QUEUE,
            QueueChange(
                max_workers=10**9, retain_done_days=-1, retain_dead_days=10**9,
                backoff_base_s=0.001, backoff_cap_s=10**9, backoff_jitter=9.0, max_pending=0,
            ),
        )  # fmt: skip
        assert (after.max_workers, after.retain_done_days, after.retain_dead_days) == (10_000, 0, 36_500)
        assert after.backoff == BackoffPolicy(base_s=1, cap_s=86_400, jitter=0.5)
        assert after.max_pending == 1
        assert await storage.queues.get(QUEUE) == after

    @pytest.mark.parametrize(
        "bad", [{"max_workers": True}, {"max_workers": "3"}, {"cool_down": 1}, {"backoff_base_s": None}]
    )
    async def test_a_value_of_the_wrong_type_is_refused(self, storage: Storage, bad: dict[str, Any]) -> None:
        before = await storage.queues.ensure(QUEUE)
        with pytest.raises(InvalidInput):
            await storage.queues.change(QUEUE, QueueChange(**bad))
        assert await storage.queues.get(QUEUE) == before

    async def test_an_unknown_queue_cannot_be_changed(self, storage: Storage) -> None:
        with pytest.raises(NotFound):
            await storage.queues.change("never.seen", QueueChange(max_workers=1))
        assert await storage.queues.list() == []

    async def test_who_changed_a_queue_and_when_is_kept(self, storage: Storage, clock: ManualClock) -> None:
        await storage.queues.ensure(QUEUE)
        clock.advance(60)
        after = await storage.queues.change(QUEUE, QueueChange(max_workers=1), actor=ANN)
        assert (after.updated_at, after.updated_by) == (clock.now(), "ann")


class TestPause:
    async def test_a_pause_is_kept_with_who_and_when(self, storage: Storage, clock: ManualClock) -> None:
        await storage.queues.ensure(QUEUE)
        clock.advance(60)
        assert await storage.queues.pause(QUEUE, signal=False, actor=ANN) is True
        settings = await storage.queues.get(QUEUE)
        assert settings is not None
        assert (settings.paused, settings.pause_signal) == (True, False)
        assert (settings.paused_at, settings.paused_by) == (clock.now(), "ann")

    async def test_running_handlers_are_told_unless_asked_otherwise(self, storage: Storage) -> None:
        await storage.queues.ensure(QUEUE)
        await storage.queues.pause(QUEUE)
        settings = await storage.queues.get(QUEUE)
        assert settings is not None
        assert settings.pause_signal is True

    async def test_pausing_twice_says_so(self, storage: Storage, neighbour: Storage) -> None:
        await storage.queues.ensure(QUEUE)
        assert [await storage.queues.pause(QUEUE), await neighbour.queues.pause(QUEUE)] == [True, False]
        assert [await storage.queues.resume(QUEUE), await neighbour.queues.resume(QUEUE)] == [True, False]

    async def test_resuming_restores_the_settings(self, storage: Storage) -> None:
        before = await storage.queues.ensure(QUEUE)
        await storage.queues.pause(QUEUE)
        await storage.queues.resume(QUEUE)
        settings = await storage.queues.get(QUEUE)
        assert settings is not None
        assert _plain(settings) == _plain(before)

    async def test_processes_are_paused_one_by_one(self, storage: Storage) -> None:
        await storage.queues.ensure(QUEUE)
        assert await storage.queues.pause(QUEUE, process=HOST) is True
        assert await storage.queues.pause(QUEUE, process=HOST) is False
        assert await storage.queues.pause(QUEUE, process=OTHER_HOST) is True
        settings = await storage.queues.get(QUEUE)
        assert settings is not None
        assert (settings.paused, set(settings.paused_processes)) == (False, {HOST, OTHER_HOST})
        assert await storage.queues.resume(QUEUE, process=HOST) is True
        assert await storage.queues.resume(QUEUE, process=HOST) is False
        settings = await storage.queues.get(QUEUE)
        assert settings is not None
        assert settings.paused_processes == (OTHER_HOST,)

    async def test_running_jobs_are_not_touched(self, storage: Storage) -> None:
        await add(storage)
        (job,) = await take(storage)
        await storage.queues.pause(QUEUE)
        assert (await storage.queues.counts())[QUEUE].in_progress == 1
        assert await settle(storage, job, Done()) == Applied(status=JobStatus.DONE)

    async def test_an_unknown_queue_cannot_be_paused_silently(self, storage: Storage) -> None:
        with pytest.raises(NotFound):
            await storage.queues.pause("never.seen")
        with pytest.raises(NotFound):
            await storage.queues.resume("never.seen")


class TestQueueCounts:
    async def test_jobs_are_counted_by_queue_and_status(self, storage: Storage, clock: ManualClock) -> None:
        await add_many(storage, 4)
        _, failed, dead, done = await take(storage, 4)
        await settle(storage, failed, make_failed(delay=60))
        await settle(storage, dead, make_dead())
        await settle(storage, done, Done())
        clock.advance(1)
        oldest = clock.now()
        await add_many(storage, 2)
        await add(storage, delay=60)
        await add(storage, queue="other", delay=60)
        clock.advance(5)
        counts = await storage.queues.counts()
        assert counts[QUEUE] == QueueCounts(
            ready=2, scheduled=1, in_progress=1, failed=1, done=1, dead=1, oldest_ready_at=oldest
        )
        assert counts["other"] == QueueCounts(scheduled=1)

    async def test_an_overdue_retry_is_the_oldest_ready_job_too(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage)
        await run(storage, make_failed(delay=10))
        clock.advance(10)
        due = clock.now()
        clock.advance(5)
        await add(storage)
        assert (await storage.queues.counts())[QUEUE].oldest_ready_at == due

    async def test_scheduled_jobs_become_ready_by_time_alone(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage, delay=10)
        clock.advance(10)
        counts = (await storage.queues.counts())[QUEUE]
        assert (counts.ready, counts.scheduled) == (1, 0)
        assert counts.oldest_ready_at == clock.now()

    async def test_deleted_jobs_are_not_counted(self, storage: Storage) -> None:
        job_id = await add(storage)
        await add(storage)
        await storage.jobs.delete(job_id)
        assert (await storage.queues.counts())[QUEUE].ready == 1


class TestDeleteQueue:
    async def test_an_idle_queue_goes(self, storage: Storage) -> None:
        await storage.queues.ensure(QUEUE)
        await storage.queues.delete(QUEUE)
        assert await storage.queues.get(QUEUE) is None

    @pytest.mark.parametrize("outcome", [None, Done(), make_failed(), make_dead()], ids=lambda o: type(o).__name__)
    async def test_a_queue_with_any_job_stays(self, storage: Storage, outcome: Any) -> None:
        await add(storage)
        if outcome is not None:
            await run(storage, outcome)
        with pytest.raises(QueueInUse):
            await storage.queues.delete(QUEUE)
        assert await storage.queues.get(QUEUE) is not None

    async def test_a_queue_that_a_live_process_declares_stays(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await storage.queues.ensure(QUEUE)
        await beater.beat(make_process(queues=("other", QUEUE)))
        with pytest.raises(QueueInUse):
            await storage.queues.delete(QUEUE)
        await storage.processes.remove(HOST)
        await storage.queues.delete(QUEUE)

    async def test_a_dead_process_holds_no_queue(self, storage: Storage, clock: ManualClock, beater: Beater) -> None:
        await storage.queues.ensure(QUEUE)
        await beater.beat(make_process())
        clock.advance(timedelta(hours=1))
        await storage.queues.delete(QUEUE)

    @pytest.mark.parametrize("in_bulk", [False, True])
    async def test_a_deleted_queue_comes_back_with_its_next_job(
        self, storage: Storage, neighbour: Storage, in_bulk: bool
    ) -> None:
        for deleting in (storage, neighbour):
            job_id = await add(storage)
            await storage.jobs.delete(job_id)
            await deleting.queues.delete(QUEUE)
            assert await storage.queues.get(QUEUE) is None
            (job_id,) = await add_many(storage, 1) if in_bulk else [await add(storage)]
            assert await neighbour.queues.get(QUEUE) is not None
            await storage.jobs.delete(job_id)

    async def test_an_unknown_queue_cannot_be_deleted(self, storage: Storage) -> None:
        with pytest.raises(NotFound):
            await storage.queues.delete("never.seen")


def _plain(settings: QueueSettings) -> QueueSettings:
    """The settings without who changed them when."""
    return replace(settings, updated_at=None, updated_by=None)
