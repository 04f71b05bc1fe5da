"""Handlers under a budget: jobs wait for it without a slot, and start when the bucket has tokens."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from forge_jobs import ConfigError, Granted, HandlerRegistry, JobCtx, Refused, Throttled
from forge_jobs.runtime.loops import unserved
from forge_jobs.storage.types.job import JobFilter
from forge_jobs.storage.types.rate_limit import RateLimitDeclaration
from forge_jobs.testing.cluster import until

from .world import World


async def count_of(world: World, kind: str, *statuses: str) -> int:
    return sum((await world.storage.jobs.count(JobFilter(kinds=(kind,), statuses=statuses))).values())


async def test_a_kind_runs_no_faster_than_its_limit_and_others_go_past(world: World) -> None:
    world.handlers.limit("api", capacity=3, refill_per_s=10)
    times: list[float] = []

    @world.handlers.handler("call", rate_limit="api")
    async def call(ctx: JobCtx) -> None:
        times.append(time.monotonic())

    ids = [await world.put("call") for _ in range(8)]
    began = time.monotonic()
    await world.work(slots=4)
    await world.works_on()
    for job_id in ids:
        assert (await world.when(job_id, "done")).row.attempts == 1
    assert times[7] - began >= 0.45  # five of the eight had to be earned, a tenth of a second each
    assert times[2] - began < 0.45


async def test_while_the_budget_is_empty_jobs_hold_no_slot_and_are_not_touched(world: World) -> None:
    world.handlers.limit("api", capacity=1, refill_per_s=0)

    @world.handlers.handler("call", rate_limit="api")
    async def call(ctx: JobCtx) -> None: ...

    ids = [await world.put("call") for _ in range(5)]
    runtime = await world.work(slots=2)
    await until(lambda: count_of(world, "call", "done"))
    for _ in range(3):
        await world.works_on()
    rows = [await world.row(job_id) for job_id in ids]
    assert [row.status for row in rows].count("done") == 1
    assert {(row.attempts, row.fence) for row in rows if row.status != "done"} == {(0, 0)}
    await until(lambda: runtime.env.exchanger.lines["default"].idle_slots == 2)


async def test_a_raised_limit_is_felt_at_once(world: World) -> None:
    world.handlers.limit("api", capacity=1, refill_per_s=0.001)

    @world.handlers.handler("call", rate_limit="api")
    async def call(ctx: JobCtx) -> None: ...

    await world.work(slots=2)
    await world.when(await world.put("call"), "done")
    waiting = await world.put("call")
    await world.works_on()
    await world.storage.rate_limits.change("api", refill_per_s=1000)
    await world.when(waiting, "done", within_s=2)


async def test_a_429_shuts_the_scope_for_as_long_as_the_upstream_said(world: World) -> None:
    world.handlers.limit("api", capacity=100, refill_per_s=100)
    times: list[float] = []

    @world.handlers.handler("call", rate_limit="api")
    async def call(ctx: JobCtx) -> Throttled | None:
        times.append(time.monotonic())
        return Throttled(retry_after=0.6, cool_down=False) if len(times) == 1 else None

    await world.work(slots=1)
    throttled = await world.put("call")
    await until(lambda: times)
    await world.when(throttled, "pending")
    other = await world.put("call")
    await world.when(other, "done")
    assert times[1] - times[0] >= 0.6
    assert (await world.when(throttled, "done")).row.attempts == 1


async def test_a_scope_may_depend_on_the_payload(world: World) -> None:
    world.handlers.limit("chat", capacity=1, refill_per_s=4, per_key=True)

    @world.handlers.handler("post", rate_limit=lambda payload: payload and f"chat:{payload}")
    async def post(ctx: JobCtx, payload: Any) -> None: ...

    began = time.monotonic()
    ids = [await world.put("post", team) for team in ("a", "b", "c", None, None)]
    second = await world.put("post", "a")
    await world.work(slots=8)
    for job_id in ids:
        await world.when(job_id, "done")
    row = (await world.when(second, "done")).row
    assert time.monotonic() - began >= 0.2
    assert row.attempts == 1
    assert row.fence > 1  # it was put off, not failed


async def test_a_cost_may_depend_on_the_payload(world: World) -> None:
    world.handlers.limit("api", capacity=10, refill_per_s=20)

    @world.handlers.handler("call", rate_limit="api", cost=lambda payload: payload)
    async def call(ctx: JobCtx, payload: Any) -> None: ...

    await world.work(slots=4)
    for job_id in [await world.put("call", 6), await world.put("call", 10)]:
        await world.when(job_id, "done")
    assert (
        (await world.when(await world.put("call", 11), "failed"))
        .history[-1]
        .message.startswith("rate_limit: cost 11.0 is more than the capacity 10")
    )


async def test_a_fault_in_a_key_function_fails_its_own_job(world: World) -> None:
    @world.handlers.handler("call", rate_limit=lambda payload: payload["team"], max_attempts=1)
    async def call(ctx: JobCtx, payload: Any) -> None: ...

    await world.work(slots=4)
    detail = await world.when(await world.put("call", {}, max_attempts=1), "dead")
    assert detail.history[-1].message == "rate_limit: KeyError('team')"
    await world.works_on()


async def test_jobs_put_off_are_given_turns_apart(world: World) -> None:
    world.handlers.limit("chat", capacity=1, refill_per_s=10, per_key=True)

    @world.handlers.handler("post", rate_limit=lambda payload: "chat:a")
    async def post(ctx: JobCtx) -> None: ...

    ids = [await world.put("post") for _ in range(10)]
    await world.work(slots=10)
    rows = [(await world.when(job_id, "done")).row for job_id in ids]
    assert sum(row.fence for row in rows) <= 30  # each is claimed twice or so, not again and again


async def test_a_handler_may_wait_for_its_turn(world: World) -> None:
    world.handlers.limit("api", capacity=1, refill_per_s=5)
    answers: list[object] = []

    @world.handlers.handler("call")
    async def call(ctx: JobCtx) -> None:
        answers.append(await ctx.rate_limit.acquire("api", wait=True))

    await world.work(slots=3)
    for job_id in [await world.put("call") for _ in range(3)]:
        await world.when(job_id, "done")
    assert [type(answer) for answer in answers] == [Granted] * 3


async def test_a_wait_ends_with_the_time_that_is_left(world: World) -> None:
    world.handlers.limit("api", capacity=1, refill_per_s=0.01)
    answers: list[object] = []

    @world.handlers.handler("call", timeout=1)
    async def call(ctx: JobCtx) -> None:
        await ctx.rate_limit.drain("api")
        answers.append(await ctx.rate_limit.acquire("api", wait=True))
        answers.append(await ctx.rate_limit.acquire("api", wait=0.1))

    await world.work(slots=1)
    await world.when(await world.put("call"), "done")
    assert [type(answer) for answer in answers] == [Refused, Refused]


async def test_a_wait_ends_when_the_job_is_asked_to_stop(world: World) -> None:
    world.handlers.limit("api", capacity=1, refill_per_s=0.01)
    waits = asyncio.Event()
    answers: list[object] = []

    @world.handlers.handler("call")
    async def call(ctx: JobCtx) -> None:
        await ctx.rate_limit.drain("api")
        waits.set()
        answers.append(await ctx.rate_limit.acquire("api", wait=True))

    runtime = await world.work(slots=1)
    await world.put("call")
    await waits.wait()
    await runtime.stop(5)
    assert [type(answer) for answer in answers] == [Refused]


async def test_what_an_operator_tuned_survives_a_restart_of_the_worker(world: World) -> None:
    world.handlers.limit("api", capacity=1, refill_per_s=1)
    runtime = await world.work(slots=1)
    await world.storage.rate_limits.change("api", capacity=7)
    await runtime.stop()
    await runtime.start()
    assert [(limit.scope, limit.capacity) for limit in await world.storage.rate_limits.list()] == [("api", 7)]


async def test_kinds_of_an_unknown_scope_wait_and_are_named(world: World, caplog: pytest.LogCaptureFixture) -> None:
    @world.handlers.handler("call", rate_limit="nobody-made-it")
    async def call(ctx: JobCtx) -> None: ...

    waiting = await world.put("call")
    runtime = await world.work(slots=1)
    await world.works_on()
    await unserved.tick(runtime.env)
    assert "rate_scope_unknown" in caplog.text
    assert "nobody-made-it" in caplog.text
    assert (await world.row(waiting)).status == "pending"
    await world.storage.rate_limits.add(RateLimitDeclaration(scope="nobody-made-it", capacity=1, refill_per_s=1))
    await world.when(waiting, "done")


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (lambda h: h.limit("api", capacity=1), "rate limit 'api' needs capacity and refill_per_s"),
        (lambda h: h.limit("api", capacity=0, refill_per_s=1), "rate limit 'api': capacity 0 must be more than 0"),
        (lambda h: h.limit("a b", capacity=1, refill_per_s=1), "rate limit 'a b': scope name 'a b' is not legal"),
        (lambda h: h.handler("x", rate_limit="a b"), "rate_limit name 'a b' is not legal"),
        (lambda h: h.handler("x", rate_limit="a", cost=0), "cost 0 must be more than 0"),
        (lambda h: h.handler("x", rate_limit="slack", cost=51), "cost 51 is more than the capacity 50"),
    ],
)
def test_a_limit_that_cannot_work_is_refused_when_it_is_declared(declare: Any, says: str) -> None:
    handlers = HandlerRegistry()
    handlers.limit("slack")

    async def run(ctx: JobCtx) -> None: ...

    with pytest.raises(ConfigError) as caught:
        result = declare(handlers)
        if result is not None:
            result(run)
    assert says in str(caught.value)


def test_a_limit_too_small_for_a_handler_that_is_there_is_refused() -> None:
    handlers = HandlerRegistry()

    @handlers.handler("big", rate_limit="api", cost=5)
    async def big(ctx: JobCtx) -> None: ...

    with pytest.raises(ConfigError, match="cost 5 is more than the capacity 3"):
        handlers.limit("api", capacity=3, refill_per_s=1)
