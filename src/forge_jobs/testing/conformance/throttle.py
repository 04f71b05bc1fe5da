"""A throttled queue cools down: one window for all workers, opened and forgotten by rule."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from forge_jobs.clock import ManualClock
from forge_jobs.storage.error import NotFound
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.finalize import Applied, Done, Finalize, Lost, Throttled
from forge_jobs.storage.types.job import JobStatus
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.conformance.arrange import (
    LONG_SILENCE,
    STALE,
    add,
    add_many,
    read,
    run,
    settle,
    take,
    take_one,
)
from forge_jobs.testing.factories import QUEUE, make_failed, make_throttled


class TestThrottled:
    async def test_the_job_is_due_again_after_the_delay_with_its_attempt_back(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        job_id = await add(storage)
        await run(storage, make_throttled(90))
        row = await read(storage, job_id)
        assert (row.status, row.attempts, row.throttles) == (JobStatus.PENDING, 0, 1)
        assert row.scheduled_at == clock.now() + timedelta(seconds=90)


class TestCoolDown:
    async def test_a_throttle_opens_a_window_of_its_delay(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage)
        await run(storage, make_throttled(90))
        assert await _window(storage) == (1, clock.now() + timedelta(seconds=90))

    async def test_other_queues_stay_open(self, storage: Storage) -> None:
        await add(storage)
        await add(storage, queue="other")
        await run(storage, make_throttled())
        assert len(await take(storage, queue="other")) == 1
        assert await _window(storage, "other") == (0, None)

    async def test_running_jobs_of_the_queue_go_on(self, storage: Storage) -> None:
        await add_many(storage, 2)
        one, two = await take(storage, 2)
        await settle(storage, one, make_throttled())
        assert await settle(storage, two, Done()) == Applied(status=JobStatus.DONE)

    @pytest.mark.parametrize("hinted", [True, False])
    async def test_a_throttle_in_an_open_window_is_not_counted(
        self, storage: Storage, clock: ManualClock, hinted: bool
    ) -> None:
        await _throttle_together(storage, make_throttled(60), make_throttled(30, hinted=hinted))
        assert await _window(storage) == (1, clock.now() + timedelta(seconds=60))

    async def test_a_longer_hint_extends_an_open_window(self, storage: Storage, clock: ManualClock) -> None:
        await _throttle_together(storage, make_throttled(60, hinted=False), make_throttled(90))
        assert await _window(storage) == (1, clock.now() + timedelta(seconds=90))

    async def test_a_longer_guess_does_not_extend_an_open_window(self, storage: Storage, clock: ManualClock) -> None:
        await _throttle_together(storage, make_throttled(60), make_throttled(90, hinted=False))
        assert await _window(storage) == (1, clock.now() + timedelta(seconds=60))

    async def test_each_window_without_a_hint_is_counted_up_to_thirty(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await add(storage)
        counts = []
        for _ in range(32):
            await run(storage, make_throttled(10, hinted=False))
            counts.append((await _window(storage))[0])
            clock.advance(10)
        assert counts == [*range(1, 31), 30, 30]

    async def test_a_hint_counts_at_most_to_one(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage)
        counts = []
        for hinted in (True, True, False, False, True):
            await run(storage, make_throttled(10, hinted=hinted))
            counts.append((await _window(storage))[0])
            clock.advance(10)
        assert counts == [1, 1, 2, 3, 3]

    async def test_a_call_may_ask_for_no_window(self, storage: Storage) -> None:
        await add(storage)
        await run(storage, make_throttled(cool_down=False))
        assert await _window(storage) == (0, None)

    async def test_a_queue_may_be_set_to_have_no_windows(self, storage: Storage) -> None:
        await storage.queues.ensure(QUEUE, QueueChange(cool_down=False))
        await add(storage)
        await run(storage, make_throttled())
        assert await _window(storage) == (0, None)

    async def test_a_late_owner_opens_no_window(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage)
        job = await take_one(storage)
        clock.advance(LONG_SILENCE)
        await storage.jobs.revive_stale(STALE)
        assert await settle(storage, job, make_throttled()) == Lost()
        assert await _window(storage) == (0, None)

    async def test_a_repeat_opens_no_second_window(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage)
        job = await run(storage, make_throttled(10, hinted=False))
        clock.advance(20)
        await settle(storage, job, make_throttled(10, hinted=False))
        count, until = await _window(storage)
        assert (count, until) == (1, clock.now() - timedelta(seconds=10))

    async def test_the_window_is_the_same_for_every_process(self, storage: Storage, neighbour: Storage) -> None:
        await add_many(storage, 2)
        await run(storage, make_throttled())
        assert await take(neighbour) == ()
        assert await neighbour.queues.get(QUEUE) == await storage.queues.get(QUEUE)


class TestCoolDownIsForgotten:
    async def test_by_a_success_two_minutes_after_the_window(self, storage: Storage, clock: ManualClock) -> None:
        await _throttled_once(storage)
        clock.advance(30 + 120)
        await run(storage, Done())
        assert await _window(storage) == (0, None)

    async def test_not_by_a_success_sooner_after_the_window(self, storage: Storage, clock: ManualClock) -> None:
        await _throttled_once(storage)
        before = await _window(storage)
        clock.advance(30 + 119)
        await run(storage, Done())
        assert await _window(storage) == before

    async def test_not_by_a_success_inside_the_window(self, storage: Storage) -> None:
        await add_many(storage, 2)
        one, two = await take(storage, 2)
        await settle(storage, one, make_throttled())
        before = await _window(storage)
        await settle(storage, two, Done())
        assert await _window(storage) == before

    async def test_not_by_a_failure(self, storage: Storage, clock: ManualClock) -> None:
        await _throttled_once(storage)
        before = await _window(storage)
        clock.advance("1h")
        await run(storage, make_failed())
        assert await _window(storage) == before

    async def test_not_by_the_success_of_another_queue(self, storage: Storage, clock: ManualClock) -> None:
        await _throttled_once(storage)
        before = await _window(storage)
        clock.advance("1h")
        await add(storage, queue="other")
        await run(storage, Done(), queue="other")
        assert await _window(storage) == before

    async def test_by_an_operator_at_once(self, storage: Storage) -> None:
        await _throttled_once(storage)
        await add(storage)
        settings = await storage.queues.clear_cool_down(QUEUE)
        assert (settings.throttle_attempts, settings.throttled_until) == (0, None)
        assert await _window(storage) == (0, None)
        assert len(await take(storage)) == 1

    async def test_but_an_unknown_queue_has_none_to_forget(self, storage: Storage) -> None:
        with pytest.raises(NotFound):
            await storage.queues.clear_cool_down("never.seen")
        assert await storage.queues.list() == []


async def _window(storage: Storage, queue: str = QUEUE) -> tuple[int, datetime | None]:
    settings = await storage.queues.get(queue)
    assert settings is not None
    return settings.throttle_attempts, settings.throttled_until


async def _throttled_once(storage: Storage) -> None:
    await add(storage)
    await run(storage, make_throttled(30))


async def _throttle_together(storage: Storage, *outcomes: Throttled) -> None:
    """Several running jobs are throttled one after the other, in one batch."""
    await add_many(storage, len(outcomes))
    jobs = await take(storage, len(outcomes))
    await storage.jobs.settle_and_claim(
        [Finalize(job.id, job.fence, outcome, job) for job, outcome in zip(jobs, outcomes, strict=True)]
    )
