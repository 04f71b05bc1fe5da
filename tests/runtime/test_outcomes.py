"""Whatever a handler returns or raises ends its job as it should, and costs the worker nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import pytest

from forge_jobs import Dead, DeadError, Done, DoneError, Failed, FailedError, JobCtx, Throttled, ThrottledError
from forge_jobs.storage.types.job import JobDetail

from .world import World

RAN = ("done", "failed", "dead")


class Mute(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class Faceless(Exception):
    """Cannot be shown for debugging either."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr for you")

    __str__ = __repr__


class MuteText:
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


@dataclass(frozen=True)
class FrozenError(Exception):
    """An exception of which nothing can be set, as `@dataclass(frozen=True)` makes them."""

    code: int


async def run_once(world: World, act: Callable[[], Any], **options: Any) -> JobDetail:
    """The job whose handler did `act()`; its only slot has run an ordinary job since."""

    @world.handlers.handler("probe", **options)
    async def probe(ctx: JobCtx) -> Any:
        return act()

    runtime = await world.work(slots=1)
    detail = await world.when(await world.put("probe"), *RAN)
    await world.works_on()
    assert not runtime.env.stopping.is_set()
    return detail


def raising(make: Callable[[], BaseException]) -> Callable[[], NoReturn]:
    def act() -> NoReturn:
        raise make()

    return act


@pytest.mark.parametrize("answer", [None, Done()])
async def test_a_job_is_done_when_its_handler_says_so_or_nothing(world: World, answer: object) -> None:
    detail = await run_once(world, lambda: answer)
    assert detail.row.status == "done"
    assert detail.history == ()


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (42, "int"),
        ("done", "str"),
        (True, "bool"),
        (0, "int"),
        ({}, "dict"),
        (Done, "the class Done itself"),
        (object(), "object"),
    ],
)
async def test_an_answer_that_is_no_outcome_fails_and_is_named(world: World, answer: object, named: str) -> None:
    detail = await run_once(world, lambda: answer)
    assert detail.row.status == "failed"
    assert named in (detail.row.last_error or "")
    assert "Done()" in (detail.row.last_error or ""), "the message says what is legal"


@pytest.mark.parametrize(
    "hint",
    [math.nan, math.inf, -math.inf, -1, -0.5, "60", True, timedelta(seconds=-1), [60]],
    ids=lambda hint: repr(hint)[:20],
)
async def test_a_throttle_with_a_senseless_hint_is_a_failure_that_shows_it(world: World, hint: Any) -> None:
    detail = await run_once(world, lambda: Throttled(hint))
    assert detail.row.status == "failed"
    assert "retry_after" in (detail.row.last_error or "")


@pytest.mark.parametrize(
    "hint", [8 * 86_400, timedelta(days=400), timedelta.max, 10**400], ids=lambda hint: repr(hint)[:20]
)
async def test_a_throttle_beyond_seven_days_is_cut_to_seven(world: World, hint: Any) -> None:
    @world.handlers.handler("probe")
    async def probe(ctx: JobCtx) -> Throttled:
        return Throttled(hint, cool_down=False)

    await world.work()
    before = datetime.now(UTC)
    job_id = await world.put("probe")
    await world.works_on()
    row = (await world.when(job_id, "pending")).row
    assert timedelta(days=7) <= row.scheduled_at - before <= timedelta(days=7.71), "seven days and at most a tenth"
    assert row.attempts == 0


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda: ValueError("bad\x00byte"), "bad\N{REPLACEMENT CHARACTER}byte"),
        (lambda: ValueError("half \ud800 pair"), "half \N{REPLACEMENT CHARACTER} pair"),
        (lambda: Mute("x"), "Mute"),
        (lambda: Faceless("x"), "Faceless"),
        (lambda: FrozenError(7), "7"),
        (lambda: KeyError("k"), "'k'"),
        (lambda: StopIteration(3), "StopIteration"),
        (lambda: StopAsyncIteration(), "StopAsyncIteration"),
        (lambda: SystemExit(3), "3"),
        (lambda: KeyboardInterrupt(), "KeyboardInterrupt"),
        (lambda: GeneratorExit(), "GeneratorExit"),
        (lambda: MemoryError(), "MemoryError"),
        (lambda: asyncio.CancelledError(), "CancelledError"),
        (lambda: ExceptionGroup("many", [ValueError(n) for n in range(7)]), "0, 1, 2, 3, 4, 2 more"),
        (lambda: BaseExceptionGroup("deep", [KeyboardInterrupt(), SystemExit(1)]), "KeyboardInterrupt, SystemExit(1)"),
    ],
    ids=[
        *("nul", "surrogate", "raising-str", "raising-repr", "frozen", "keyerror", "stop-iteration"),
        *("stop-async-iteration", "system-exit", "keyboard-interrupt", "generator-exit", "memory-error"),
        *("own-cancelled-error", "group", "base-group"),
    ],
)
async def test_any_exception_fails_the_job_and_nothing_else(
    world: World, make: Callable[[], BaseException], shown: str
) -> None:
    detail = await run_once(world, raising(make))
    assert detail.row.status == "failed"
    assert shown in (detail.row.last_error or "")
    assert [entry.kind_of_error for entry in detail.history] == ["failed"]


