"""What a handler can do with its context: follow-ups, progress, logs."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import pytest

from forge_jobs import Busy, EnqueueRequest, InvalidInput, JobCtx, KindPrefixRouter, QueueFull
from forge_jobs.storage.types.job import Enqueued, EnqueueOutcome, JobFilter
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.cluster import until

from .world import World, scaled


async def test_a_context_names_the_run(world: World) -> None:
    seen: dict[str, Any] = {}

    @world.handlers.handler("probe", timeout=30)
    async def probe(ctx: JobCtx) -> None:
        names = ("job_id", "attempt", "max_attempts", "fence", "queue", "kind", "process_id", "host_id", "trace")
        seen.update({name: getattr(ctx, name) for name in names}, repr=repr(ctx), deadline=ctx.deadline)

    runtime = await world.work()
    job_id = await world.put("probe", {"secret": "abc"}, max_attempts=7, trace={"id": "t1"})
    await world.when(job_id, "done")
    host = runtime.host_id
    deadline = seen.pop("deadline")
    assert 25 < (deadline - datetime.now(UTC)).total_seconds() <= 30
    assert seen == {
        "job_id": job_id,
        "attempt": 1,
        "max_attempts": 7,
        "fence": 1,
        "queue": "default",
        "kind": "probe",
        "process_id": f"default-0-{host}",
        "host_id": host,
        "trace": {"id": "t1"},
        "repr": f"JobCtx(job_id={job_id}, process_id=default-0-{host}, host_id={host})",
    }


async def test_a_follow_up_is_routed_and_knows_its_parent(world: World) -> None:
    made: list[EnqueueOutcome] = []

    @world.handlers.handler("hinted", queue="hints", max_attempts=9)
    async def hinted(ctx: JobCtx) -> None: ...

    @world.handlers.handler("parent")
    async def parent(ctx: JobCtx) -> None:
        made.append(await ctx.enqueue(EnqueueRequest("gh_fetch")))
        made.append(await ctx.enqueue(EnqueueRequest("hinted")))
        made.extend(await ctx.enqueue_bulk([EnqueueRequest("other"), EnqueueRequest("gh_fetch", queue="chosen")]))

    await world.work(router=KindPrefixRouter())
    job_id = await world.put("parent")
    await world.when(job_id, "done")
    rows = [await world.row(outcome.id) for outcome in made]
    assert [row.queue for row in rows] == ["gh", "hints", "default", "chosen"]
    assert {row.parent_id for row in rows} == {job_id}
    assert [row.max_attempts for row in rows] == [5, 9, 5, 5]
    assert await world.storage.queues.get("gh") is not None, "a queue that nobody declared is visible"


async def test_a_follow_up_is_tried_again_while_another_program_holds_the_file(
    hasty_world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The lock is held for longer than one call to the store may take, and given back before the last try."""
    world = hasty_world
    running, locked = asyncio.Event(), asyncio.Event()
    made: list[EnqueueOutcome] = []

    @world.handlers.handler("parent")
    async def parent(ctx: JobCtx) -> None:
        running.set()
        await locked.wait()
        made.append(await ctx.enqueue(EnqueueRequest("child")))

    await world.work(config=scaled(heartbeat_s=2, stale_s=30))
    job_id = await world.put("parent")
    await running.wait()
    with world.locked():
        locked.set()
        await until(lambda: any("enqueue_retry" in record.getMessage() for record in caplog.records))
    detail = await world.when(job_id, "done")
    assert detail.row.attempts == 1, "the handler did not see the conflict"
    assert isinstance(made[0], Enqueued)
    assert (await world.row(made[0].id)).kind == "child"


async def test_a_conflict_that_outlasts_every_try_is_the_handlers_to_deal_with(hasty_world: World) -> None:
    world = hasty_world
    running, locked = asyncio.Event(), asyncio.Event()
    caught: list[Exception] = []

    @world.handlers.handler("parent")
    async def parent(ctx: JobCtx) -> None:
        running.set()
        await locked.wait()
        try:
            await ctx.enqueue(EnqueueRequest("child"))
        except Exception as error:
            caught.append(error)

    await world.work(config=scaled(heartbeat_s=2, stale_s=30))
    job_id = await world.put("parent")
    await running.wait()
    with world.locked():
        locked.set()
        await until(lambda: caught, within_s=5)
    assert [type(error) for error in caught] == [Busy], "nothing was written, and the error says so"
    await world.when(job_id, "done")
    assert await world.storage.jobs.count(JobFilter(kinds=("child",))) == {}


