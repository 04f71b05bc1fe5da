"""Handlers that are plain functions run on threads, and a thread that will not end costs its worker little."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forge_jobs import EnqueueRequest, HandlerRegistry, JobCtx
from forge_jobs.runtime.cancel import CancelReason
from forge_jobs.storage.error import ConfigError, InvalidInput, LostOwnership
from forge_jobs.testing.cluster import until

from .world import World, scaled

PATIENCE_S = 10.0
"""How long a thread of a test waits at most for what it waits for."""
TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


class Stubborn:
    """A handler on a thread that hears nothing until it is let go."""

    def __init__(self, world: World, **options: Any) -> None:
        self.started = 0
        self.ended = 0
        self.reasons: list[CancelReason | None] = []
        self.let_go = threading.Event()

        @world.handlers.handler("stubborn", **options)
        def stubborn(ctx: JobCtx) -> None:
            self.started += 1
            self.let_go.wait(PATIENCE_S)
            self.reasons.append(ctx.cancel.reason)
            self.ended += 1


@pytest.fixture
def stubborn(world: World) -> Iterator[Stubborn]:
    made = Stubborn(world, timeout=0.05, cancel_grace=0.05, backoff=[60])
    yield made
    made.let_go.set()


async def test_a_plain_function_runs_on_a_thread_of_its_own_with_the_context_variables(world: World) -> None:
    seen: list[tuple[str, bool, str, object]] = []
    TENANT.set("acme")

    @world.handlers.handler("plain")
    def plain(ctx: JobCtx, payload: dict[str, int]) -> None:
        seen.append((threading.current_thread().name, threading.current_thread().daemon, TENANT.get(), payload))
        TENANT.set("changed by a job")

    await world.work()
    await world.when(await world.put("plain", {"n": 1}), "done")
    await world.when(await world.put("plain", {"n": 2}), "done")
    assert seen == [("forge-sync-0", True, "acme", {"n": 1}), ("forge-sync-0", True, "acme", {"n": 2})]


@pytest.mark.parametrize("shape", ["payload", "ctx", "payload, ctx"])
async def test_a_plain_function_takes_what_an_async_one_takes(world: World, shape: str) -> None:
    seen: list[object] = []

    def of_payload(payload: object) -> None:
        seen.append(payload)

    def of_ctx(ctx: JobCtx) -> None:
        seen.append(ctx.kind)

    def of_both(payload: object, ctx: JobCtx) -> None:
        seen.append((payload, ctx.kind))

    functions: dict[str, Callable[..., None]] = {"payload": of_payload, "ctx": of_ctx, "payload, ctx": of_both}
    world.handlers.handler("plain")(functions[shape])
    await world.work()
    await world.when(await world.put("plain", [1]), "done")
    assert seen == [{"payload": [1], "ctx": "plain", "payload, ctx": ([1], "plain")}[shape]]


async def test_as_many_block_at_once_as_there_are_slots_while_the_event_loop_goes_on(world: World) -> None:
    together = threading.Barrier(3)

    @world.handlers.handler("plain")
    def plain(ctx: JobCtx) -> None:
        together.wait(PATIENCE_S)

    runtime = await world.work(slots=3)
    jobs = [await world.put("plain") for _ in range(3)]
    for job_id in jobs:
        await world.when(job_id, "done")
    assert runtime.env.health.counts["loop_errors"] == 0


async def test_a_thread_is_used_again_for_the_next_job(world: World) -> None:
    names: set[str] = set()

    @world.handlers.handler("plain")
    def plain(ctx: JobCtx) -> None:
        names.add(threading.current_thread().name)

    await world.work(slots=2)
    for job_id in [await world.put("plain") for _ in range(40)]:
        await world.when(job_id, "done")
    assert names <= {"forge-sync-0", "forge-sync-1"}


async def test_a_function_that_gives_a_coroutine_fails_and_says_how_to_mend_it(world: World) -> None:
    async def inner() -> None: ...

    @world.handlers.handler("plain")
    def plain(ctx: JobCtx) -> Any:
        return inner()

    await world.work()
    detail = await world.when(await world.put("plain"), "failed")
    assert "make it `async def`" in (detail.row.last_error or "")


# ctx on a thread


async def test_ctx_works_on_a_thread(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "forge_jobs.job")
    children: list[str] = []

    @world.handlers.handler("plain")
    def plain(ctx: JobCtx) -> None:
        ctx.log.info("halfway")
        ctx.progress(1, 2, "halfway")
        children.append(ctx.run_sync(ctx.enqueue(EnqueueRequest("child", {"of": ctx.job_id}, queue="elsewhere"))).id)
        children.extend(one.id for one in ctx.run_sync(ctx.enqueue_bulk([EnqueueRequest("child", queue="elsewhere")])))

    await world.work()
    job_id = await world.put("plain")
    detail = await world.when(job_id, "done")
    assert detail.progress is not None and detail.progress.message == "halfway"
    assert [record.kind for record in caplog.records if record.getMessage() == "halfway"] == ["plain"]  # type: ignore[attr-defined]
    assert [(await world.detail(child)).row.parent_id for child in children] == [job_id, job_id]  # type: ignore[arg-type]


async def test_a_transaction_can_finish_the_job_from_a_thread(world: World) -> None:
    @world.handlers.handler("plain")
    def plain(ctx: JobCtx) -> None:
        async def work() -> None:
            async with ctx.transaction() as tx:
                await tx.enqueue(EnqueueRequest("child", queue="elsewhere", id="01J00000000000000000000001"))

        ctx.run_sync(work())
        raise RuntimeError("the job is done all the same")

    await world.work()
    await world.when(await world.put("plain"), "done")
    await world.detail("01J00000000000000000000001")  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError("no"), asyncio.CancelledError()])
async def test_what_a_coroutine_raises_in_run_sync_is_raised_in_the_thread(world: World, error: BaseException) -> None:
    caught: list[BaseException] = []

    async def work() -> None:
        raise error

    @world.handlers.handler("plain")
    def plain(ctx: JobCtx) -> None:
        try:
            ctx.run_sync(work())
        except BaseException as raised:
            caught.append(raised)

    runtime = await world.work()
    await world.when(await world.put("plain"), "done")
    assert caught == [error]
    await world.works_on()
    assert not runtime.env.stopping.is_set()


async def test_run_sync_is_refused_on_the_event_loop_and_for_what_is_no_coroutine(world: World) -> None:
    @world.handlers.handler("looped")
    async def looped(ctx: JobCtx) -> None:
        with pytest.raises(InvalidInput, match="await the coroutine"):
            ctx.run_sync(asyncio.sleep(0))

    @world.handlers.handler("plain")
    def plain(ctx: JobCtx) -> None:
        with pytest.raises(InvalidInput, match="not HandlerFunction"):
            ctx.run_sync(plain)  # type: ignore[arg-type]

    await world.work()
    await world.when(await world.put("looped"), "done")
    await world.when(await world.put("plain"), "done")


# Being told to stop


async def test_a_thread_that_heeds_its_timeout_ends_in_its_grace(world: World) -> None:
    @world.handlers.handler("plain", timeout=0.05, cancel_grace=PATIENCE_S)
    def plain(ctx: JobCtx) -> None:
        assert ctx.cancel.wait_sync(0.001) is None
        assert ctx.cancel.wait_sync(PATIENCE_S) is CancelReason.TIMEOUT
        ctx.cancel.raise_if_cancelled()

    runtime = await world.work()
    detail = await world.when(await world.put("plain"), "failed")
    assert [entry.kind_of_error for entry in detail.history] == ["timeout"]
    assert runtime.env.threads.abandoned == 0
    await world.works_on()


async def test_the_cancel_can_be_awaited_in_another_event_loop_on_a_thread(world: World) -> None:
    @world.handlers.handler("plain", timeout=0.05, cancel_grace=PATIENCE_S)
    def plain(ctx: JobCtx) -> None:
        assert asyncio.run(asyncio.wait_for(ctx.cancel.wait(), PATIENCE_S)) is CancelReason.TIMEOUT
        assert ctx.run_sync(ctx.cancel.wait()) is CancelReason.TIMEOUT

    await world.work()
    await world.when(await world.put("plain"), "done")


async def test_a_thread_that_ignores_its_timeout_is_left_and_its_result_dropped(
    world: World, stubborn: Stubborn
) -> None:
    runtime = await world.work()
    job_id = await world.put("stubborn")
    detail = await world.when(job_id, "failed")
    assert [entry.kind_of_error for entry in detail.history] == ["timeout"]
    assert runtime.env.threads.abandoned == 1
    await world.works_on()
    stubborn.let_go.set()
    await until(lambda: runtime.env.threads.abandoned == 0, what="the thread back")
    assert stubborn.reasons == [CancelReason.TIMEOUT]
    assert (await world.row(job_id)).status == "failed", "it was done too late"


async def test_a_thread_that_ignores_a_cancel_is_left_and_its_job_dead(world: World) -> None:
    stubborn = Stubborn(world, cancel_grace=0.05)
    runtime = await world.work()
    job_id = await world.put("stubborn")
    await until(lambda: stubborn.started == 1, what="started")
    await world.storage.jobs.cancel(job_id)
    detail = await world.when(job_id, "dead")
    assert detail.row.dead_reason == "cancelled"
    assert "abandoned" in detail.history[-1].message
    assert runtime.env.threads.abandoned == 1
    await world.works_on()
    stubborn.let_go.set()
    await until(lambda: runtime.env.threads.abandoned == 0, what="the thread back")


async def test_a_thread_that_was_left_cannot_use_the_store_through_ctx(world: World) -> None:
    go = threading.Event()
    raised: list[BaseException] = []

    @world.handlers.handler("plain", timeout=0.05, cancel_grace=0.0, backoff=[60])
    def plain(ctx: JobCtx) -> None:
        go.wait(PATIENCE_S)
        try:
            ctx.run_sync(ctx.enqueue(EnqueueRequest("child")))
        except BaseException as error:
            raised.append(error)

    await world.work()
    await world.when(await world.put("plain"), "failed")
    go.set()
    await until(lambda: len(raised) == 1, what="refused")
    assert isinstance(raised[0], LostOwnership)


async def test_a_process_with_too_many_left_threads_takes_no_jobs_for_threads_until_they_end(
    world: World, stubborn: Stubborn, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[str] = []

    @world.handlers.handler("plain")
    def plain(ctx: JobCtx) -> None:
        ran.append(ctx.job_id)

    runtime = await world.work(slots=2, config=scaled(max_abandoned_threads=2))
    for job_id in [await world.put("stubborn"), await world.put("stubborn")]:
        await world.when(job_id, "failed")
    assert runtime.env.threads.abandoned == 2
    waiting = await world.put("plain")
    await world.works_on()  # what needs no thread runs

    async def told() -> bool:
        [process] = await world.storage.processes.list(runtime.env.config.stale_after)
        return process.info.abandoned_threads == 2 and set(process.info.kinds) == {"ordinary"}

    await until(told, what="the list of processes says so")
    assert (await world.row(waiting)).status == "pending"
    assert "thread_claims_stopped abandoned=2 kinds=plain,stubborn" in caplog.text
    stubborn.let_go.set()
    await world.when(waiting, "done")
    assert ran == [waiting]


def run_program(tmp_path: Path, body: str) -> subprocess.CompletedProcess[str]:
    """A program of its own, which must end by itself."""
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, threading, time\n"
        "from forge_jobs import EnqueueRequest, HandlerRegistry, QueueRuntime, open_storage\n"
        "handlers = HandlerRegistry()\n" + body
    )
    return subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, timeout=30, capture_output=True, text=True, check=False
    )


def test_neither_an_idle_nor_a_left_thread_keeps_a_program_from_ending(tmp_path: Path) -> None:
    ended = run_program(
        tmp_path,
        """
