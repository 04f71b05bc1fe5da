"""Why a handler is told to stop, and what becomes of its job: cancel, pause, shutdown, timeout."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from forge_jobs import Done, EnqueueRequest, Failed, HandlerRegistry, JobCtx, QueueRuntime, open_storage
from forge_jobs.runtime.cancel import CancelReason
from forge_jobs.runtime.running import Run
from forge_jobs.storage.types.answers import CancelOutcome
from forge_jobs.testing.cluster import until

from .world import World, scaled


class Probe:
    """A handler that waits to be told to stop, and what it saw."""

    def __init__(self, world: World, answer: Any = None, **options: Any) -> None:
        self.started = 0
        self.attempts: list[int] = []
        self.reasons: list[CancelReason] = []
        self.let_go = asyncio.Event()

        @world.handlers.handler("probe", **options)
        async def probe(ctx: JobCtx) -> Any:
            self.started += 1
            self.attempts.append(ctx.attempt)
            waiting = asyncio.ensure_future(self.let_go.wait())
            told = asyncio.ensure_future(ctx.cancel.wait())
            try:
                await asyncio.wait({waiting, told}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
                told.cancel()
            if ctx.cancel.reason is not None:
                self.reasons.append(ctx.cancel.reason)
            if answer == "stop":
                ctx.cancel.raise_if_cancelled()
            return None if answer == "stop" else answer

    async def running(self, times: int = 1) -> None:
        await until(lambda: self.started >= times, what=f"started {times} times")


# Cancel by a user


@pytest.mark.parametrize("answer", ["stop", Failed("stopped"), 42], ids=["released", "failed", "nonsense"])
async def test_a_cancelled_running_job_is_told_and_ends_dead(world: World, answer: Any) -> None:
    probe = Probe(world, answer)
    await world.work()
    job_id = await world.put("probe")
    await probe.running()
    assert await world.storage.jobs.cancel(job_id) is CancelOutcome.CANCEL_REQUESTED
    detail = await world.when(job_id, "dead")
    assert detail.row.dead_reason == "cancelled"
    assert probe.reasons == [CancelReason.USER]
    assert [entry.kind_of_error for entry in detail.history] == ["cancelled"]
    await world.works_on()


async def test_a_handler_that_is_done_after_the_cancel_is_done(world: World) -> None:
    probe = Probe(world, Done())
    await world.work()
    job_id = await world.put("probe")
    await probe.running()
    await world.storage.jobs.cancel(job_id)
    detail = await world.when(job_id, "done")
    assert probe.reasons == [CancelReason.USER]
    assert detail.row.dead_reason is None


async def test_a_cancel_reaches_a_job_of_this_process_at_once(world: World) -> None:
    probe = Probe(world, "stop")
    runtime = await world.work(config=scaled(heartbeat_s=2, stale_s=20))
    job_id = await world.put("probe")
    await probe.running()
    assert await until(lambda: runtime.request_cancel(job_id))
    await world.when(job_id, "dead", within_s=1)
    assert not await runtime.request_cancel(job_id), "it does not run here any more"


async def test_a_handler_that_ignores_the_cancel_is_ended_after_its_grace(world: World) -> None:
    ended: list[str] = []

    @world.handlers.handler("deaf", cancel_grace=0.2)
    async def deaf(ctx: JobCtx) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(str(ctx.cancel.reason))
            raise

    runtime = await world.work()
    job_id = await world.put("deaf")
    await world.when(job_id, "in_progress")
    await until(lambda: runtime.request_cancel(job_id))
    detail = await world.when(job_id, "dead")
    assert (detail.row.dead_reason, ended) == ("cancelled", ["user"])
    await world.works_on()


async def test_a_cancelled_handler_that_cannot_be_ended_is_abandoned_and_its_job_dead(world: World) -> None:
    let_go = asyncio.Event()

    @world.handlers.handler("stubborn", cancel_grace=0.05)
    async def stubborn(ctx: JobCtx) -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    runtime = await world.work(slots=1)
    job_id = await world.put("stubborn")
    await world.when(job_id, "in_progress")
    await until(lambda: runtime.request_cancel(job_id))
    detail = await world.when(job_id, "dead")
    assert detail.row.dead_reason == "cancelled"
    await world.works_on()
    assert runtime.report.abandoned == 1
    let_go.set()


# Pause


async def test_a_pause_releases_what_listens_and_a_resume_runs_it_again_as_the_same_attempt(world: World) -> None:
    probe = Probe(world, "stop")
    await world.work()
    job_id = await world.put("probe")
    await probe.running()
    assert await world.storage.queues.pause("default")
    row = (await world.when(job_id, "pending")).row
    assert (row.attempts, row.last_error, probe.reasons) == (0, None, [CancelReason.PAUSE])
    waiting = await world.put("probe")
    assert not await world.storage.queues.pause("default"), "it says that it was paused already"
    assert (await world.row(waiting)).status == "pending"
    probe.let_go.set()
    assert await world.storage.queues.resume("default")
    await world.when(job_id, "done")
    await world.when(waiting, "done")
    assert probe.attempts == [1, 1, 1], "an interrupted run cost no attempt"


@pytest.mark.parametrize("answer", [Failed("stopped early"), 42], ids=["failed", "nonsense"])
async def test_a_failure_under_a_pause_is_a_release(world: World, answer: Any) -> None:
    probe = Probe(world, answer)
    await world.work()
    job_id = await world.put("probe")
    await probe.running()
    await world.storage.queues.pause("default")
    detail = await world.when(job_id, "pending")
    assert (detail.row.attempts, detail.history) == (0, ())


async def test_a_pause_without_signal_lets_the_handler_end_and_starts_no_other(world: World) -> None:
    probe = Probe(world, Done())
    runtime = await world.work(slots=1)
    job_id, next_id = await world.put("probe"), await world.put("probe")
    await probe.running()
    await world.storage.queues.pause("default", signal=False)
    await until(lambda: all(slot.closing for slot in runtime._supervisors[0].slots.values()))
    assert (await world.row(job_id)).status == "in_progress"
    probe.let_go.set()
    await world.when(job_id, "done")
    assert probe.reasons == []
    await until(lambda: not runtime._supervisors[0].slots)
    assert ((await world.row(next_id)).status, probe.started) == ("pending", 1)


async def test_a_pause_of_one_process_leaves_the_others_at_work(world: World) -> None:
    probe = Probe(world, "stop")
    first = await world.work()
    job_id = await world.put("probe")
    await probe.running()
    await world.storage.queues.pause("default", process=first.host_id)
    await world.when(job_id, "pending")
    second = await world.work()
    probe.let_go.set()
    row = (await world.when(job_id, "done")).row
    assert row.host_id == second.host_id


# Timeouts


async def test_a_timeout_tells_the_handler_then_ends_it_and_counts_as_a_failure(world: World) -> None:
    seen: list[str] = []

    @world.handlers.handler("slow", timeout=0.1, cancel_grace=0.1)
    async def slow(ctx: JobCtx) -> None:
        seen.append(await ctx.cancel.wait())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("ended")
            raise

    runtime = await world.work(slots=1)
    detail = await world.when(await world.put("slow"), "failed")
    assert seen == [CancelReason.TIMEOUT, "ended"]
    assert detail.row.last_error == "timeout after 0.1 s"
    assert [entry.kind_of_error for entry in detail.history] == ["timeout"]
    assert detail.row.attempts == 1
    assert runtime.report.abandoned == 0
    await world.works_on()


async def test_a_handler_that_swallows_its_timeout_is_abandoned_and_its_late_result_ignored(world: World) -> None:
    let_go = asyncio.Event()
    over = asyncio.Event()

    @world.handlers.handler("stubborn", timeout=0.05, cancel_grace=0.05)
    async def stubborn(ctx: JobCtx) -> Done:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        over.set()
        return Done()

    runtime = await world.work(slots=1)
    job_id = await world.put("stubborn", max_attempts=1)
    detail = await world.when(job_id, "dead")
    assert (detail.row.dead_reason, detail.history[-1].kind_of_error) == ("exhausted", "timeout")
    await world.works_on()
    let_go.set()
    await asyncio.wait_for(over.wait(), 2)
    await world.works_on()
    assert (await world.row(job_id)).status == "dead", "a finished job's outcome is never overwritten"
    assert runtime.report.abandoned == 1


async def test_a_handler_that_ends_when_told_is_not_abandoned_though_the_event_loop_is_slow(world: World) -> None:
    @world.handlers.handler("slow", timeout=0.02, cancel_grace=0)
    async def slow(ctx: JobCtx) -> None:
        await asyncio.Event().wait()

    @world.handlers.handler("hog")
    async def hog(ctx: JobCtx) -> None:
        for _ in range(20):
            time.sleep(0.04)
            await asyncio.sleep(0)

    runtime = await world.work(slots=2)
    slow_id, hog_id = await world.put("slow"), await world.put("hog")
    detail = await world.when(slow_id, "failed")
    await world.when(hog_id, "done")
    assert detail.history[-1].kind_of_error == "timeout"
    assert runtime.report.abandoned == 0


async def test_a_finished_job_is_not_kept_in_memory_until_its_timeout(world: World) -> None:
    @world.handlers.handler("brief", timeout=3_600)
    async def brief(ctx: JobCtx) -> None: ...

    runtime = await world.work(slots=50)
    ids = [await world.put("brief") for _ in range(300)]
    for job_id in ids:
        await world.when(job_id, "done")
    await until(lambda: not len(runtime.env.running))
    kept = sum(isinstance(thing, Run) for thing in gc.get_objects())
    assert kept <= 100, f"{kept} runs of 300 finished jobs are still held"


# Shutdown


async def test_a_stop_releases_what_listens_waits_for_what_ends_and_counts_both(world: World) -> None:
    probe = Probe(world, "stop")
    finishing = asyncio.Event()

    @world.handlers.handler("almost")
    async def almost(ctx: JobCtx) -> None:
        finishing.set()
        await ctx.cancel.wait()
        await asyncio.sleep(0.1)

    runtime = await world.work(slots=5)
    listening, ending = await world.put("probe"), await world.put("almost")
    await probe.running()
    await finishing.wait()
    report = await runtime.stop(grace=2)
    assert (report.finished, report.released, report.abandoned) == (1, 1, 0)
    assert probe.reasons == [CancelReason.SHUTDOWN]
    assert (await world.row(ending)).status == "done"
    row = await world.row(listening)
    assert (row.status, row.attempts, row.last_error) == ("pending", 0, None)
    assert await world.storage.processes.list(scaled().stale_after) == [], "the process took itself off the list"


async def test_a_handler_longer_than_the_grace_is_ended_and_its_job_released(world: World) -> None:
    @world.handlers.handler("long")
    async def long(ctx: JobCtx) -> None:
        await asyncio.Event().wait()

    runtime = await world.work(slots=3)
    ids = [await world.put("long") for _ in range(3)]
    for job_id in ids:
        await world.when(job_id, "in_progress")
    began = asyncio.get_running_loop().time()
    report = await runtime.stop(grace=0.2)
    assert asyncio.get_running_loop().time() - began < 0.2 + 5
    assert (report.released, report.abandoned) == (3, 0)
    assert [(await world.row(job_id)).attempts for job_id in ids] == [0, 0, 0]


async def test_a_stop_ends_in_time_though_a_handler_cannot_be_ended_and_gives_its_job_back(world: World) -> None:
    let_go = asyncio.Event()

    @world.handlers.handler("stubborn")
    async def stubborn(ctx: JobCtx) -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    runtime = await world.work(config=scaled(cancel_grace_s=60))
    job_id = await world.put("stubborn")
    await world.when(job_id, "in_progress")
    began = asyncio.get_running_loop().time()
    report = await runtime.stop(grace=0.1)
    assert asyncio.get_running_loop().time() - began < 0.1 + 5
    assert (report.released, report.abandoned) == (1, 1)
    row = await world.row(job_id)
    assert (row.status, row.attempts) == ("pending", 0)
    let_go.set()


async def test_a_user_cancel_wins_over_a_shutdown(world: World) -> None:
    probe = Probe(world, "stop")
    runtime = await world.work()
    job_id = await world.put("probe")
    await probe.running()
    await world.storage.jobs.cancel(job_id)
    await runtime.stop(grace=1)
    row = await world.row(job_id)
    assert (row.status, row.dead_reason) == ("dead", "cancelled")


async def test_the_first_reason_stays(world: World) -> None:
    seen: list[CancelReason | None] = []

    @world.handlers.handler("watcher")
    async def watcher(ctx: JobCtx) -> None:
        await ctx.cancel.wait()
        seen.append(ctx.cancel.reason)
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(ctx.cancel.reason)

    runtime = await world.work()
    await world.put("watcher")
    await until(lambda: len(runtime.env.running) == 1)
    await world.storage.queues.pause("default")
    await until(lambda: seen)
    await runtime.stop(grace=0.05)
    assert seen == [CancelReason.PAUSE, CancelReason.PAUSE]


async def test_a_stop_while_the_last_progress_is_written_still_hands_the_job_back(tmp_path: Path) -> None:
    """The outcome of a run that had just reported progress was lost when the stop came at that moment."""
    handlers = HandlerRegistry()

    @handlers.handler("slow")
    async def slow(ctx: JobCtx) -> None:
        await ctx.cancel.wait()
        ctx.progress(1, 2)
        ctx.cancel.raise_if_cancelled()

    async with open_storage(f"sqlite:///{tmp_path}/jobs.db") as storage:
        runtime = QueueRuntime(storage, handlers)
        await runtime.start()
        outcome = await runtime.enqueue(EnqueueRequest("slow"))
        await until(lambda: len(runtime.env.running))
        foreign = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
        foreign.execute("BEGIN IMMEDIATE")  # the progress has to wait, and the stop goes on meanwhile
        asyncio.get_running_loop().call_later(0.5, foreign.execute, "ROLLBACK")
        await runtime.stop(grace=1)
        foreign.close()
        detail = await storage.jobs.get(outcome.id)
    assert detail is not None
    assert (detail.row.status, detail.row.attempts) == ("pending", 0)
