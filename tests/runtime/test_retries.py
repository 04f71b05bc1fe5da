"""How long a failed job waits: the queue's curve, or the kind's own."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import ConfigError, EnqueueRequest, Exponential, Failed, HandlerRegistry, JobCtx, Storage
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing import ManualClock, all_enqueued, drain, until

from .world import World


class Failing:
    """A store with one kind whose jobs fail, and how long each of its jobs waits."""

    def __init__(self, storage: Storage, handlers: HandlerRegistry, clock: ManualClock) -> None:
        self.storage = storage
        self.handlers = handlers
        self._clock = clock

    async def put(self, **fields: Any) -> None:
        await self.storage.jobs.enqueue(EnqueueRequest("failing", queue="default", **fields))

    async def delay(self, **options: Any) -> float:
        """Seconds until the retry of a job that failed once."""

        @self.handlers.handler("failing", **options)
        async def failing(ctx: JobCtx) -> Failed:
            return Failed("no")

        await self.put()
        assert (await drain(self.storage, self.handlers)).counts == {"failed": 1}
        (row,) = await all_enqueued(self.storage)
        return (row.scheduled_at - self._clock.now()).total_seconds()


@pytest.fixture
def failing(forge_storage: Storage, forge_handlers: HandlerRegistry, forge_clock: ManualClock) -> Failing:
    return Failing(forge_storage, forge_handlers, forge_clock)


async def test_the_first_retry_waits_the_base_of_the_queues_curve(failing: Failing) -> None:
    assert 4.5 <= await failing.delay() <= 5.5


async def test_a_kinds_list_of_delays_is_used_and_its_last_repeats(failing: Failing, forge_clock: ManualClock) -> None:
    runs: list[float] = []
    began = forge_clock.now()

    @failing.handlers.handler("failing", backoff=[0.0, 0.2])
    async def three_times(ctx: JobCtx) -> Failed | None:
        runs.append((forge_clock.now() - began).total_seconds())
        return Failed("no") if len(runs) < 4 else None

    await failing.put()
    drained = await drain(failing.storage, failing.handlers, advance=True)
    assert drained.counts == {"failed": 3, "done": 1}
    assert runs == pytest.approx([0.0, 0.0, 0.2, 0.4], abs=0.002)


async def test_a_callable_is_given_the_attempt_and_the_error(failing: Failing) -> None:
    asked: list[tuple[int, str]] = []

    def backoff(attempt: int, error: BaseException | None) -> float:
        asked.append((attempt, repr(error)))
        return 77

    @failing.handlers.handler("failing", backoff=backoff)
    async def which(ctx: JobCtx) -> None:
        raise LookupError("which")

    await failing.put()
    await drain(failing.storage, failing.handlers)
    (row,) = await all_enqueued(failing.storage)
    assert row.started_at is not None
    assert (row.scheduled_at - row.started_at).total_seconds() == 77
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
async def test_a_faulty_backoff_falls_back_to_the_queues_curve(failing: Failing, backoff: Any) -> None:
    assert 4.5 <= await failing.delay(backoff=backoff) <= 5.5


async def test_a_queue_without_backoff_retries_at_once_until_the_attempts_are_spent(failing: Failing) -> None:
    await failing.storage.queues.ensure("default", QueueChange(backoff_enabled=False))

    @failing.handlers.handler("failing")
    async def at_once(ctx: JobCtx) -> Failed:
        return Failed("no")

    await failing.put(max_attempts=4)
    drained = await drain(failing.storage, failing.handlers)
    assert [(run.attempt, run.status) for run in drained.ran] == [
        (1, "failed"),
        (2, "failed"),
        (3, "failed"),
        (4, "dead"),
    ]
    assert drained.ran[-1].dead_reason == "exhausted"
    detail = await failing.storage.jobs.get(drained.ran[-1].job_id)
    assert detail is not None
    assert len(detail.history) == 4


async def test_a_kind_may_have_a_curve_of_its_own(failing: Failing) -> None:
    own = Exponential(base=40, cap=timedelta(minutes=2), jitter=0.5)
    assert 20 <= await failing.delay(backoff=own) <= 60
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
    @world.handlers.handler("failing")
    async def no(ctx: JobCtx) -> Failed:
        return Failed("no")

    await world.work(slots=1)
    await world.works_on()
    await world.storage.queues.change("default", QueueChange(backoff_base_s=60, backoff_jitter=0))

    async def delay() -> float:
        row = (await world.when(await world.put("failing"), "failed")).row
        assert row.started_at is not None
        return (row.scheduled_at - row.started_at).total_seconds()

    await until(lambda: delay_is(delay, 60))


async def delay_is(delay: Callable[[], Awaitable[float]], expected: float) -> bool:
    return expected <= await delay() <= expected + 0.5
