"""`drain` runs what a worker would, and says what became of it; on both backends."""

from __future__ import annotations

from datetime import timedelta

import pytest

from forge_jobs import (
    ConfigError,
    Dead,
    EnqueueRequest,
    HandlerRegistry,
    JobCtx,
    Storage,
    StoreConfig,
    SyncQueue,
    Throttled,
    open_storage,
)
from forge_jobs.storage.types.finalize import Failed
from forge_jobs.testing import Drained, ManualClock, drain, drain_sync
from forge_jobs.testing.factories import make_claim

BACKENDS = pytest.mark.parametrize("forge_backend", ["sqlite", "postgresql"], indirect=True)


async def put(storage: Storage, kind: str, payload: object = None, *, queue: str = "default", **fields: object) -> None:
    await storage.jobs.enqueue(EnqueueRequest(kind, payload, queue=queue, **fields))  # type: ignore[arg-type]


@pytest.fixture
def forge_handlers() -> HandlerRegistry:
    handlers = HandlerRegistry()

    @handlers.handler("fine")
    async def fine(payload: object) -> None: ...

    @handlers.handler("broken", backoff=[60])
    async def broken(ctx: JobCtx) -> None:
        raise ValueError(f"attempt {ctx.attempt}")

    @handlers.handler("hopeless")
    async def hopeless(ctx: JobCtx) -> Dead:
        return Dead("the order is gone")

    @handlers.handler("refused")
    async def refused(ctx: JobCtx) -> Throttled:
        return Throttled(retry_after=3600, cool_down=False)

    @handlers.handler("parent")
    async def parent(ctx: JobCtx) -> None:
        await ctx.enqueue(EnqueueRequest("fine", queue="elsewhere"))

    @handlers.handler("endless")
    async def endless(ctx: JobCtx) -> None:
        await ctx.enqueue(EnqueueRequest("endless"))

    return handlers


@BACKENDS
async def test_every_run_is_told_with_its_outcome_and_the_status_of_its_job(
    forge_storage: Storage, forge_handlers: HandlerRegistry
) -> None:
    for kind in ("fine", "broken", "hopeless", "refused"):
        await put(forge_storage, kind)
    drained = await drain(forge_storage, forge_handlers)
    assert [(run.kind, run.status, run.dead_reason) for run in drained.ran] == [
        ("fine", "done", None),
        ("broken", "failed", None),
        ("hopeless", "dead", "rejected"),
        ("refused", "pending", None),
    ]
    assert drained.counts == {"done": 1, "failed": 1, "dead": 1, "pending": 1}
    failed = drained.outcomes[1]
    assert isinstance(failed, Failed)
    assert failed.error.message == "attempt 1"
    assert (drained.ready, drained.waiting) == (0, 2)


@BACKENDS
async def test_follow_ups_run_too_in_a_queue_that_was_not_there_before(
    forge_storage: Storage, forge_handlers: HandlerRegistry
) -> None:
    await put(forge_storage, "parent")
    drained = await drain(forge_storage, forge_handlers)
    assert [(run.kind, run.queue) for run in drained.ran] == [("parent", "default"), ("fine", "elsewhere")]


async def test_only_the_named_queues_are_drained(forge_storage: Storage, forge_handlers: HandlerRegistry) -> None:
    await put(forge_storage, "parent")
    await put(forge_storage, "fine", queue="elsewhere")
    drained = await drain(forge_storage, forge_handlers, queues=["default"])
    assert [run.kind for run in drained.ran] == ["parent"]
    assert len(await drain(forge_storage, forge_handlers)) == 2


async def test_jobs_run_in_the_order_of_claims(forge_storage: Storage) -> None:
    handlers, seen = HandlerRegistry(), []

    @handlers.handler("note")
    async def note(payload: int) -> None:
        seen.append(payload)

    for number, priority in enumerate([5, -5, 0, 0]):
        await put(forge_storage, "note", number, priority=priority)
    await drain(forge_storage, handlers)
    assert seen == [1, 2, 3, 0]


@BACKENDS
async def test_time_stands_unless_it_is_to_be_moved(
    forge_storage: Storage, forge_handlers: HandlerRegistry, forge_clock: ManualClock
) -> None:
    await put(forge_storage, "fine", delay=3600)
    drained = await drain(forge_storage, forge_handlers)
    assert (len(drained), drained.waiting) == (0, 1)
    before = forge_clock.now()
    drained = await drain(forge_storage, forge_handlers, advance=True)
    assert (drained.counts, drained.waiting) == ({"done": 1}, 0)
    assert forge_clock.now() - before == timedelta(hours=1)


