"""Jobs of silent owners are taken back, and waiting jobs past their time are ended."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from forge_jobs.clock import ManualClock
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.finalize import Applied, Done
from forge_jobs.storage.types.job import DeadReason, ErrorKind, JobStatus
from forge_jobs.testing.conformance.arrange import (
    LONG_SILENCE,
    STALE,
    Stand,
    add,
    add_many,
    bring,
    claimed,
    events_of,
    history,
    read,
    run,
    settle,
    take,
    take_one,
)
from forge_jobs.testing.conformance.fixtures import Beater
from forge_jobs.testing.factories import HOST, KIND, OTHER_HOST, QUEUE, make_failed, make_process


class TestRevive:
    async def test_a_silent_owners_job_runs_again_under_a_new_fence(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage)
        job = await take_one(storage)
        clock.advance(LONG_SILENCE)
        (revived,) = await storage.jobs.revive_stale(STALE)
        assert (revived.job_id, revived.queue, revived.kind) == (job.id, QUEUE, KIND)
        assert (revived.status, revived.dead_reason) == (JobStatus.FAILED, None)
        row = await read(storage, job.id)
        assert (row.status, row.fence, row.crashes, row.attempts) == (JobStatus.FAILED, job.fence + 1, 1, 1)
        assert (row.process_id, row.heartbeat_at, row.completed_at) == (None, None, None)
        assert row.scheduled_at == clock.now()  # the first crash is due at once
        again = await take_one(storage, host_id=OTHER_HOST)
        assert (again.id, again.fence, again.attempts, again.crashes) == (job.id, job.fence + 2, 2, 1)

    async def test_the_history_says_that_the_worker_fell_silent(self, storage: Storage, clock: ManualClock) -> None:
        job_id = await add(storage)
        await take_one(storage)
        clock.advance(LONG_SILENCE)
        await storage.jobs.revive_stale(STALE)
        (entry,) = await history(storage, job_id)
        assert (entry.kind_of_error, entry.attempt, entry.at) == (ErrorKind.LOST_WORKER, 1, clock.now())
        assert "stopped heartbeating" in entry.message
        assert (await read(storage, job_id)).last_error == entry.message
        assert await events_of(storage, job_id) == ["enqueued", "started", "retried"]

    async def test_an_owner_is_given_the_whole_threshold(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage)
        await take_one(storage)
        clock.advance(STALE - timedelta(microseconds=1))
        assert await storage.jobs.revive_stale(STALE) == []

    @pytest.mark.parametrize("stand", [stand for stand in Stand if not stand.is_running])
    async def test_only_running_jobs_are_revived(self, storage: Storage, clock: ManualClock, stand: Stand) -> None:
        before = await bring(storage, clock, stand)
        clock.advance("1h")
        assert await storage.jobs.revive_stale(STALE) == []
        assert await read(storage, before.id) == before

    async def test_the_second_crash_waits_and_the_third_is_the_end(self, storage: Storage, clock: ManualClock) -> None:
        job_id = await add(storage, max_attempts=9)
        for alone in (False, False, True):
            clock.advance("1h")
            await take_one(storage, alone=alone)
            clock.advance(LONG_SILENCE)
            await storage.jobs.revive_stale(STALE)
            row = await read(storage, job_id)
            if row.crashes == 2:
                assert 4.5 <= (row.scheduled_at - clock.now()).total_seconds() <= 5.5
        assert (row.status, row.dead_reason, row.crashes) == (JobStatus.DEAD, DeadReason.CRASHED, 3)
        assert (await events_of(storage, job_id))[-1] == "failed"

    async def test_a_kind_may_have_its_own_number_of_crashes(self, storage: Storage, clock: ManualClock) -> None:
        fragile, usual = await add(storage, kind="fragile"), await add(storage)
        await take(storage, 2, kinds=(KIND, "fragile"))
        clock.advance(LONG_SILENCE)
        await storage.jobs.revive_stale(STALE, max_crashes=lambda kind: 1 if kind == "fragile" else 5)
        assert (await read(storage, fragile)).dead_reason == DeadReason.CRASHED
        assert (await read(storage, usual)).status == JobStatus.FAILED

    async def test_a_spent_budget_ends_the_job(self, storage: Storage, clock: ManualClock) -> None:
        row = await bring(storage, clock, Stand.LAST_ATTEMPT, dedupe_key="key")
        clock.advance(LONG_SILENCE)
        (revived,) = await storage.jobs.revive_stale(STALE)
        assert (revived.status, revived.dead_reason) == (JobStatus.DEAD, DeadReason.EXHAUSTED)
        after = await read(storage, row.id)
        assert (after.crashes, after.fence, after.completed_at) == (1, row.fence + 1, clock.now())
        await add(storage, dedupe_key="key")

    async def test_jobs_of_unknown_kinds_and_paused_queues_are_revived_too(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await add(storage, kind="gone")
        await take_one(storage, kinds=("gone",))
        await storage.queues.pause(QUEUE)
        clock.advance(LONG_SILENCE)
        assert len(await storage.jobs.revive_stale(STALE)) == 1

    async def test_liveness_is_read_from_the_job_and_not_from_the_process(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await add_many(storage, 2)
        kept, silent = await take(storage, 2)
        clock.advance(LONG_SILENCE)
        await beater.beat(make_process(HOST), *claimed([kept]))
        await storage.processes.remove(HOST)
        assert [revived.job_id for revived in await storage.jobs.revive_stale(STALE)] == [silent.id]

    async def test_the_oldest_beats_come_first_page_by_page(self, storage: Storage, clock: ManualClock) -> None:
        ids = []
        for _ in range(5):
            ids.append(await add(storage))
            await take_one(storage)
            clock.advance(1)
        clock.advance(LONG_SILENCE)
        pages = [await storage.jobs.revive_stale(STALE, limit=2) for _ in range(4)]
        assert [[revived.job_id for revived in page] for page in pages] == [ids[:2], ids[2:4], ids[4:], []]

    async def test_two_reapers_make_one_revival(self, storage: Storage, neighbour: Storage, clock: ManualClock) -> None:
        ids = await add_many(storage, 20)
        await take(storage, 20)
        clock.advance(LONG_SILENCE)
        pages = await asyncio.gather(*(s.jobs.revive_stale(STALE, limit=8) for s in (storage, neighbour) * 4))
        assert sorted(revived.job_id for page in pages for revived in page) == ids
        for job_id in ids:
            assert len(await history(storage, job_id)) == 1
            assert (await read(storage, job_id)).crashes == 1

    async def test_a_finish_that_races_the_reaper_wins_or_is_lost(
        self, storage: Storage, neighbour: Storage, clock: ManualClock
    ) -> None:
        for _ in range(10):
            await add(storage)
            job = await take_one(storage)
            clock.advance(LONG_SILENCE)
            settled, revived = await asyncio.gather(settle(storage, job, Done()), neighbour.jobs.revive_stale(STALE))
            row = await read(storage, job.id)
            finished_first = settled == Applied(status=JobStatus.DONE)
            assert (row.status, len(revived)) == (("done", 0) if finished_first else ("failed", 1))
            await storage.jobs.delete(job.id)


class TestClockOfOneHost:
    """On one host silence is measured by time that passed there, never by the wall clock's hands."""

    async def test_the_wall_clock_makes_nobody_live_or_dead(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await beater.beat(make_process())
        clock.step(timedelta(hours=1))
        assert [row.live for row in await storage.processes.list(STALE)] == [True]
        clock.step(-timedelta(hours=2))
        clock.advance(60)
        assert [row.live for row in await storage.processes.list(STALE)] == [False]

    async def test_a_wall_clock_set_forward_makes_nobody_stale(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage)
        await take_one(storage)
        clock.step(timedelta(hours=1))
        clock.advance(1)
        assert await storage.jobs.revive_stale(STALE) == []

    async def test_a_wall_clock_set_back_keeps_nobody_alive(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage)
        await take_one(storage)
        clock.step(-timedelta(hours=1))
        clock.advance(LONG_SILENCE)
        assert len(await storage.jobs.revive_stale(STALE)) == 1

    async def test_after_a_reboot_every_running_job_is_stale_at_once(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await add(storage)
        await take_one(storage)
        clock.reboot()
        assert len(await storage.jobs.revive_stale(STALE)) == 1

    async def test_a_claim_made_after_a_reboot_is_alive(self, storage: Storage, clock: ManualClock) -> None:
        clock.reboot()
        await add(storage)
        await take_one(storage)
        assert await storage.jobs.revive_stale(STALE) == []
        clock.advance(LONG_SILENCE)
        assert len(await storage.jobs.revive_stale(STALE)) == 1

    async def test_a_beat_after_a_reboot_counts_in_the_new_boot(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await add(storage)
        job = await take_one(storage)
        clock.reboot()
        await beater.beat(make_process(), *claimed([job]))
        assert await storage.jobs.revive_stale(STALE) == []


class TestExpire:
    @pytest.mark.parametrize("stand", [stand for stand in Stand if stand.is_waiting])
    async def test_a_waiting_job_past_its_time_ends(self, storage: Storage, clock: ManualClock, stand: Stand) -> None:
        before = await bring(storage, clock, stand, ttl=3600, dedupe_key="key")
        clock.advance("2h")
        assert await storage.jobs.expire_due() == 1
        row = await read(storage, before.id)
        assert (row.status, row.dead_reason, row.completed_at) == (
            JobStatus.DEAD, DeadReason.EXPIRED, clock.now(),
        )  # fmt: skip
        assert row.last_error is not None
        assert (await history(storage, before.id))[-1].kind_of_error == ErrorKind.EXPIRED
        assert (await events_of(storage, before.id))[-1] == "failed"
        await add(storage, dedupe_key="key")

    @pytest.mark.parametrize("stand", [stand for stand in Stand if not stand.is_waiting])
    async def test_a_running_or_finished_job_does_not_expire(
        self, storage: Storage, clock: ManualClock, stand: Stand
    ) -> None:
        before = await bring(storage, clock, stand, ttl=3600)
        clock.advance("2h")
        assert await storage.jobs.expire_due() == 0
        assert await read(storage, before.id) == before

    async def test_it_ends_at_its_time_and_not_before(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage, ttl=10)
        clock.advance(timedelta(seconds=10) - timedelta(microseconds=1))
        assert await storage.jobs.expire_due() == 0
        clock.advance(timedelta(microseconds=1))
        assert await storage.jobs.expire_due() == 1

    async def test_jobs_without_a_time_never_expire(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage)
        clock.advance("3650d")
        assert await storage.jobs.expire_due() == 0

    async def test_a_scheduled_job_may_expire_before_it_is_due(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage, delay=60, ttl=10)
        clock.advance(10)
        assert await storage.jobs.expire_due() == 1

    async def test_a_sweep_is_bounded(self, storage: Storage, clock: ManualClock) -> None:
        await add_many(storage, 5, ttl=1)
        clock.advance(2)
        assert [await storage.jobs.expire_due(limit=2) for _ in range(4)] == [2, 2, 1, 0]

    async def test_paused_and_cooling_queues_expire_too(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage, ttl=1)
        await storage.queues.pause(QUEUE)
        clock.advance(2)
        assert await storage.jobs.expire_due() == 1

    async def test_a_retry_racing_its_end_is_one_or_the_other(
        self, storage: Storage, neighbour: Storage, clock: ManualClock
    ) -> None:
        for _ in range(5):
            job_id = await add(storage, ttl=10)
            await run(storage, make_failed(delay=0))
            clock.advance(9)
            claim, ended = await asyncio.gather(take(storage), neighbour.jobs.expire_due())
            assert (len(claim), ended) == (1, 0)
            await settle(storage, claim[0], make_failed(delay=0))
            clock.advance(1)
            claim, ended = await asyncio.gather(take(storage), neighbour.jobs.expire_due())
            assert (len(claim), ended) == (0, 1)
            assert (await read(storage, job_id)).dead_reason == DeadReason.EXPIRED
