"""How long a failed job waits: the queue's curve, or the kind's own."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from forge_jobs import ConfigError, Exponential, Failed, JobCtx
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.cluster import until

from .world import World


async def delay_after_a_failure(world: World, **options: Any) -> float:
    @world.handlers.handler("failing", **options)
    async def failing(ctx: JobCtx) -> Failed:
        return Failed("no")

    await world.work(slots=1)
    job_id = await world.put("failing")
    row = (await world.when(job_id, "failed")).row
    await world.works_on()
    assert row.started_at is not None
    return (row.scheduled_at - row.started_at).total_seconds()


async def test_the_first_retry_waits_the_base_of_the_queues_curve(world: World) -> None:
    assert 4.5 <= await delay_after_a_failure(world) <= 5.6


async def test_a_kinds_list_of_delays_is_used_and_its_last_repeats(world: World) -> None:
    runs: list[datetime] = []

    @world.handlers.handler("failing", backoff=[0.0, 0.2])
    async def failing(ctx: JobCtx) -> Failed | None:
        runs.append(datetime.now(UTC))
        return Failed("no") if len(runs) < 4 else None

    await world.work(slots=1)
    await world.when(await world.put("failing"), "done")
    gaps = [(late - early).total_seconds() for early, late in pairwise(runs)]
    assert gaps[0] < 0.2
    assert all(0.2 <= gap < 0.5 for gap in gaps[1:])


async def test_a_callable_is_given_the_attempt_and_the_error(world: World) -> None:
    asked: list[tuple[int, str]] = []

    def backoff(attempt: int, error: BaseException | None) -> float:
        asked.append((attempt, repr(error)))
        return 77

    @world.handlers.handler("failing", backoff=backoff)
    async def failing(ctx: JobCtx) -> None:
        raise LookupError("which")

    await world.work(slots=1)
    row = (await world.when(await world.put("failing"), "failed")).row
    assert row.started_at is not None
    assert 77 <= (row.scheduled_at - row.started_at).total_seconds() < 78
    assert asked == [(1, "LookupError('which')")]


def faulty(attempt: int, error: BaseException | None) -> float:
    raise ZeroDivisionError("a fault in the backoff")


def leaving(attempt: int, error: BaseException | None) -> float:
    raise SystemExit(3)


@pytest.mark.parametrize(
    "backoff",
    [
        faulty,
        leaving,
        lambda a, e: -1,
        lambda a, e: float("nan"),
        lambda a, e: "soon",
        lambda a, e: None,
        lambda a, e: 10**400,
    ],
    ids=["raises", "exits", "negative", "nan", "text", "none", "huge"],
)
async def test_a_faulty_backoff_falls_back_to_the_queues_curve(world: World, backoff: Any) -> None:
    assert 4.5 <= await delay_after_a_failure(world, backoff=backoff) <= 5.6


async def test_a_queue_without_backoff_retries_at_once_until_the_attempts_are_spent(world: World) -> None:
    await world.storage.queues.ensure("default", QueueChange(backoff_enabled=False))
    attempts: list[int] = []

    @world.handlers.handler("failing")
    async def failing(ctx: JobCtx) -> Failed:
        attempts.append(ctx.attempt)
        return Failed("no")

    await world.work(slots=1)
    detail = await world.when(await world.put("failing", max_attempts=4), "dead")
    assert attempts == [1, 2, 3, 4]
    assert (detail.row.dead_reason, len(detail.history)) == ("exhausted", 4)


async def test_a_kind_may_have_a_curve_of_its_own(world: World) -> None:
    own = Exponential(base=40, cap=timedelta(minutes=2), jitter=0.5)
    assert 20 <= await delay_after_a_failure(world, backoff=own) <= 61
    steady = Exponential(base=40, cap=100, jitter=0)
    assert [steady(attempt, None) for attempt in (1, 2, 3, 1_000)] == [40, 80, 100, 100]


@pytest.mark.parametrize(
    "wrong", [{"base": 0}, {"base": "5"}, {"cap": timedelta(days=2)}, {"jitter": 0.6}, {"jitter": True}]
)
def test_a_curve_that_cannot_be_is_refused_where_it_is_written(wrong: dict[str, Any]) -> None:
    (name, value), *_ = wrong.items()
    with pytest.raises(ConfigError, match=rf"backoff {name} .*{re.escape(repr(value))}"):
        Exponential(**wrong)


async def test_a_queues_curve_is_switched_while_its_worker_runs(world: World) -> None:
    assert 4.5 <= await delay_after_a_failure(world) <= 5.6
    await world.storage.queues.change("default", QueueChange(backoff_base_s=60, backoff_jitter=0))

    async def delay() -> float:
        row = (await world.when(await world.put("failing"), "failed")).row
        assert row.started_at is not None
        return (row.scheduled_at - row.started_at).total_seconds()

    await until(lambda: delay_is(delay, 60))


async def delay_is(delay: Callable[[], Awaitable[float]], expected: float) -> bool:
    return expected <= await delay() <= expected + 0.5