async def test_a_refused_follow_up_is_the_handlers_to_deal_with(world: World) -> None:
    await world.storage.queues.ensure("tiny", QueueChange(max_pending=1))
    caught: list[str] = []

    @world.handlers.handler("parent")
    async def parent(ctx: JobCtx) -> None:
        await ctx.enqueue(EnqueueRequest("child", queue="tiny"))
        for request in (EnqueueRequest("child", queue="tiny"), EnqueueRequest("child", {1, 2})):
            try:
                await ctx.enqueue(request)
            except (QueueFull, InvalidInput) as error:
                caught.append(type(error).__name__)

    await world.work()
    await world.when(await world.put("parent"), "done")
    assert caught == ["QueueFull", "InvalidPayload"]


async def test_a_failed_bulk_adds_nothing(world: World) -> None:
    @world.handlers.handler("parent")
    async def parent(ctx: JobCtx) -> None:
        await ctx.enqueue_bulk([EnqueueRequest("child"), EnqueueRequest("child", queue="no,name")])

    await world.work()
    await world.when(await world.put("parent"), "failed")
    assert await world.storage.jobs.count(JobFilter(kinds=("child",))) == {}


async def test_progress_is_written_while_the_job_runs_and_the_newest_wins(world: World) -> None:
    go_on = asyncio.Event()

    @world.handlers.handler("long")
    async def long(ctx: JobCtx) -> None:
        for step in range(1_000):
            ctx.progress(step, 1_000, f"step {step}")
        await go_on.wait()
        ctx.progress(1_000, 1_000, "x" * 900)

    await world.work()
    job_id = await world.put("long")

    async def shown() -> float | None:
        progress = (await world.detail(job_id)).progress
        return progress.current if progress else None

    assert await until(shown, within_s=3) == 999
    go_on.set()
    await world.when(job_id, "done")
    detail = await world.detail(job_id)
    assert detail.progress is not None
    assert (detail.progress.current, detail.progress.total) == (1_000, 1_000)
    assert detail.progress.message == "x" * 500


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "5", None, True, 10**400], ids=lambda v: repr(v)[:10])
async def test_progress_that_is_no_number_is_refused_in_the_handler(world: World, value: Any) -> None:
    caught: list[type] = []

    @world.handlers.handler("probe")
    async def probe(ctx: JobCtx) -> None:
        try:
            ctx.progress(value)
        except Exception as error:
            caught.append(type(error))

    await world.work()
    await world.when(await world.put("probe"), "done")
    assert caught == [InvalidInput]


@pytest.mark.parametrize("message", ["half \ud800 pair", "nul \x00 byte"], ids=["surrogate", "nul"])
async def test_an_odd_progress_message_costs_the_worker_nothing(world: World, message: str) -> None:
    @world.handlers.handler("probe")
    async def probe(ctx: JobCtx) -> None:
        ctx.progress(1, 2, message)

    runtime = await world.work(slots=1)
    await world.when(await world.put("probe"), "done")
    await world.works_on()
    assert not runtime.env.stopping.is_set()


async def test_a_log_line_carries_the_fields_of_its_job(world: World, caplog: pytest.LogCaptureFixture) -> None:
    @world.handlers.handler("probe")
    async def probe(ctx: JobCtx) -> None:
        ctx.log.warning("half way at %d", 50, extra={"colour": "red"})

    runtime = await world.work()
    job_id = await world.put("probe")
    await world.when(job_id, "done")
    (record,) = [record for record in caplog.records if record.name == "forge_jobs.job"]
    assert record.getMessage() == "half way at 50"
    fields = {name: record.__dict__[name] for name in ("job_id", "kind", "queue", "attempt", "fence", "host_id")}
    assert fields == {
        "job_id": job_id,
        "kind": "probe",
        "queue": "default",
        "attempt": 1,
        "fence": 1,
        "host_id": runtime.host_id,
    }
    assert record.__dict__["colour"] == "red"
    assert logging.getLogger("forge_jobs").handlers == [], "a library configures no logging"


async def test_every_try_of_a_follow_up_carries_the_same_id(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of a try may be lost though it was committed: with a new id its repeat would be a second job."""
    tried: list[str | None] = []
    enqueue = world.storage.jobs.enqueue

    async def refusing(request: EnqueueRequest, **options: Any) -> EnqueueOutcome:
        if request.kind == "follow":
            tried.append(request.id)
            if len(tried) < 3:
                raise Busy("locked by another program")
        return await enqueue(request, **options)

    @world.handlers.handler("leader")
    async def leader(ctx: JobCtx) -> None:
        await ctx.enqueue(EnqueueRequest("follow"))

    monkeypatch.setattr(world.storage.jobs, "enqueue", refusing)
    await world.work()
    await world.when(await world.put("leader"), "done")
    assert len(tried) == 3
    assert tried[0] is not None
    assert len(set(tried)) == 1
