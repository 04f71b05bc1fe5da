"""Why a job waits: every blocker is made real, named, and removed, after which the job really is claimed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from forge_jobs.clock import ManualClock
from forge_jobs.ids import JobId
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.answers import CancelOutcome, SlotHeld
from forge_jobs.storage.types.blocker import Blocker
from forge_jobs.storage.types.event import Actor
from forge_jobs.storage.types.finalize import Done, Released
from forge_jobs.storage.types.job import JobRecord
from forge_jobs.storage.types.process import ProcessState
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.storage.types.rate_limit import Gate, RateLimitDeclaration
from forge_jobs.storage.types.share import Assignment
from forge_jobs.testing.conformance.arrange import add, add_many, claimed, read, run, settle, take, take_one
from forge_jobs.testing.conformance.fixtures import Beater
from forge_jobs.testing.factories import (
    HOST,
    KIND,
    OTHER_HOST,
    QUEUE,
    make_crashed,
    make_dead,
    make_failed,
    make_process,
    make_throttled,
)

OPERATOR = Actor(name="ana", surface="cli")
GATES = (Gate(kind=KIND, scope="api", cost=2),)


async def blockers(storage: Storage, job_id: str) -> dict[str, Blocker]:
    """What explains the job, by code, in its order."""
    found = await storage.jobs.explain(JobId(job_id))
    assert found
    for one in found:
        assert one.text.endswith(".")
        assert one.code == "ready" or one.remedy
    return {str(one.code): one for one in found}


async def codes(storage: Storage, job_id: str) -> list[str]:
    return list(await blockers(storage, job_id))


async def starts(storage: Storage, job_id: JobId, **wish: Any) -> JobRecord:
    """Nothing is in the job's way any more, and so it is claimed."""
    assert await codes(storage, job_id) == ["ready"]
    job = await take_one(storage, **wish)
    assert job.id == job_id
    return job


