"""Jobs that run at their enqueue, and handlers that are called alone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs import ConfigError, EnqueueRequest, HandlerRegistry, InvalidPayload, JobCtx, Storage
from forge_jobs.runtime.cancel import CancelReason
from forge_jobs.storage.types.job import Deduped
from forge_jobs.testing import all_enqueued, assert_enqueued, inline, make_ctx
from forge_jobs.testing.factories import make_claim

BACKENDS = pytest.mark.parametrize("forge_backend", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def seen() -> list[object]:
    return []


@pytest.fixture
def forge_handlers(seen: list[object]) -> HandlerRegistry:
    handlers = HandlerRegistry()

    @handlers.handler("mail", queue="post", max_attempts=2)
    async def mail(ctx: JobCtx, payload: dict[str, object]) -> None:
        seen.append(payload["to"])
        if payload["to"] == "nobody":
            raise ConnectionError("no such person")
        if payload["to"] == "all":
            await ctx.enqueue_bulk([EnqueueRequest("mail", {"to": name}) for name in ("ada", "grace")])

    return handlers


@BACKENDS
async def test_a_job_has_run_when_its_enqueue_returns(
    forge_storage: Storage, forge_handlers: HandlerRegistry, seen: list[object]
) -> None:
    async with inline(forge_storage, forge_handlers) as storage:
        added = await storage.jobs.enqueue(EnqueueRequest("mail", {"to": "ada"}))
        assert seen == ["ada"]
        detail = await storage.jobs.get(added.id)
    assert detail is not None
    assert (detail.row.status, detail.row.queue, detail.row.max_attempts) == ("done", "post", 2)


async def test_follow_ups_and_bulks_run_too(
    forge_storage: Storage, forge_handlers: HandlerRegistry, seen: list[object]
) -> None:
    async with inline(forge_storage, forge_handlers) as storage:
        await storage.jobs.enqueue(EnqueueRequest("mail", {"to": "all"}))
        await storage.jobs.enqueue_bulk([EnqueueRequest("mail", {"to": "alan"})])
    assert seen == ["all", "ada", "grace", "alan"]


async def test_what_a_handler_raises_is_recorded_and_not_raised(
    forge_storage: Storage, forge_handlers: HandlerRegistry
) -> None:
    async with inline(forge_storage, forge_handlers) as storage:
        await storage.jobs.enqueue(EnqueueRequest("mail", {"to": "nobody"}))
    (job,) = await all_enqueued(forge_storage)
    assert (job.status, job.last_error) == ("failed", "no such person")


async def test_requests_are_checked_and_deduplicated_as_ever(
    forge_storage: Storage, forge_handlers: HandlerRegistry, seen: list[object]
) -> None:
    async with inline(forge_storage, forge_handlers) as storage:
        with pytest.raises(InvalidPayload):
            await storage.jobs.enqueue(EnqueueRequest("mail", {"to": float("nan")}))
        later = EnqueueRequest("mail", {"to": "ada"}, dedupe_key="ada", delay=60)
        await storage.jobs.enqueue(later)
        assert isinstance(await storage.jobs.enqueue(later), Deduped)
    assert seen == []


async def test_a_handler_is_called_alone() -> None:
    async def report(ctx: JobCtx) -> tuple[object, ...]:
        ctx.log.info("at work")
        ctx.progress(1, 2)
        return ctx.kind, ctx.queue, ctx.attempt, ctx.max_attempts, ctx.fence, ctx.cancel.is_cancelled

    ctx = make_ctx(kind="report", queue="slow", attempt=3, max_attempts=4, fence=9)
    assert await report(ctx) == ("report", "slow", 3, 4, 9, False)


async def test_a_context_has_a_deadline_and_a_due_time() -> None:
    due = datetime(2026, 5, 1, tzinfo=UTC)
    ctx = make_ctx(timeout=30, scheduled_at=due)
    assert ctx.scheduled_at == due
    assert ctx.deadline is not None
    assert timedelta(0) < ctx.deadline - datetime.now(UTC) <= timedelta(seconds=30)


async def test_a_handler_is_told_to_stop() -> None:
    async def patient(ctx: JobCtx) -> str:
        return await ctx.cancel.wait()

    ctx = make_ctx()
    running = asyncio.create_task(patient(ctx))
    ctx.cancel.fire(CancelReason.SHUTDOWN)
    assert await running == "shutdown"


async def test_a_context_with_a_store_enqueues_there(forge_storage: Storage, forge_handlers: HandlerRegistry) -> None:
    ctx = make_ctx(forge_storage, handlers=forge_handlers)
    await ctx.enqueue(EnqueueRequest("mail", {"to": "ada"}))
    (job,) = await assert_enqueued(forge_storage, "mail", queue="post")
    assert job.parent_id == ctx.job_id


async def test_a_context_without_a_store_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"no storage.jobs; give one: make_ctx\(storage\)"):
        await make_ctx().enqueue(EnqueueRequest("mail"))


@BACKENDS
async def test_the_context_of_a_claimed_job_can_end_it_in_a_transaction(forge_storage: Storage) -> None:
    await forge_storage.jobs.enqueue(EnqueueRequest("mail", queue="default"))
    (job,) = (await forge_storage.jobs.claim(make_claim(queue="default", kinds=("mail",)))).jobs
    ctx = make_ctx(forge_storage, job=job)
    async with ctx.transaction() as tx:
        await tx.enqueue(EnqueueRequest("receipt"))
    assert [(row.kind, row.status) for row in await all_enqueued(forge_storage)] == [
        ("mail", "done"),
        ("receipt", "pending"),
    ]
