"""Who gets which job, in which order, and who gets none."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from forge_jobs.clock import ManualClock
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.finalize import Applied, Done, Finalize, Lost, Released
from forge_jobs.storage.types.job import JobStatus
from forge_jobs.testing.conformance.arrange import (
    Stand,
    add,
    add_many,
    bring,
    events_of,
    read,
    run,
    settle,
    take,
    take_one,
)
from forge_jobs.testing.factories import (
    HOST,
    KIND,
    OTHER_HOST,
    QUEUE,
    make_claim,
    make_crashed,
    make_failed,
    make_throttled,
)


class TestClaim:
    async def test_a_claimed_job_is_in_progress_under_a_new_fence(self, storage: Storage, clock: ManualClock) -> None:
        job_id = await add(storage)
        clock.advance(5)
        job = await take_one(storage)
        row = await read(storage, job_id)
        assert (row.status, row.fence, row.attempts) == (JobStatus.IN_PROGRESS, 1, 1)
        assert row.started_at == row.heartbeat_at == clock.now()
        assert (row.process_id, row.host_id) == (f"{QUEUE}-0-{HOST}", HOST)
        assert row.completed_at is None
        assert (job.id, job.fence, job.attempts) == (row.id, row.fence, row.attempts)
        assert await events_of(storage, job_id) == ["enqueued", "started"]

    async def test_the_worker_is_told_all_it_needs(self, storage: Storage, clock: ManualClock) -> None:
        job_id = await add(
            storage, payload={"a": 1}, dedupe_key="key", priority=3, max_attempts=7, delay=5, trace={"a": "b"}
        )
        clock.advance(10)
        job, row = await take_one(storage), await read(storage, job_id)
        assert (job.queue, job.kind, job.payload) == (QUEUE, KIND, '{"a":1}')
        assert (job.max_attempts, job.crashes, job.throttles, job.priority) == (7, 0, 0, 3)
        assert (job.enqueued_at, job.scheduled_at) == (row.enqueued_at, row.scheduled_at)
        assert (job.dedupe_key, job.parent_id, job.trace) == ("key", None, '{"a":"b"}')

    async def test_every_claim_raises_the_fence_and_the_attempt(self, storage: Storage) -> None:
        await add(storage)
        seen = []
        for _ in range(3):
            job = await run(storage, make_failed(delay=0))
            seen.append((job.fence, job.attempts))
        assert seen == [(1, 1), (2, 2), (3, 3)]

    async def test_each_job_goes_to_its_own_slot(self, storage: Storage) -> None:
        await add_many(storage, 3)
        jobs = await take(storage, 3)
        processes = [(await read(storage, job.id)).process_id for job in jobs]
        assert processes == list(make_claim(3).slots)

    async def test_an_empty_queue_gives_nothing(self, storage: Storage) -> None:
        claim = await storage.jobs.claim(make_claim(5, queue="never.seen"))
        assert (claim.queue, claim.jobs, claim.more, claim.alone_waiting) == ("never.seen", (), False, False)

    async def test_order_is_priority_then_due_time_then_id(self, storage: Storage, clock: ManualClock) -> None:
        now = clock.now()
        fourth, fifth = await add_many(storage, 2, run_at=now)
        third = await add(storage, run_at=now - timedelta(microseconds=1))
        sixth = await add(storage, priority=1, run_at=now - timedelta(days=1))
        first = await add(storage, priority=-1000, run_at=now)
        second = await add(storage, priority=-1)
        jobs = await take(storage, 10)
        assert [job.id for job in jobs] == [first, second, third, fourth, fifth, sixth]

    async def test_retries_and_new_jobs_stand_in_one_line(self, storage: Storage, clock: ManualClock) -> None:
        retried = await add(storage)
        await run(storage, make_failed(delay=10))
        clock.advance(5)
        earlier = await add(storage)
        clock.advance(6)
        later = await add(storage)
        assert [job.id for job in await take(storage, 5)] == [earlier, retried, later]

    async def test_a_batch_is_the_head_of_the_line(self, storage: Storage) -> None:
        ids = await add_many(storage, 5)
        taken = [await take(storage, 2), await take(storage, 2), await take(storage, 2)]
        assert [[job.id for job in jobs] for jobs in taken] == [ids[:2], ids[2:4], ids[4:]]

    async def test_a_full_batch_says_that_there_may_be_more(self, storage: Storage) -> None:
        await add_many(storage, 3)
        assert (await storage.jobs.claim(make_claim(2))).more is True
        assert (await storage.jobs.claim(make_claim(2))).more is False

    async def test_a_job_is_not_claimed_before_it_is_due(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage, delay=10, priority=-5)
        ready = await add(storage)
        clock.advance(timedelta(seconds=10) - timedelta(microseconds=1))
        assert [job.id for job in await take(storage, 5)] == [ready]
        clock.advance(timedelta(microseconds=1))
        assert len(await take(storage, 5)) == 1

    async def test_a_retry_is_not_claimed_before_it_is_due(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage)
        await run(storage, make_failed(delay=10))
        clock.advance(timedelta(seconds=10) - timedelta(microseconds=1))
        assert await take(storage, 5) == ()
        clock.advance(timedelta(microseconds=1))
        assert len(await take(storage, 5)) == 1

    async def test_a_job_that_became_due_takes_its_place_by_priority(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        urgent = await add(storage, delay=10, priority=-5)
        usual = await add(storage)
        clock.advance(10)
        assert [job.id for job in await take(storage, 5)] == [urgent, usual]

    async def test_many_due_times_are_met_in_order(self, storage: Storage, clock: ManualClock) -> None:
        ids = [await add(storage, delay=delay) for delay in (50, 10, 40, 20, 30)]
        clock.advance(60)
        assert [job.id for job in await take(storage, 5)] == [ids[n] for n in (1, 3, 4, 2, 0)]

    async def test_the_urgent_one_is_first_though_thousands_fall_due_with_it(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await add_many(storage, 3_000, delay=10)
        urgent = await add(storage, delay=11, priority=-5)
        clock.advance(12)
        assert (await take_one(storage)).id == urgent

    async def test_other_kinds_and_queues_are_left(self, storage: Storage) -> None:
        await add(storage, kind="other", priority=-5)
        await add(storage, queue="other", priority=-5)
        mine = await add(storage)
        assert [job.id for job in await take(storage, 5)] == [mine]
        assert [job.kind for job in await take(storage, 5, kinds=("unknown", "other"))] == ["other"]

    async def test_several_kinds_stand_in_one_line(self, storage: Storage) -> None:
        ids = [await add(storage, kind=kind) for kind in ("a", "b", "c", "a", "b", "c")]
        assert [job.id for job in await take(storage, 4, kinds=("c", "a"))] == [ids[0], ids[2], ids[3], ids[5]]

    async def test_many_kinds_stand_in_one_line(self, storage: Storage) -> None:
        kinds = tuple(f"kind{n}" for n in range(12))
        ids = [await add(storage, kind=kind) for kind in (*kinds, *kinds[::-1])]
        await add(storage, kind="unserved", priority=-5)
        assert [job.id for job in await take(storage, 30, kinds=kinds[:10])] == [
            job_id for n, job_id in enumerate(ids) if n < 10 or n >= 14
        ]

    async def test_a_kind_named_twice_gives_each_job_once(self, storage: Storage) -> None:
        ids = await add_many(storage, 2)
        assert [job.id for job in await take(storage, 5, kinds=(KIND, KIND))] == ids

    async def test_who_knows_no_kind_gets_nothing(self, storage: Storage) -> None:
        await add(storage)
        assert await take(storage, 5, kinds=()) == ()

    @pytest.mark.parametrize("stand", [stand for stand in Stand if not stand.is_waiting])
    async def test_running_and_finished_jobs_are_not_claimed(
        self, storage: Storage, clock: ManualClock, stand: Stand
    ) -> None:
        await bring(storage, clock, stand)
        clock.advance("1h")
        assert await take(storage, 5) == ()
        assert await take(storage, 1, alone=True) == ()

    async def test_an_expired_job_is_not_claimed(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage, ttl=10)
        clock.advance(10)
        assert await take(storage, 5) == ()

    async def test_an_expired_retry_is_not_claimed(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage, ttl=10)
        await run(storage, make_failed(delay=0))
        clock.advance(11)
        assert await take(storage, 5) == ()

    async def test_a_job_that_has_not_expired_yet_is_claimed(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage, ttl=10)
        clock.advance(9)
        assert len(await take(storage, 5)) == 1

    async def test_expired_jobs_do_not_block_the_line(self, storage: Storage, clock: ManualClock) -> None:
        await add_many(storage, 20, ttl=10, priority=-5)
        ready = await add(storage)
        clock.advance(11)
        assert [job.id for job in await take(storage, 2)] == [ready]

    async def test_concurrent_claims_never_share_a_job(self, storage: Storage, neighbour: Storage) -> None:
        ids = await add_many(storage, 40)
        claims = await asyncio.gather(
            *(take(s, 5, host_id=host) for s, host in ((storage, HOST), (neighbour, OTHER_HOST)) * 5)
        )
        assert sorted(job.id for jobs in claims for job in jobs) == ids

    async def test_a_released_job_goes_to_its_old_place(self, storage: Storage, clock: ManualClock) -> None:
        first, second = await add_many(storage, 2)
        clock.advance(60)
        await run(storage, Released())
        assert [job.id for job in await take(storage, 2)] == [first, second]


class TestClaimAndSettings:
    async def test_a_paused_queue_gives_nothing(self, storage: Storage, neighbour: Storage) -> None:
        await add(storage)
        await storage.queues.pause(QUEUE)
        assert await take(storage) == ()
        assert await take(neighbour, host_id=OTHER_HOST) == ()
        await storage.queues.resume(QUEUE)
        assert len(await take(neighbour, host_id=OTHER_HOST)) == 1

    async def test_pausing_one_process_leaves_the_others(self, storage: Storage) -> None:
        await add_many(storage, 2)
        await storage.queues.pause(QUEUE, process=HOST)
        assert await take(storage, 1, host_id=HOST) == ()
        assert len(await take(storage, 1, host_id=OTHER_HOST)) == 1
        await storage.queues.resume(QUEUE, process=HOST)
        assert len(await take(storage, 1, host_id=HOST)) == 1

    async def test_a_claim_racing_a_pause_is_before_it_or_empty(self, storage: Storage, neighbour: Storage) -> None:
        await add_many(storage, 40)
        early = [asyncio.ensure_future(take(neighbour, 1)) for _ in range(5)]
        await storage.queues.pause(QUEUE)
        late = await asyncio.gather(*(take(s, 1) for s in (storage, neighbour) * 5))
        assert late == [()] * 10
        assert all(len(jobs) <= 1 for jobs in await asyncio.gather(*early))

    async def test_other_queues_are_not_paused(self, storage: Storage) -> None:
        await storage.queues.ensure("other")
        await storage.queues.pause("other")
        await add(storage)
        assert len(await take(storage)) == 1

    async def test_a_queue_that_cools_down_gives_nothing(self, storage: Storage, clock: ManualClock) -> None:
        await add_many(storage, 2)
        await run(storage, make_throttled(30))
        assert await take(storage, 5) == ()
        clock.advance(timedelta(seconds=30) - timedelta(microseconds=1))
        assert await take(storage, 5) == ()
        clock.advance(timedelta(microseconds=1))
        assert len(await take(storage, 5)) == 2


class TestClaimAlone:
    """A job whose next crash would be its last, and kinds that allow no crash, run alone."""

    async def test_a_job_on_its_last_crash_is_left_by_ordinary_claims(self, storage: Storage) -> None:
        poison = await add(storage, max_attempts=9)
        await run(storage, make_crashed())
        await run(storage, make_crashed())
        neighbour = await add(storage)
        claim = await storage.jobs.claim(make_claim(5))
        assert [job.id for job in claim.jobs] == [neighbour]
        assert claim.alone_waiting is True
        alone = await storage.jobs.claim(make_claim(1, alone=True))
        assert [job.id for job in alone.jobs] == [poison]

    async def test_only_the_kinds_asked_for_are_taken_alone(self, storage: Storage) -> None:
        await add(storage, kind="fragile")
        claim = await storage.jobs.claim(make_claim(1, alone=True, alone_kinds=("fragile",)))
        assert claim.jobs == ()
        assert (await storage.jobs.claim(make_claim(1, alone_kinds=("fragile",)))).alone_waiting is False

    async def test_a_claim_for_one_alone_gives_no_ordinary_job(self, storage: Storage) -> None:
        await add(storage)
        claim = await storage.jobs.claim(make_claim(1, alone=True))
        assert claim.jobs == ()

    async def test_no_ordinary_claim_says_that_one_waits_when_none_does(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await add(storage, max_attempts=9)
        await run(storage, make_crashed())
        await run(storage, make_crashed(delay=10))
        assert (await storage.jobs.claim(make_claim(5))).alone_waiting is False
        clock.advance(10)
        assert (await storage.jobs.claim(make_claim(5))).alone_waiting is True

    async def test_kinds_that_allow_no_crash_run_alone_from_the_first(self, storage: Storage) -> None:
        fragile, usual = await add(storage, kind="fragile"), await add(storage)
        wish = make_claim(5, kinds=(KIND, "fragile"), alone_kinds=("fragile",))
        claim = await storage.jobs.claim(wish)
        assert [job.id for job in claim.jobs] == [usual]
        assert claim.alone_waiting is True
        alone = await take(storage, 1, kinds=(KIND, "fragile"), alone_kinds=("fragile",), alone=True)
        assert [job.id for job in alone] == [fragile]

    async def test_one_alone_is_one(self, storage: Storage) -> None:
        first, _ = await add_many(storage, 2)
        jobs = await take(storage, 2, alone=True, alone_kinds=(KIND,))
        assert [job.id for job in jobs] == [first]

    @pytest.mark.parametrize(
        "outcome",
        [make_failed(delay=0), make_throttled(0, cool_down=False), Released()],
        ids=lambda o: type(o).__name__,
    )
    async def test_a_run_without_a_crash_does_not_make_it_harmless(
        self, storage: Storage, clock: ManualClock, outcome: Released
    ) -> None:
        poison = await add(storage, max_attempts=9)
        await run(storage, make_crashed())
        await run(storage, make_crashed())
        await run(storage, outcome, alone=True)
        assert await take(storage, 5) == ()
        assert [job.id for job in await take(storage, 1, alone=True)] == [poison]

    async def test_an_operators_retry_makes_it_an_ordinary_job_again(self, storage: Storage) -> None:
        poison = await add(storage, max_attempts=9)
        await run(storage, make_crashed())
        await run(storage, make_crashed())
        await storage.jobs.retry(poison)
        assert [job.id for job in await take(storage, 5)] == [poison]


class TestSettleAndClaim:
    async def test_a_claim_that_was_held_up_for_too_long_takes_nothing_and_what_ended_is_settled(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        first, second = await add_many(storage, 2)
        job = await take_one(storage)
        until = clock.elapsed_us()
        clock.advance(1)
        late = replace(make_claim(1), valid_until_us=until)
        answer = await storage.jobs.settle_and_claim([Finalize(job.id, job.fence, Done(), job)], [late])
        assert (answer.settled, answer.claims[0].jobs) == ((Applied(status=JobStatus.DONE),), ())
        assert (await read(storage, second)).status == JobStatus.PENDING
        in_time = replace(make_claim(1), valid_until_us=clock.elapsed_us())
        assert [job.id for job in (await storage.jobs.claim(in_time)).jobs] == [second]
        assert first == job.id

    async def test_nothing_asked_is_nothing_done(self, storage: Storage) -> None:
        exchange = await storage.jobs.settle_and_claim([])
        assert (exchange.settled, exchange.claims) == ((), ())

    async def test_answers_come_in_the_order_asked(self, storage: Storage) -> None:
        await add_many(storage, 3)
        one, two, three = await take(storage, 3)
        waiting, elsewhere = await add(storage), await add(storage, queue="other")
        exchange = await storage.jobs.settle_and_claim(
            [
                Finalize(three.id, three.fence, Done(), three),
                Finalize(one.id, one.fence + 1, Done()),
                Finalize(two.id, two.fence, make_failed(), two),
            ],
            [make_claim(1, queue="other"), make_claim(1), make_claim(1, queue="third")],
        )
        assert exchange.settled == (Applied(status=JobStatus.DONE), Lost(), Applied(status=JobStatus.FAILED))
        assert [claim.queue for claim in exchange.claims] == ["other", QUEUE, "third"]
        assert [[job.id for job in claim.jobs] for claim in exchange.claims] == [[elsewhere], [waiting], []]
        assert (await read(storage, one.id)).status == JobStatus.IN_PROGRESS

    async def test_what_is_settled_can_be_claimed_at_once(self, storage: Storage) -> None:
        await add(storage)
        job = await take_one(storage)
        exchange = await storage.jobs.settle_and_claim(
            [Finalize(job.id, job.fence, make_failed(delay=0), job)], [make_claim(1)]
        )
        (again,) = exchange.claims[0].jobs
        assert (again.id, again.fence, again.attempts) == (job.id, job.fence + 1, job.attempts + 1)

    async def test_a_throttle_cools_the_queue_down_before_the_claim(self, storage: Storage) -> None:
        await add_many(storage, 2)
        job = await take_one(storage)
        exchange = await storage.jobs.settle_and_claim(
            [Finalize(job.id, job.fence, make_throttled(), job)], [make_claim(1)]
        )
        assert exchange.claims[0].jobs == ()

    async def test_two_claims_of_one_queue_share_no_job(self, storage: Storage) -> None:
        ids = await add_many(storage, 4)
        exchange = await storage.jobs.settle_and_claim([], [make_claim(2), make_claim(2)])
        assert [[job.id for job in claim.jobs] for claim in exchange.claims] == [ids[:2], ids[2:]]

    async def test_concurrent_exchanges_lose_and_double_nothing(self, storage: Storage, neighbour: Storage) -> None:
        ids = await add_many(storage, 60)
        done: list[str] = []

        async def work(store: Storage, host: str) -> None:
            held: tuple[Finalize, ...] = ()
            while True:
                exchange = await store.jobs.settle_and_claim(held, [make_claim(4, host_id=host)])
                assert exchange.settled == (Applied(status=JobStatus.DONE),) * len(held)
                done.extend(finalize.job_id for finalize in held)
                held = tuple(Finalize(job.id, job.fence, Done(), job) for job in exchange.claims[0].jobs)
                if not held:
                    return

        await asyncio.gather(work(storage, HOST), work(neighbour, OTHER_HOST), work(storage, HOST))
        assert sorted(done) == ids

    async def test_a_lost_settlement_leaves_the_others(self, storage: Storage) -> None:
        await add_many(storage, 2)
        one, two = await take(storage, 2)
        await settle(storage, one, Done())
        await storage.jobs.delete(one.id)
        exchange = await storage.jobs.settle_and_claim(
            [Finalize(one.id, one.fence, Done(), one), Finalize(two.id, two.fence, Done(), two)]
        )
        assert exchange.settled == (Lost(), Applied(status=JobStatus.DONE))
