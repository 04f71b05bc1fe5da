"""Budgets that all processes share: what a bucket grants, who pays, and what a claim may take."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs.clock import ManualClock
from forge_jobs.storage.error import InvalidInput, InvalidName, NotFound
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.finalize import Released, Throttled
from forge_jobs.storage.types.job import JobStatus
from forge_jobs.storage.types.rate_limit import Gate, Granted, RateLimit, RateLimitDeclaration, Refused
from forge_jobs.testing.conformance.arrange import add, add_many, read, run, settle, take_one
from forge_jobs.testing.factories import KIND, QUEUE, make_claim

SCOPE = "api"


async def ensure(storage: Storage, scope: str = SCOPE, **fields: Any) -> None:
    given: dict[str, Any] = {"capacity": 3, "refill_per_s": 0.5}
    await storage.rate_limits.ensure(RateLimitDeclaration(scope=scope, **(given | fields)))


async def granted(storage: Storage, scope: str = SCOPE, cost: float = 1) -> bool:
    return isinstance(await storage.rate_limits.acquire(scope, cost), Granted)


async def wait_s(storage: Storage, scope: str = SCOPE, cost: float = 1) -> float:
    """How long a refusal tells to wait."""
    answer = await storage.rate_limits.acquire(scope, cost)
    assert isinstance(answer, Refused)
    return answer.retry_after.total_seconds()


class TestRateLimit:
    async def test_a_new_limit_is_full_and_grants_its_capacity(self, storage: Storage, clock: ManualClock) -> None:
        await ensure(storage)
        answers = [await storage.rate_limits.acquire(SCOPE) for _ in range(3)]
        assert answers == [Granted(remaining=n, at=clock.now()) for n in (2, 1, 0)]
        assert not await granted(storage)

    async def test_a_refusal_says_exactly_how_long_and_costs_nothing(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await ensure(storage)
        assert await granted(storage, cost=3)
        for _ in range(5):
            assert await wait_s(storage) == pytest.approx(2, abs=1e-3)
        assert await wait_s(storage, cost=3) == pytest.approx(6, abs=1e-3)
        clock.advance(1.9)
        assert await wait_s(storage) == pytest.approx(0.1, abs=1e-3)
        clock.advance(0.1001)
        assert await granted(storage)

    async def test_it_never_holds_more_than_its_capacity(self, storage: Storage, clock: ManualClock) -> None:
        await ensure(storage)
        clock.advance(86_400)
        assert [await granted(storage) for _ in range(4)] == [True, True, True, False]

    async def test_a_wait_is_told_within_50_ms_and_a_minute(self, storage: Storage, clock: ManualClock) -> None:
        await ensure(storage, refill_per_s=1000)
        assert await granted(storage, cost=3)
        assert await wait_s(storage) == pytest.approx(0.05)
        await ensure(storage, "slow", refill_per_s=0.001)
        assert await granted(storage, "slow", cost=3)
        assert await wait_s(storage, "slow") == 60

    async def test_without_refill_it_is_a_fixed_budget(self, storage: Storage, clock: ManualClock) -> None:
        await ensure(storage, refill_per_s=0)
        assert await granted(storage, cost=3)
        clock.advance(10**6)
        assert await wait_s(storage) == 60

    async def test_a_step_back_of_the_clock_takes_and_gives_nothing(self, storage: Storage, clock: ManualClock) -> None:
        await ensure(storage)
        assert await granted(storage)
        clock.step(-3600)
        assert [await granted(storage) for _ in range(3)] == [True, True, False]
        clock.step(3600)
        assert not await granted(storage)

    async def test_an_unknown_scope_is_refused_for_a_minute(self, storage: Storage) -> None:
        assert await storage.rate_limits.acquire("nobody-knows") == Refused(
            retry_after=timedelta(seconds=60), known=False
        )
        assert await storage.rate_limits.drain("nobody-knows") is False

    async def test_ensure_never_changes_what_is_there(self, storage: Storage) -> None:
        await ensure(storage)
        assert await granted(storage)
        await ensure(storage, capacity=100, refill_per_s=100)
        limit = await storage.rate_limits.get(SCOPE)
        assert limit is not None
        assert (limit.capacity, limit.refill_per_s, limit.tokens) == (3, 0.5, 2)

    @pytest.mark.parametrize("cost", [0, -1, float("nan"), float("inf"), True, "1", None, 10**10])
    async def test_a_cost_that_is_none_is_refused(self, storage: Storage, cost: Any) -> None:
        await ensure(storage)
        with pytest.raises(InvalidInput, match="cost"):
            await storage.rate_limits.acquire(SCOPE, cost)
        assert (await storage.rate_limits.list())[0].tokens == 3

    async def test_a_cost_above_the_capacity_is_refused_by_name(self, storage: Storage) -> None:
        await ensure(storage)
        with pytest.raises(InvalidInput, match="could never be granted"):
            await storage.rate_limits.acquire(SCOPE, 4)

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"capacity": 0}, "capacity 0"),
            ({"capacity": -1}, "capacity -1"),
            ({"capacity": float("inf")}, "capacity inf"),
            ({"capacity": 10**9 + 1}, "capacity 1000000001"),
            ({"refill_per_s": -1}, "refill_per_s -1"),
            ({"refill_per_s": float("nan")}, "refill_per_s nan"),
            ({"refill_per_s": "inf"}, "refill_per_s 'inf'"),
            ({"capacity": True}, "capacity True"),
            ({"per_key": 1}, "per_key 1"),
        ],
    )
    def test_a_bad_limit_is_refused_by_field_and_value(self, fields: dict[str, Any], says: str) -> None:
        with pytest.raises(InvalidInput, match=says):
            RateLimitDeclaration(scope=SCOPE, **({"capacity": 1, "refill_per_s": 1} | fields))

    async def test_a_bad_scope_is_refused(self, storage: Storage) -> None:
        with pytest.raises(InvalidName):
            RateLimitDeclaration(scope="a b", capacity=1, refill_per_s=1)
        with pytest.raises(InvalidName):
            await storage.rate_limits.acquire("a b")

    async def test_many_callers_at_once_get_no_more_than_there_is(self, storage: Storage) -> None:
        await ensure(storage, capacity=50)
        answers = await asyncio.gather(*(storage.rate_limits.acquire(SCOPE) for _ in range(200)))
        assert sum(isinstance(answer, Granted) for answer in answers) == 50

    async def test_two_stores_share_the_budget(self, storage: Storage, neighbour: Storage) -> None:
        await ensure(storage, capacity=50)
        both = [store.rate_limits.acquire(SCOPE) for _ in range(50) for store in (storage, neighbour)]
        assert sum(isinstance(answer, Granted) for answer in await asyncio.gather(*both)) == 50

    async def test_refused_callers_who_wait_their_turn_get_turns_apart(self, storage: Storage) -> None:
        await ensure(storage)
        assert await granted(storage, cost=3)
        turns = [await storage.rate_limits.acquire(SCOPE, park=True) for _ in range(3)]
        waits = [turn.retry_after.total_seconds() for turn in turns if isinstance(turn, Refused)]
        assert waits == pytest.approx([2, 4, 6], abs=0.01)

    async def test_nobody_is_put_off_for_more_than_five_minutes(self, storage: Storage) -> None:
        await ensure(storage, refill_per_s=0.01)
        assert await granted(storage, cost=3)
        for _ in range(20):
            turn = await storage.rate_limits.acquire(SCOPE, park=True)
            assert isinstance(turn, Refused)
            assert turn.retry_after <= timedelta(minutes=5)


class TestDrain:
    async def test_a_drained_bucket_refills_as_ever(self, storage: Storage, clock: ManualClock) -> None:
        await ensure(storage)
        assert await storage.rate_limits.drain(SCOPE) is True
        assert await wait_s(storage) == pytest.approx(2, abs=1e-3)
        clock.advance(2.001)
        assert await granted(storage)

    async def test_with_a_hint_it_stays_shut_for_so_long(self, storage: Storage, clock: ManualClock) -> None:
        await ensure(storage)
        await storage.rate_limits.drain(SCOPE, 30)
        clock.advance(29)
        assert await wait_s(storage) == pytest.approx(1, abs=1e-3)
        limit = await storage.rate_limits.get(SCOPE)
        assert limit is not None
        assert limit.blocked_until == clock.now() + timedelta(seconds=1)
        clock.advance(1.001)
        assert [await granted(storage) for _ in range(4)] == [True, True, True, False]

    async def test_a_shorter_hint_does_not_open_it_earlier(self, storage: Storage, clock: ManualClock) -> None:
        await ensure(storage)
        await storage.rate_limits.drain(SCOPE, 30)
        await storage.rate_limits.drain(SCOPE, timedelta(seconds=1))
        clock.advance(10)
        assert await wait_s(storage) == pytest.approx(20, abs=1e-3)

    @pytest.mark.parametrize("hint", [-1, float("nan"), "1", True])
    async def test_a_bad_hint_is_refused(self, storage: Storage, hint: Any) -> None:
        await ensure(storage)
        with pytest.raises(InvalidInput, match="retry_after"):
            await storage.rate_limits.drain(SCOPE, hint)


class TestTuneLimits:
    async def test_a_lower_capacity_takes_tokens_and_a_higher_one_gives_none(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await ensure(storage)
        assert (await storage.rate_limits.change(SCOPE, capacity=2)).tokens == 2
        tuned = await storage.rate_limits.change(SCOPE, capacity=10, refill_per_s=1)
        assert (tuned.capacity, tuned.refill_per_s, tuned.tokens) == (10, 1, 2)
        assert tuned.changed_at == clock.now()
        clock.advance(3)
        assert await granted(storage, cost=5)

    async def test_an_unknown_one_cannot_be_tuned(self, storage: Storage) -> None:
        with pytest.raises(NotFound, match="there is no rate limit 'api'"):
            await storage.rate_limits.change(SCOPE, capacity=2)

    async def test_adding_one_that_exists_changes_nothing(self, storage: Storage) -> None:
        declaration = RateLimitDeclaration(scope=SCOPE, capacity=5, refill_per_s=1)
        assert await storage.rate_limits.add(declaration) is True
        assert await storage.rate_limits.add(declaration) is False

    async def test_what_people_did_is_in_the_audit(self, storage: Storage) -> None:
        await storage.rate_limits.add(RateLimitDeclaration(scope=SCOPE, capacity=5, refill_per_s=1))
        await storage.rate_limits.change(SCOPE, capacity=2)
        assert await storage.rate_limits.remove(SCOPE) is True
        assert await storage.rate_limits.remove(SCOPE) is False
        acts = [(row.action, row.target, row.outcome) for row in await storage.audit.list()]
        assert acts == [
            ("limit.remove", SCOPE, "absent"),
            ("limit.remove", SCOPE, "removed"),
            ("limit.set", SCOPE, "ok"),
            ("limit.add", SCOPE, "added"),
        ]


class TestKeyedLimits:
    async def test_each_key_has_a_bucket_of_its_own(self, storage: Storage) -> None:
        await ensure(storage, "chat", per_key=True)
        for key in ("chat:a", "chat:b"):
            assert [await granted(storage, key) for _ in range(4)] == [True, True, True, False]
        names = [(limit.scope, limit.template) for limit in await storage.rate_limits.list()]
        assert names == [("chat", None), ("chat:a", "chat"), ("chat:b", "chat")]

    async def test_a_limit_that_is_not_per_key_has_no_keys(self, storage: Storage) -> None:
        await ensure(storage, "chat")
        assert await storage.rate_limits.acquire("chat:a") == Refused(retry_after=timedelta(seconds=60), known=False)

    async def test_tuning_the_pattern_tunes_its_keys(self, storage: Storage) -> None:
        await ensure(storage, "chat", per_key=True)
        assert await granted(storage, "chat:a")
        await storage.rate_limits.change("chat", capacity=1)
        limit = await storage.rate_limits.get("chat:a")
        assert limit is not None
        assert (limit.capacity, limit.tokens) == (1, 1)

    async def test_the_longest_pattern_wins(self, storage: Storage) -> None:
        await ensure(storage, "chat", per_key=True)
        await ensure(storage, "chat:vip", per_key=True, capacity=9)
        assert await granted(storage, "chat:vip:a", cost=9)

    async def test_a_full_bucket_that_nobody_used_for_a_day_is_cleaned_up(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await ensure(storage, "chat", per_key=True)
        assert await granted(storage, "chat:a")
        await storage.rate_limits.drain("chat:b", 7 * 86_400)
        clock.advance(2 * 86_400)
        await storage.maintenance.cleanup()
        assert [limit.scope for limit in await storage.rate_limits.list()] == ["chat", "chat:b"]


GATE = Gate(kind=KIND, scope=SCOPE)


MIXED = (Gate(kind="cheap", scope=SCOPE, cost=1), Gate(kind="dear", scope=SCOPE, cost=3))


class TestPaidClaims:
    async def test_no_more_are_taken_than_the_bucket_holds(self, storage: Storage, clock: ManualClock) -> None:
        await ensure(storage)
        ids = await add_many(storage, 5)
        claim = await storage.jobs.claim(make_claim(5, gates=(GATE,)))
        assert [job.id for job in claim.jobs] == ids[:3]
        assert dict(claim.limited) == {SCOPE: pytest.approx(2_000_000, abs=10)}
        again = await storage.jobs.claim(make_claim(5, gates=(GATE,)))
        assert (again.jobs, again.limited) == ((), claim.limited)
        clock.advance(2.001)
        (job,) = (await storage.jobs.claim(make_claim(5, gates=(GATE,)))).jobs
        assert job.id == ids[3]

    async def test_what_waits_for_the_bucket_is_as_it_was(self, storage: Storage) -> None:
        await ensure(storage)
        await storage.rate_limits.drain(SCOPE)
        job_id = await add(storage)
        await storage.jobs.claim(make_claim(1, gates=(GATE,)))
        row = await read(storage, job_id)
        assert (row.status, row.attempts, row.fence) == (JobStatus.PENDING, 0, 0)

    async def test_other_kinds_go_past(self, storage: Storage) -> None:
        await ensure(storage, capacity=1)
        first, second = await add_many(storage, 2)
        other = await add(storage, kind="other", priority=5)
        claim = await storage.jobs.claim(make_claim(5, kinds=(KIND, "other"), gates=(GATE,)))
        assert [job.id for job in claim.jobs] == [first, other]
        assert (await read(storage, second)).status == JobStatus.PENDING

    async def test_kinds_that_share_a_scope_are_served_in_claim_order(self, storage: Storage) -> None:
        await ensure(storage, capacity=5)
        cheap = await add(storage, kind="cheap", priority=1)
        dear = await add(storage, kind="dear", priority=0)
        also_cheap = await add(storage, kind="cheap", priority=2)
        await add(storage, kind="dear", priority=3)
        claim = await storage.jobs.claim(make_claim(5, kinds=("cheap", "dear"), gates=MIXED))
        assert [job.id for job in claim.jobs] == [dear, cheap, also_cheap]
        assert dict(claim.limited)[SCOPE] > 0

    async def test_a_dear_job_keeps_the_tokens_it_waits_for_from_cheap_ones_behind_it(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await ensure(storage, capacity=5, refill_per_s=1)
        assert await granted(storage, cost=3)
        dear = await add(storage, kind="dear", priority=0)
        cheap = [await add(storage, kind="cheap", priority=1) for _ in range(9)]
        other = await add(storage, kind="other", priority=9)
        request = make_claim(5, kinds=("cheap", "dear", "other"), gates=MIXED)
        claim = await storage.jobs.claim(request)
        assert [job.id for job in claim.jobs] == [other]  # it pays nothing, and goes past
        assert dict(claim.limited) == {SCOPE: pytest.approx(1_000_000, abs=10)}
        clock.advance(1.001)
        claim = await storage.jobs.claim(request)
        assert [job.id for job in claim.jobs] == [dear]
        clock.advance(2)
        claim = await storage.jobs.claim(request)
        assert [job.id for job in claim.jobs] == cheap[:2]

    async def test_a_stream_of_cheap_jobs_does_not_starve_a_dear_one(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """The bucket gains a token a second, and a cheap job comes every second."""
        await ensure(storage, capacity=5, refill_per_s=1)
        await storage.rate_limits.drain(SCOPE)
        dear = await add(storage, kind="dear")
        taken: list[str] = []
        for _ in range(6):
            clock.advance(1.001)
            await add(storage, kind="cheap")
            claim = await storage.jobs.claim(make_claim(5, kinds=("cheap", "dear"), gates=MIXED))
            taken += [job.id if job.id == dear else job.kind for job in claim.jobs]
        assert taken == [dear, "cheap", "cheap", "cheap"]

    async def test_the_second_job_of_a_dear_kind_keeps_tokens_too(self, storage: Storage) -> None:
        await ensure(storage, capacity=5, refill_per_s=1)
        before = await add(storage, kind="cheap", priority=0)
        dear = await add(storage, kind="dear", priority=1)
        await add(storage, kind="dear", priority=2)
        await add(storage, kind="cheap", priority=3)
        claim = await storage.jobs.claim(make_claim(5, kinds=("cheap", "dear"), gates=MIXED))
        assert [job.id for job in claim.jobs] == [before, dear]

    async def test_a_cheap_job_that_stands_before_a_dear_one_is_taken(self, storage: Storage) -> None:
        await ensure(storage, capacity=5, refill_per_s=1)
        assert await granted(storage, cost=4)
        cheap = await add(storage, kind="cheap", priority=0)
        await add(storage, kind="dear", priority=1)
        claim = await storage.jobs.claim(make_claim(5, kinds=("cheap", "dear"), gates=MIXED))
        assert [job.id for job in claim.jobs] == [cheap]

    @pytest.mark.parametrize(("capacity", "refill_per_s"), [(2, 1), (3, 0)], ids=["too dear", "a fixed budget"])
    async def test_a_job_that_can_never_be_paid_for_keeps_nobody_waiting(
        self, storage: Storage, capacity: float, refill_per_s: float
    ) -> None:
        await ensure(storage, capacity=5, refill_per_s=refill_per_s)
        await storage.rate_limits.change(SCOPE, capacity=capacity)
        if capacity == 3:
            assert await granted(storage, cost=1)
        await add(storage, kind="dear", priority=0)
        cheap = [await add(storage, kind="cheap", priority=1) for _ in range(3)]
        claim = await storage.jobs.claim(make_claim(5, kinds=("cheap", "dear"), gates=MIXED))
        assert [job.id for job in claim.jobs] == cheap[:2]

    async def test_jobs_that_just_fell_due_are_paid_for_in_order_too(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await ensure(storage, capacity=5, refill_per_s=1)
        dear = await add(storage, kind="dear", delay=10)
        await add(storage, kind="cheap", delay=11, priority=1)
        clock.advance(20)
        assert await granted(storage, cost=3)
        request = make_claim(5, kinds=("cheap", "dear"), gates=MIXED)
        assert (await storage.jobs.claim(request)).jobs == ()
        clock.advance(1.001)
        assert [job.id for job in (await storage.jobs.claim(request)).jobs] == [dear]

    async def test_many_kinds_that_cost_differently_are_taken_in_claim_order(self, storage: Storage) -> None:
        """More kinds than a claim looks up one by one."""
        await ensure(storage, capacity=20, refill_per_s=1)
        kinds = [f"k{n}" for n in range(7)]
        gates = tuple(Gate(kind=kind, scope=SCOPE, cost=n + 1) for n, kind in enumerate(kinds))
        ids = [await add(storage, kind=kind, priority=-n) for n, kind in enumerate(kinds)]
        claim = await storage.jobs.claim(make_claim(9, kinds=tuple(kinds), gates=gates))
        assert [job.id for job in claim.jobs] == ids[:3:-1]  # 7 + 6 + 5, and 2 are kept for what costs 4
        limit = await storage.rate_limits.get(SCOPE)
        assert limit is not None and limit.tokens == pytest.approx(2)

    async def test_two_queues_in_one_exchange_share_the_bucket(self, storage: Storage) -> None:
        await ensure(storage)
        await add_many(storage, 2)
        await add_many(storage, 2, queue="other")
        exchange = await storage.jobs.settle_and_claim(
            (), [make_claim(5, gates=(GATE,)), make_claim(5, queue="other", gates=(GATE,))]
        )
        assert [len(claim.jobs) for claim in exchange.claims] == [2, 1]

    async def test_only_what_was_claimed_is_paid(self, storage: Storage) -> None:
        await ensure(storage)
        await add(storage)
        await storage.jobs.claim(make_claim(5, gates=(GATE,)))
        assert (await storage.rate_limits.list())[0].tokens == 2

    async def test_a_kind_of_an_unknown_scope_waits_and_the_others_do_not(self, storage: Storage) -> None:
        await add(storage)
        other = await add(storage, kind="other")
        claim = await storage.jobs.claim(make_claim(5, kinds=(KIND, "other"), gates=(Gate(kind=KIND, scope="no"),)))
        assert [job.id for job in claim.jobs] == [other]
        assert claim.limited == (("no", 60_000_000),)

    async def test_a_throttle_drains_the_scope_for_as_long_as_the_upstream_said(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await ensure(storage)
        await add(storage)
        await run(storage, Throttled(delay=timedelta(seconds=33), hinted=True, scope=SCOPE))
        assert await wait_s(storage) == pytest.approx(33, abs=1e-3)

    async def test_put_makes_a_limit_or_tunes_it_in_one_act(self, storage: Storage) -> None:
        made = await storage.rate_limits.put(RateLimitDeclaration(scope=SCOPE, capacity=5, refill_per_s=0))
        assert (made.capacity, made.tokens) == (5, 5)
        assert await storage.rate_limits.acquire(SCOPE, 3)
        tuned = await storage.rate_limits.put(RateLimitDeclaration(scope=SCOPE, capacity=9, refill_per_s=0))
        assert (tuned.capacity, tuned.tokens) == (9, 2)
        acts = [(row.action, row.outcome) for row in await storage.audit.list()]
        assert acts == [("limit.set", "ok"), ("limit.add", "added")]

    async def test_a_check_of_a_put_sees_what_is_stored_and_may_refuse_it(self, storage: Storage) -> None:
        seen: list[float | None] = []

        def check(found: RateLimit | None) -> None:
            seen.append(None if found is None else found.capacity)
            raise LookupError

        for capacity in (None, 5.0):
            seen.clear()
            with pytest.raises(LookupError):
                declaration = RateLimitDeclaration(scope=SCOPE, capacity=8, refill_per_s=0)
                await storage.rate_limits.put(declaration, check=check)
            stored = await storage.rate_limits.get(SCOPE)
            assert (stored and stored.capacity, set(seen)) == (capacity, {capacity})
            await storage.rate_limits.ensure(RateLimitDeclaration(scope=SCOPE, capacity=5, refill_per_s=0))
        assert await storage.audit.list() == []

    async def test_a_throttle_without_a_hint_only_empties_it(self, storage: Storage) -> None:
        await ensure(storage)
        await add(storage)
        await run(storage, Throttled(delay=timedelta(seconds=33), hinted=False, scope=SCOPE))
        assert await wait_s(storage) == pytest.approx(2, abs=1e-3)

    async def test_a_late_owners_throttle_drains_nothing(self, storage: Storage, clock: ManualClock) -> None:
        await ensure(storage)
        await add(storage)
        late = await take_one(storage)
        clock.advance(31)
        await storage.jobs.revive_stale(timedelta(seconds=30))
        await settle(storage, late, Throttled(delay=timedelta(seconds=33), hinted=True, scope=SCOPE))
        assert await granted(storage, cost=3)

    async def test_a_job_put_off_keeps_its_attempt_and_comes_when_told(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        job_id = await add(storage)
        await run(storage, Released(delay=timedelta(seconds=20)))
        row = await read(storage, job_id)
        assert (row.status, row.attempts) == (JobStatus.PENDING, 0)
        assert row.scheduled_at == clock.now() + timedelta(seconds=20)
        assert (await storage.jobs.claim(make_claim())).jobs == ()
        clock.advance(20)
        assert (await take_one(storage)).id == job_id
        assert row.queue == QUEUE