class TestBlockersOfFinishedJobs:
    async def test_an_id_without_a_job_is_unknown(self, storage: Storage) -> None:
        job_id = await add(storage)
        await storage.jobs.delete(job_id)
        assert await codes(storage, job_id) == ["unknown_id"]

    async def test_what_is_no_id_at_all_is_unknown_too(self, storage: Storage) -> None:
        for text in ("", "nonsense", "\x1b[31m" * 50, "é" * 26, "01J0000000000000000000000U"):
            assert await codes(storage, text) == ["unknown_id"]

    async def test_a_job_that_is_done(self, storage: Storage, clock: ManualClock) -> None:
        job_id = await add(storage)
        await run(storage, Done())
        done = (await blockers(storage, job_id))["finished"]
        assert "done" in done.text
        assert done.since == clock.now()

    async def test_a_dead_job_tells_its_reason_and_runs_after_a_retry(self, storage: Storage, beater: Beater) -> None:
        job_id = await add(storage)
        await run(storage, make_dead("no such mailbox"))
        await beater.beat(make_process())
        dead = (await blockers(storage, job_id))["finished"]
        assert "rejected" in dead.text
        assert "no such mailbox" in dead.text
        assert dead.remedy == f"forge-jobs jobs retry {job_id}"
        await storage.jobs.retry(job_id)
        await starts(storage, job_id)

    async def test_a_retry_that_would_be_refused_names_the_holder_of_the_key(
        self, storage: Storage, beater: Beater
    ) -> None:
        job_id = await add(storage, dedupe_key="k")
        await run(storage, make_dead())
        holder = await add(storage, dedupe_key="k")
        await beater.beat(make_process())
        remedy = (await blockers(storage, job_id))["finished"].remedy
        assert remedy is not None
        assert f"job {holder} holds the key 'k'" in remedy
        assert await storage.jobs.retry(job_id) == SlotHeld(holder)
        await storage.jobs.cancel(holder)
        assert (await blockers(storage, job_id))["finished"].remedy == f"forge-jobs jobs retry {job_id}"
        await storage.jobs.retry(job_id)
        await starts(storage, job_id)

    async def test_an_expired_job_waits_for_the_sweep(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        job_id = await add(storage, ttl=10)
        await beater.beat(make_process())
        clock.advance(11)
        assert await codes(storage, job_id) == ["expired"]
        assert await take(storage) == ()
        assert await storage.jobs.expire_due() == 1
        assert "expired" in (await blockers(storage, job_id))["finished"].text

    async def test_no_sweep_comes_while_no_worker_lives(self, storage: Storage, clock: ManualClock) -> None:
        job_id = await add(storage, ttl=10)
        clock.advance(11)
        assert await codes(storage, job_id) == ["expired", "loop_dead"]


class TestBlockersOfRunningJobs:
    async def test_a_running_job_tells_who_runs_it(self, storage: Storage, clock: ManualClock, beater: Beater) -> None:
        job_id = await add(storage)
        job = await take_one(storage)
        started = clock.now()
        clock.advance(4)
        await beater.beat(make_process(label="w1", running={"mail-0-x": job_id}), *claimed([job]))
        clock.advance(3)
        running = (await blockers(storage, job_id))["running"]
        assert running.since == started
        assert "w1 has been running it for 7.0s, attempt 1 of 5" in running.text
        assert "3.0s old" in running.text

    async def test_a_silent_owner_and_when_its_job_is_taken_back(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        job_id = await add(storage)
        job = await take_one(storage)
        await beater.beat(make_process(OTHER_HOST, running={"x": job_id}, label="w1"), *claimed([job]))
        last_beat = clock.now()
        clock.advance(20)
        await beater.beat(make_process())
        stale = (await blockers(storage, job_id))["running_stale"]
        assert (stale.since, stale.until) == (last_beat, last_beat + timedelta(seconds=30))
        assert await storage.jobs.revive_stale(timedelta(seconds=30)) == []
        clock.advance(11)
        await beater.beat(make_process())
        assert await codes(storage, job_id) == ["running_stale"]
        (revived,) = await storage.jobs.revive_stale(timedelta(seconds=30))
        assert revived.job_id == job_id
        await starts(storage, job_id)

    async def test_nobody_is_left_to_take_it_back(self, storage: Storage, clock: ManualClock, beater: Beater) -> None:
        job_id = await add(storage)
        await take_one(storage)
        clock.advance(40)
        assert await codes(storage, job_id) == ["running_stale", "loop_dead"]
        await beater.beat(make_process())
        assert await codes(storage, job_id) == ["running_stale"]

    async def test_a_reaper_that_makes_no_progress_takes_nothing_back(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        job_id = await add(storage)
        await take_one(storage)
        before = clock.now_us()
        clock.advance(60)
        await beater.beat(make_process(loops={"reaper": before}))
        assert await codes(storage, job_id) == ["running_stale", "loop_dead"]
        await beater.beat(make_process(loops={"reaper": clock.now_us()}))
        assert await codes(storage, job_id) == ["running_stale"]

    async def test_a_claim_that_its_worker_does_not_know(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        job_id = await add(storage)
        job = await take_one(storage)
        clock.advance(1)
        await beater.beat(make_process(running={}), *claimed([job]))
        assert await codes(storage, job_id) == ["running_no_slot"]
        await settle(storage, job, Released())
        await starts(storage, job_id)

    async def test_a_cancel_tells_who_asked_and_whether_the_worker_heard(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        job_id = await add(storage)
        job = await take_one(storage)
        clock.advance(1)
        assert await storage.jobs.cancel(job_id, actor=OPERATOR) is CancelOutcome.CANCEL_REQUESTED
        found = await blockers(storage, job_id)
        assert list(found) == ["cancel_requested", "running"]
        assert "by ana" in found["cancel_requested"].text
        assert "not heard of it yet" in found["cancel_requested"].text
        assert found["cancel_requested"].since == clock.now()
        clock.advance(1)
        await beater.beat(make_process(running={"x": job_id}), *claimed([job]))
        assert "has heard of it" in (await blockers(storage, job_id))["cancel_requested"].text


class TestBlockersInTime:
    async def test_a_job_of_the_future(self, storage: Storage, clock: ManualClock, beater: Beater) -> None:
        job_id = await add(storage, delay=60)
        await beater.beat(make_process())
        waits = await blockers(storage, job_id)
        assert list(waits) == ["scheduled"]
        assert waits["scheduled"].until == clock.now() + timedelta(seconds=60)
        clock.advance(60)
        await beater.beat(make_process())
        await starts(storage, job_id)

    async def test_a_retry_tells_the_error_and_its_time(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        job_id = await add(storage, max_attempts=3)
        await run(storage, make_failed("connection refused", delay=15))
        await beater.beat(make_process())
        retry = (await blockers(storage, job_id))["retry_wait"]
        assert "attempt 1 of 3 failed" in retry.text
        assert "connection refused" in retry.text
        assert retry.until == clock.now() + timedelta(seconds=15)
        clock.advance(15)
        await starts(storage, job_id)

    async def test_a_throttled_job_and_the_cool_down_of_its_queue(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        job_id = await add(storage)
        await run(storage, make_throttled(20))
        other = await add(storage)
        await beater.beat(make_process())
        assert await codes(storage, job_id) == ["queue_cooling_down", "throttle_wait"]
        cooling = (await blockers(storage, other))["queue_cooling_down"]
        assert cooling.until == clock.now() + timedelta(seconds=20)
        assert await take(storage) == ()
        await storage.queues.clear_cool_down(QUEUE)
        await starts(storage, other)

    async def test_a_job_put_off_for_the_limit_that_its_payload_names(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        job_id = await add(storage)
        await run(storage, Released(delay=timedelta(seconds=10)))
        await storage.events.flush()
        await beater.beat(make_process(priced_by_payload=(KIND,)))
        assert await codes(storage, job_id) == ["rate_limited"]
        clock.advance(10)
        await starts(storage, job_id)


class TestBlockersOfQueues:
    async def test_a_pause_tells_by_whom_and_since_when(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        job_id = await add(storage)
        await beater.beat(make_process())
        await storage.queues.pause(QUEUE, actor=OPERATOR)
        paused = (await blockers(storage, job_id))["queue_paused"]
        assert "paused by ana" in paused.text
        assert paused.since == clock.now()
        assert await take(storage) == ()
        await storage.queues.resume(QUEUE)
        await starts(storage, job_id)

    async def test_a_pause_in_the_only_process_that_could_take_it(self, storage: Storage, beater: Beater) -> None:
        job_id = await add(storage)
        await beater.beat(make_process())
        await storage.queues.pause(QUEUE, process=HOST)
        assert await codes(storage, job_id) == ["queue_paused"]
        assert await take(storage) == ()
        await beater.beat(make_process(OTHER_HOST))
        await starts(storage, job_id, host_id=OTHER_HOST)

    async def test_a_queue_whose_total_is_0_is_stopped(self, storage: Storage, beater: Beater) -> None:
        job_id = await add(storage)
        await beater.beat(make_process(slots={QUEUE: 0}))
        await storage.queues.change(QUEUE, QueueChange(max_workers=0))
        assert await codes(storage, job_id) == ["queue_stopped"]
        await storage.queues.change(QUEUE, QueueChange(max_workers=1))
        await beater.beat(make_process())
        await starts(storage, job_id)

    async def test_a_queue_that_nobody_serves_tells_who_did_last(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        job_id = await add(storage)
        assert "ever did" in (await blockers(storage, job_id))["queue_unserved"].text
        await beater.beat(make_process(label="old-one"))
        silent_since = clock.now()
        clock.advance(31)
        await beater.beat(make_process(OTHER_HOST, queues=("other",)))
        unserved = (await blockers(storage, job_id))["queue_unserved"]
        assert "old-one" in unserved.text
        assert unserved.since == silent_since
        await beater.beat(make_process())
        await starts(storage, job_id)

    async def test_a_kind_without_a_handler(self, storage: Storage, beater: Beater) -> None:
        job_id = await add(storage, kind="resize")
        await beater.beat(make_process(kinds=("other",)))
        assert await codes(storage, job_id) == ["kind_unserved"]
        await beater.beat(make_process(kinds=("other", "resize")))
        await starts(storage, job_id, kinds=("other", "resize"))


class TestBlockersOfWorkers:
    async def test_a_worker_that_stopped_taking_the_kind(self, storage: Storage, beater: Beater) -> None:
        job_id = await add(storage)
        await beater.beat(make_process(closed_kinds=(KIND,)))
        assert await codes(storage, job_id) == ["threads_abandoned"]
        await beater.beat(make_process())
        await starts(storage, job_id)

    async def test_workers_that_are_cut_off_from_the_store(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        job_id = await add(storage)
        await beater.beat(make_process(label="w1"))
        clock.advance(21)  # silent for too long to claim, and not for long enough to be gone
        assert await codes(storage, job_id) == ["workers_fenced"]
        await beater.beat(make_process(state=ProcessState.FENCED))
        assert await codes(storage, job_id) == ["workers_fenced"]
        await beater.beat(make_process())
        await starts(storage, job_id)

    async def test_workers_that_an_operator_told_to_take_nothing_new(self, storage: Storage, beater: Beater) -> None:
        job_id = await add(storage)
        await beater.beat(make_process(label="w1", quiet=True))
        quiet = (await blockers(storage, job_id))["workers_quiet"]
        assert "w1 was asked by an operator" in quiet.text
        assert quiet.remedy and f"/workers/{HOST}/resume" in quiet.remedy
        assert [str(one.code) for one in await storage.queues.explain(QUEUE)] == ["workers_quiet"]
        await beater.beat(make_process(OTHER_HOST))  # another takes it
        assert await codes(storage, job_id) == ["ready"]
        await storage.processes.remove(OTHER_HOST)
        assert await codes(storage, job_id) == ["workers_quiet"]
        await beater.beat(make_process())
        await starts(storage, job_id)

    async def test_workers_that_all_shut_down(self, storage: Storage, beater: Beater) -> None:
        job_id = await add(storage)
        await beater.beat(make_process(state=ProcessState.DRAINING))
        slots = (await blockers(storage, job_id))["no_slots"]
        assert "shutting down" in slots.text
        await beater.beat(make_process(OTHER_HOST))
        await starts(storage, job_id, host_id=OTHER_HOST)

    async def test_a_worker_without_a_share_of_the_total(self, storage: Storage, beater: Beater) -> None:
        job_id = await add(storage)
        await storage.queues.change(QUEUE, QueueChange(max_workers=1))
        await beater.beat(make_process(slots={QUEUE: 0}))
        await storage.shares.assign([Assignment(queue=QUEUE, host_id=HOST, share=0)])
        assert "no share" in (await blockers(storage, job_id))["no_slots"].text
        await storage.shares.assign([Assignment(queue=QUEUE, host_id=HOST, share=1)])
        stale = timedelta(seconds=30)
        assert await storage.shares.open_slots(QUEUE, HOST, staying=0, closing=0, wanted=1, stale_after=stale) == 1
        await starts(storage, job_id)

    async def test_busy_slots_name_the_oldest_job_and_the_line(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        oldest, first, second = await add_many(storage, 3)
        job = await take_one(storage)
        clock.advance(7)
        await beater.beat(make_process(running={"x": oldest}), *claimed([job]))
        assert await codes(storage, first) == ["slots_busy"]
        found = await blockers(storage, second)
        assert list(found) == ["slots_busy", "behind_others"]
        assert f"1 of 1 slot is busy; job {oldest} has been running for 7.0s" in found["slots_busy"].text
        assert "1 ready job stands before it" in found["behind_others"].text
        await settle(storage, job, Done())
        await starts(storage, first)

    async def test_the_median_run_is_told_from_the_metrics(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await add(storage)
        job = await take_one(storage)
        clock.advance(2)
        await settle(storage, job, Done())
        await storage.events.flush()
        clock.advance(120)
        assert await storage.metrics.rollup() == 1
        await add(storage)
        await take_one(storage)
        waiting = await add(storage)
        await beater.beat(make_process())
        assert "the median run took 2.0s" in (await blockers(storage, waiting))["slots_busy"].text

    async def test_jobs_before_it_by_priority_and_time(self, storage: Storage, beater: Beater) -> None:
        last = await add(storage, priority=5)
        await add_many(storage, 2)
        await add(storage, kind="unserved", priority=-5)
        await beater.beat(make_process(slots={QUEUE: 2}))
        found = await blockers(storage, last)
        assert list(found) == ["behind_others"]
        assert "2 ready jobs stand" in found["behind_others"].text
        assert len(await take(storage, 2)) == 2
        await beater.beat(make_process(slots={QUEUE: 3}))
        await starts(storage, last)

    async def test_a_job_that_runs_alone_waits_for_an_idle_worker(self, storage: Storage, beater: Beater) -> None:
        job_id = await add(storage)
        for _ in range(2):
            await run(storage, make_crashed())
        other = await add(storage)
        busy = await take_one(storage)
        assert busy.id == other
        await beater.beat(make_process(slots={QUEUE: 2}, running={"x": other}), *claimed([busy]))
        assert await codes(storage, job_id) == ["runs_alone"]
        await settle(storage, busy, Done())
        await starts(storage, job_id, alone=True)

    async def test_workers_that_only_poll(self, storage: Storage, beater: Beater) -> None:
        job_id = await add(storage)
        await beater.beat(make_process(wakes_proven=False, poll_ms=2_000.0))
        found = await blockers(storage, job_id)
        assert list(found) == ["poll_mode", "ready"]
        assert "2.0s late" in found["poll_mode"].text
        await beater.beat(make_process())
        await starts(storage, job_id)


class TestBlockersOfLimits:
    async def test_an_empty_bucket_tells_when_it_pays_again(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await storage.rate_limits.ensure(RateLimitDeclaration(scope="api", capacity=3, refill_per_s=0.5))
        await storage.rate_limits.acquire("api", 3)
        job_id = await add(storage)
        await beater.beat(make_process(gates=GATES))
        limited = (await blockers(storage, job_id))["rate_limited"]
        assert "rate limit api holds 0 of 3 tokens; kind send costs 2" in limited.text
        assert limited.until is not None
        assert abs(limited.until - clock.now() - timedelta(seconds=4)) < timedelta(milliseconds=1)
        assert await take(storage, gates=GATES) == ()
        clock.advance(4.001)
        await starts(storage, job_id, gates=GATES)

    async def test_a_bucket_that_never_pays(self, storage: Storage, beater: Beater) -> None:
        await storage.rate_limits.ensure(RateLimitDeclaration(scope="api", capacity=3, refill_per_s=0))
        await storage.rate_limits.acquire("api", 3)
        job_id = await add(storage)
        await beater.beat(make_process(gates=GATES))
        limited = (await blockers(storage, job_id))["rate_limited"]
        assert "gains none" in limited.text
        assert limited.until is None

    async def test_a_scope_that_an_upstream_shut(self, storage: Storage, clock: ManualClock, beater: Beater) -> None:
        await storage.rate_limits.ensure(RateLimitDeclaration(scope="api", capacity=3, refill_per_s=100))
        await storage.rate_limits.drain("api", 60)
        job_id = await add(storage)
        await beater.beat(make_process(gates=GATES))
        limited = (await blockers(storage, job_id))["rate_limited"]
        assert limited.until == clock.now() + timedelta(seconds=60)
        clock.advance(60)
        await beater.beat(make_process(gates=GATES))
        await starts(storage, job_id, gates=GATES)

    async def test_a_scope_that_does_not_exist(self, storage: Storage, beater: Beater) -> None:
        job_id = await add(storage)
        await beater.beat(make_process(gates=GATES))
        assert await codes(storage, job_id) == ["rate_scope_unknown"]
        assert await take(storage, gates=GATES) == ()
        await storage.rate_limits.add(RateLimitDeclaration(scope="api", capacity=3, refill_per_s=1))
        await starts(storage, job_id, gates=GATES)

    async def test_a_cheap_job_behind_a_dear_one_that_waits_for_tokens(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        kinds = ("cheap", "dear")
        gates = (Gate(kind="cheap", scope="api"), Gate(kind="dear", scope="api", cost=3))
        await storage.rate_limits.ensure(RateLimitDeclaration(scope="api", capacity=4, refill_per_s=1))
        await storage.rate_limits.acquire("api", 2)
        dear = await add(storage, kind="dear")
        cheap = await add(storage, kind="cheap")
        first = await add(storage, kind="cheap", priority=-1)
        await beater.beat(make_process(kinds=kinds, slots={QUEUE: 3}, gates=gates))
        assert await codes(storage, first) == ["ready"]
        until = (await blockers(storage, dear))["rate_limited"].until
        assert until == clock.now() + timedelta(seconds=1, microseconds=1)
        assert await codes(storage, cheap) == ["behind_others"]
        assert [job.id for job in await take(storage, 3, kinds=kinds, gates=gates)] == [first]
        clock.advance(2.001)
        await beater.beat(make_process(kinds=kinds, slots={QUEUE: 3}, gates=gates))
        assert await codes(storage, cheap) == ["behind_others"]
        await starts(storage, dear, kinds=kinds, gates=gates)
        clock.advance(1)
        await beater.beat(make_process(kinds=kinds, slots={QUEUE: 3}, gates=gates))
        await starts(storage, cheap, kinds=kinds, gates=gates)

    async def test_a_keyed_scope_that_was_never_used_is_full(self, storage: Storage, beater: Beater) -> None:
        gates = (Gate(kind=KIND, scope="api:team-1", cost=2),)
        await storage.rate_limits.ensure(RateLimitDeclaration(scope="api", capacity=3, refill_per_s=1, per_key=True))
        job_id = await add(storage)
        await beater.beat(make_process(gates=gates))
        await starts(storage, job_id, gates=gates)


class TestExplaining:
    async def test_it_names_everything_at_once_most_final_first(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        job_id = await add(storage, delay=60)
        await storage.queues.pause(QUEUE)
        await storage.queues.change(QUEUE, QueueChange(max_workers=0))
        await beater.beat(make_process(kinds=("other",)))
        assert await codes(storage, job_id) == ["queue_stopped", "queue_paused", "kind_unserved", "scheduled"]

    async def test_it_changes_nothing(self, storage: Storage, clock: ManualClock, beater: Beater) -> None:
        job_id = await add(storage, delay=1)
        await beater.beat(make_process(gates=GATES))
        await storage.rate_limits.ensure(RateLimitDeclaration(scope="api", capacity=3, refill_per_s=1))
        clock.advance(2)
        before = (await read(storage, job_id), await storage.rate_limits.list(), await storage.audit.list())
        for _ in range(3):
            await codes(storage, job_id)
        assert (await read(storage, job_id), await storage.rate_limits.list(), await storage.audit.list()) == before