@handlers.handler("quick")
def quick(payload): ...

@handlers.handler("stuck", timeout=0.05, cancel_grace=0)
def stuck(payload): threading.Event().wait(600)

async def main():
    async with open_storage("sqlite:///jobs.db") as storage:
        runtime = QueueRuntime(storage, handlers)
        await runtime.start()
        for kind in ("quick", "stuck"):
            await runtime.enqueue(EnqueueRequest(kind))
        while not (runtime.env.threads.abandoned and runtime.report.finished == 2):
            await asyncio.sleep(0.01)
        print("left", runtime.env.threads.abandoned)

asyncio.run(main())
""",
    )
    assert (ended.returncode, ended.stdout) == (0, "left 1\n"), ended.stderr


# What is refused


def test_an_executor_that_does_not_fit_the_function_is_refused() -> None:
    handlers = HandlerRegistry()

    def plain(ctx: JobCtx) -> None: ...
    async def looped(ctx: JobCtx) -> None: ...

    with pytest.raises(ConfigError, match="would block the event loop"):
        handlers.handler("a", executor="async")(plain)
    with pytest.raises(ConfigError, match="runs on the event loop; make it `def`"):
        handlers.handler("a", executor="thread")(looped)
    with pytest.raises(ConfigError, match="executor 'fork' must be one of 'async', 'thread', 'process'"):
        handlers.handler("a", executor="fork")(plain)
    assert len(handlers) == 0