async def test_an_endless_recursion_fails_the_job_and_nothing_else(world: World) -> None:
    def act() -> Any:
        return act()

    detail = await run_once(world, act)
    assert "maximum recursion depth" in (detail.row.last_error or "")
    assert detail.traceback is not None
    assert "RecursionError" in detail.traceback
    assert len(detail.traceback.encode()) <= 16 * 1024


async def test_an_error_of_fifty_megabytes_is_cut_in_the_middle(world: World) -> None:
    detail = await run_once(world, raising(lambda: ValueError("x" * 50_000_000)))
    assert len((detail.row.last_error or "").encode()) <= 4 * 1024
    assert "cut" in (detail.row.last_error or "")
    assert len((detail.traceback or "").encode()) <= 16 * 1024


async def test_the_message_is_the_chain_of_causes_outermost_first(world: World) -> None:
    def act() -> None:
        try:
            raise OSError("socket closed")
        except OSError as error:
            raise RuntimeError("upload failed") from error

    detail = await run_once(world, act)
    assert detail.row.last_error == "upload failed: socket closed"
    assert "OSError: socket closed" in (detail.traceback or "")


async def test_a_handler_that_cancels_its_own_task_fails_and_its_slot_lives_on(world: World) -> None:
    @world.handlers.handler("probe")
    async def probe(ctx: JobCtx) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    await world.work(slots=1)
    detail = await world.when(await world.put("probe"), *RAN, within_s=3)
    assert detail.row.status == "failed"
    await world.works_on()


async def test_a_handler_may_use_timeouts_and_task_groups_of_its_own(world: World) -> None:
    async def fail() -> None:
        raise LookupError("inner")

    @world.handlers.handler("timeout")
    async def with_timeout(ctx: JobCtx) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    @world.handlers.handler("group")
    async def with_group(ctx: JobCtx) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
            await asyncio.Event().wait()

    await world.work(slots=1)
    timed_out = await world.when(await world.put("timeout"), *RAN)
    grouped = await world.when(await world.put("group"), *RAN)
    assert "TimeoutError" in (timed_out.row.last_error or "")
    assert "inner" in (grouped.row.last_error or "")
    await world.works_on()


@pytest.mark.parametrize(
    ("act", "status", "message"),
    [
        (lambda: Failed("no luck"), "failed", "no luck"),
        (lambda: Failed(), "failed", "failed"),
        (lambda: Failed(MuteText()), "failed", "failed"),  # type: ignore[arg-type]
        (lambda: Dead("hopeless"), "dead", "hopeless"),
        (lambda: Dead("x" * 9_000), "dead", "bytes cut"),
        (raising(lambda: FailedError("no luck")), "failed", "no luck"),
        (raising(lambda: DeadError("hopeless")), "dead", "hopeless"),
    ],
    ids=["failed", "failed-empty", "failed-mute", "dead", "dead-long", "failed-raised", "dead-raised"],
)
async def test_failed_and_dead_mean_the_same_returned_and_raised(
    world: World, act: Callable[[], Any], status: str, message: str
) -> None:
    detail = await run_once(world, act)
    assert detail.row.status == status
    assert message in (detail.row.last_error or "")
    assert detail.row.dead_reason == ("rejected" if status == "dead" else None)
    assert detail.traceback is None