async def test_retries_are_run_to_their_end_when_time_is_moved(
    forge_storage: Storage, forge_handlers: HandlerRegistry, forge_clock: ManualClock
) -> None:
    await put(forge_storage, "broken", max_attempts=3)
    before = forge_clock.now()
    drained = await drain(forge_storage, forge_handlers, advance=True)
    assert [(run.attempt, run.status) for run in drained.ran] == [(1, "failed"), (2, "failed"), (3, "dead")]
    assert drained.ran[-1].dead_reason == "exhausted"
    assert forge_clock.now() - before >= timedelta(minutes=2)


async def test_idle_moves_time_once_to_what_is_due_next(
    forge_storage: Storage, forge_handlers: HandlerRegistry, forge_clock: ManualClock
) -> None:
    for hours in (1, 2):
        await put(forge_storage, "fine", delay=3600 * hours)
    before = forge_clock.now()
    for hours in (1, 2):
        drained = await drain(forge_storage, forge_handlers, until="idle", advance=True)
        assert (drained.counts, drained.waiting) == ({"done": 1}, 2 - hours)
        assert forge_clock.now() - before == timedelta(hours=hours)


@BACKENDS
async def test_jobs_that_wait_for_a_budget_are_left_or_time_is_moved_until_they_are_paid(
    forge_storage: Storage, forge_clock: ManualClock
) -> None:
    handlers = HandlerRegistry()
    handlers.limit("mail", capacity=1, refill_per_s=0.1)

    @handlers.handler("mail", rate_limit="mail")
    async def mail(ctx: JobCtx) -> None: ...

    for _ in range(3):
        await put(forge_storage, "mail")
    drained = await drain(forge_storage, handlers)
    assert (drained.counts, drained.ready) == ({"done": 1}, 2)
    before = forge_clock.now()
    drained = await drain(forge_storage, handlers, advance=True)
    assert (drained.counts, drained.ready) == ({"done": 2}, 0)
    assert timedelta(seconds=20) <= forge_clock.now() - before < timedelta(seconds=60)


async def test_handlers_that_enqueue_themselves_for_ever_are_found(
    forge_storage: Storage, forge_handlers: HandlerRegistry
) -> None:
    await put(forge_storage, "endless")
    with pytest.raises(AssertionError, match=r"max_jobs=20 were run and 1 more are ready.*'endless'"):
        await drain(forge_storage, forge_handlers, max_jobs=20)


async def test_as_many_jobs_as_are_allowed_may_run(forge_storage: Storage, forge_handlers: HandlerRegistry) -> None:
    for _ in range(3):
        await put(forge_storage, "fine")
    assert len(await drain(forge_storage, forge_handlers, max_jobs=3)) == 3


async def test_a_job_of_a_worker_that_died_does_not_hold_it(
    forge_storage: Storage, forge_handlers: HandlerRegistry
) -> None:
    await put(forge_storage, "fine")
    await forge_storage.jobs.claim(make_claim(queue="default", kinds=("fine",)))
    assert len(await drain(forge_storage, forge_handlers)) == 0


async def test_a_paused_queue_does_not_hold_it(forge_storage: Storage, forge_handlers: HandlerRegistry) -> None:
    await put(forge_storage, "fine")
    await forge_storage.queues.pause("default")
    assert len(await drain(forge_storage, forge_handlers)) == 0


async def test_an_empty_store_is_drained_at_once(forge_storage: Storage, forge_handlers: HandlerRegistry) -> None:
    assert await drain(forge_storage, forge_handlers, advance=True) == Drained(ran=(), ready=0, waiting=0)


async def test_on_the_clock_of_the_host_it_waits_for_what_is_due_later(forge_handlers: HandlerRegistry) -> None:
    async with open_storage("sqlite:///:memory:") as storage:
        await put(storage, "fine", delay=0.1)
        assert (await drain(storage, forge_handlers, until="idle")).waiting == 1
        assert (await drain(storage, forge_handlers)).counts == {"done": 1}


async def test_what_cannot_be_meant_is_refused(forge_storage: Storage, forge_handlers: HandlerRegistry) -> None:
    with pytest.raises(ConfigError, match="until 'never' must be 'empty' or 'idle'"):
        await drain(forge_storage, forge_handlers, until="never")  # type: ignore[arg-type]
    async with open_storage("sqlite:///:memory:") as storage:
        with pytest.raises(ConfigError, match="clock=ManualClock"):
            await drain(storage, forge_handlers, advance=True)


@BACKENDS
def test_a_program_without_an_event_loop_drains_its_queue(
    forge_url: str, forge_config: StoreConfig, forge_handlers: HandlerRegistry
) -> None:
    with SyncQueue(forge_url, config=forge_config, handlers=forge_handlers) as queue:
        for kind in ("parent", "broken"):
            queue.enqueue(EnqueueRequest(kind))
        drained = drain_sync(queue, forge_handlers)
        assert (drained.counts, drained.waiting) == ({"done": 2, "failed": 1}, 1)
        queue.enqueue(EnqueueRequest("endless"))
        with pytest.raises(AssertionError, match="max_jobs=10 were run"):
            drain_sync(queue, forge_handlers, max_jobs=10)
