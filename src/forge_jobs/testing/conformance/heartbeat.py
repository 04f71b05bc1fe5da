"""A heartbeat keeps claims alive, and its answer says which are lost or asked to stop."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from forge_jobs.clock import ManualClock
from forge_jobs.ids import new_id
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.finalize import Done
from forge_jobs.storage.types.process import BeatAnswer, Claimed
from forge_jobs.testing.conformance.arrange import (
    LONG_SILENCE,
    STALE,
    add,
    add_many,
    claimed,
    read,
    settle,
    take,
    take_one,
)
from forge_jobs.testing.conformance.fixtures import Beater
from forge_jobs.testing.factories import HOST, OTHER_HOST, make_failed, make_process

QUIET = BeatAnswer(lost=frozenset(), cancel_requested=frozenset(), strays=frozenset())


class TestHeartbeat:
    async def test_a_beat_refreshes_every_claim_it_names(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await add_many(storage, 3)
        jobs = await take(storage, 3)
        clock.advance(7)
        assert await beater.beat(make_process(), *claimed(jobs)) == QUIET
        assert [(await read(storage, job.id)).heartbeat_at for job in jobs] == [clock.now()] * 3

    async def test_a_beat_changes_nothing_but_the_heartbeat(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await add(storage)
        job = await take_one(storage)
        before = await read(storage, job.id)
        clock.advance(7)
        await beater.beat(make_process(), *claimed([job]))
        after = await read(storage, job.id)
        assert after == msgspec.structs.replace(before, heartbeat_at=clock.now(), worker=after.worker)

    async def test_a_beating_job_is_never_revived_however_long_it_runs(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await add(storage)
        job = await take_one(storage)
        for _ in range(10):
            clock.advance(STALE - timedelta(seconds=1))
            assert await beater.beat(make_process(), *claimed([job])) == QUIET
            assert await storage.jobs.revive_stale(STALE) == []

    async def test_a_claim_that_the_reaper_took_is_lost(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await add(storage)
        job = await take_one(storage)
        clock.advance(LONG_SILENCE)
        await storage.jobs.revive_stale(STALE)
        before = await read(storage, job.id)
        answer = await beater.beat(make_process(), *claimed([job]))
        assert answer.lost == frozenset(claimed([job]))
        assert await read(storage, job.id) == before

    async def test_a_claim_that_another_worker_has_now_is_lost_and_not_kept_alive(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await add(storage)
        old = await take_one(storage)
        clock.advance(LONG_SILENCE)
        await storage.jobs.revive_stale(STALE)
        new = await take_one(storage, host_id=OTHER_HOST)
        clock.advance(5)
        answer = await beater.beat(make_process(), *claimed([old]))
        assert answer.lost == frozenset(claimed([old]))
        assert (await read(storage, new.id)).heartbeat_at == clock.now() - timedelta(seconds=5)

    async def test_a_claim_of_a_job_that_is_gone_is_lost(self, storage: Storage, beater: Beater) -> None:
        ghost = Claimed(new_id(), 1)
        assert (await beater.beat(make_process(), ghost)).lost == frozenset([ghost])

    async def test_lost_claims_do_not_cost_the_others_their_beat(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await add(storage)
        job = await take_one(storage)
        ghost = Claimed(new_id(), 1)
        clock.advance(3)
        answer = await beater.beat(make_process(), ghost, *claimed([job]))
        assert answer.lost == frozenset([ghost])
        assert (await read(storage, job.id)).heartbeat_at == clock.now()

    @pytest.mark.parametrize("newest_first", [False, True])
    async def test_an_old_claim_of_a_job_does_not_cost_the_new_one_its_beat(
        self, storage: Storage, clock: ManualClock, beater: Beater, newest_first: bool
    ) -> None:
        """A worker that lost a job and claimed it again beats for both until the first run has ended."""
        await add(storage)
        old = await take_one(storage)
        clock.advance(LONG_SILENCE)
        await storage.jobs.revive_stale(STALE)
        new = await take_one(storage)
        clock.advance(5)
        named = claimed([new, old] if newest_first else [old, new])
        answer = await beater.beat(make_process(), *named)
        assert (answer.lost, answer.strays) == (frozenset(claimed([old])), frozenset())
        assert (await read(storage, new.id)).heartbeat_at == clock.now()

    async def test_jobs_asked_to_stop_are_told_with_every_beat(self, storage: Storage, beater: Beater) -> None:
        await add_many(storage, 2)
        jobs = await take(storage, 2)
        await storage.jobs.cancel(jobs[0].id)
        for _ in range(2):
            answer = await beater.beat(make_process(), *claimed(jobs))
            assert (answer.cancel_requested, answer.lost) == (frozenset([jobs[0].id]), frozenset())

    async def test_claims_of_this_process_that_it_does_not_name_are_strays(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await add_many(storage, 3)
        mine, stray = await take(storage, 2)
        await take_one(storage, host_id=OTHER_HOST)
        before = (await read(storage, stray.id)).heartbeat_at
        clock.advance(5)
        answer = await beater.beat(make_process(), *claimed([mine]))
        assert answer.strays == frozenset(claimed([stray]))
        assert (await read(storage, stray.id)).heartbeat_at == before

    async def test_a_settled_job_is_no_stray(self, storage: Storage, beater: Beater) -> None:
        await add_many(storage, 2)
        done, failed = await take(storage, 2)
        await settle(storage, done, Done())
        await settle(storage, failed, make_failed())
        assert await beater.beat(make_process()) == QUIET

    async def test_a_process_beats_for_itself_without_any_job(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        assert await beater.beat(make_process(HOST)) == QUIET
        (row,) = await storage.processes.list(STALE)
        assert (row.info, row.heartbeat_at, row.live) == (make_process(HOST), clock.now(), True)