async def test_done_can_be_raised_from_deep_inside(world: World) -> None:
    detail = await run_once(world, raising(DoneError))
    assert detail.row.status == "done"
    assert detail.row.last_error is None


async def test_a_job_is_dead_when_its_attempts_are_spent(world: World) -> None:
    detail = await run_once(world, lambda: Failed("again"), max_attempts=1)
    assert (detail.row.status, detail.row.attempts) == ("failed", 1), (
        "the registry's number is for enqueues by a router"
    )

    @world.handlers.handler("once")
    async def once(ctx: JobCtx) -> Failed:
        return Failed("only once")

    spent = await world.when(await world.put("once", max_attempts=1), "dead")
    assert (spent.row.dead_reason, spent.row.attempts) == ("exhausted", 1)


async def test_only_the_listed_exceptions_are_retried(world: World) -> None:
    @world.handlers.handler("probe", retry_on=(OSError,))
    async def probe(payload: str) -> None:
        raise ConnectionError("try again") if payload == "retry" else ValueError("never")

    await world.work()
    assert (await world.when(await world.put("probe", "retry"), *RAN)).row.status == "failed"
    refused = await world.when(await world.put("probe", "other"), *RAN)
    assert (refused.row.status, refused.row.dead_reason) == ("dead", "rejected")
    assert "never" in (refused.row.last_error or "")


async def test_the_listed_exceptions_end_the_job_at_once(world: World) -> None:
    detail = await run_once(world, raising(lambda: LookupError("gone")), dead_on=LookupError)
    assert (detail.row.status, detail.row.dead_reason, detail.row.attempts) == ("dead", "rejected", 1)


async def test_a_damaged_payload_is_a_failed_attempt_and_the_jobs_behind_it_run(world: World) -> None:
    ran: list[Any] = []

    @world.handlers.handler("probe")
    async def probe(payload: Any) -> None:
        ran.append(payload)

    damaged = await world.put("probe", max_attempts=1)
    world.damage(damaged, "payload", '{"half":')
    whole = [await world.put("probe", n) for n in range(3)]
    await world.work(slots=2)
    for job_id in whole:
        await world.when(job_id, "done")
    detail = await world.when(damaged, "dead")
    assert (detail.row.dead_reason, len(detail.history)) == ("exhausted", 1)
    assert ran == [0, 1, 2]
    await world.works_on()


async def test_a_payload_reaches_the_handler_as_it_was_enqueued(world: World) -> None:
    payload = {"z": [1, 2.5, True, None], "a": "NUL \x00 and \N{SNOWMAN}", "big": 10**40, "": {}}
    got: list[Any] = []

    @world.handlers.handler("probe")
    async def probe(payload: Any) -> None:
        got.append(payload)

    await world.work()
    await world.when(await world.put("probe", payload), "done")
    assert got == [payload]
    assert list(got[0]) == list(payload)


@pytest.mark.parametrize("raised", [False, True], ids=["returned", "raised"])
async def test_a_throttled_job_waits_and_keeps_its_attempt_while_its_queue_cools_down(
    world: World, raised: bool
) -> None:
    @world.handlers.handler("limited")
    async def limited(ctx: JobCtx) -> Throttled:
        if raised:
            raise ThrottledError(0.4)
        return Throttled(0.4)

    await world.work(slots=1)
    job_id = await world.put("limited")

    job = (await world.when(job_id, "pending", and_also=lambda row: row.throttles == 1)).row
    began = asyncio.get_running_loop().time()
    await world.works_on()
    assert asyncio.get_running_loop().time() - began >= 0.3, "the whole queue stood for one upstream"
    assert job.attempts == 0
    settings = await world.storage.queues.get("default")
    assert settings is not None
    assert settings.throttle_attempts == 1


async def test_a_throttle_without_cool_down_leaves_the_queue_open(world: World) -> None:
    @world.handlers.handler("limited")
    async def limited(ctx: JobCtx) -> Throttled:
        return Throttled(60, cool_down=False)

    await world.work(slots=1)
    await world.put("limited")
    await world.works_on()
    settings = await world.storage.queues.get("default")
    assert settings is not None
    assert settings.throttled_until is None
