"""Heartbeats and what they protect: blocked loops, lost jobs, silence of the store, jobs that must run alone."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from forge_jobs import Done, Failed, JobCtx
from forge_jobs.ids import JobId
from forge_jobs.runtime.cancel import CancelReason
from forge_jobs.storage.sqlite.turnstile import Turnstile
from forge_jobs.storage.types.finalize import Crashed, ErrorText
from forge_jobs.storage.types.process import BeatAnswer, ProcessState
from forge_jobs.testing.cluster import until
from forge_jobs.testing.factories import make_claim

from .world import QUICK, World


@pytest.mark.parametrize("blocked_s", [0.5, 1.6], ids=["briefly", "beyond-the-stale-threshold"])
async def test_a_handler_that_blocks_the_event_loop_loses_no_job(world: World, blocked_s: float) -> None:
    """A second process would take the job if its heartbeats stopped."""
    runs: Counter[str] = Counter()

    @world.handlers.handler("blocking")
    async def blocking(ctx: JobCtx) -> None:
        runs[ctx.job_id] += 1
        time.sleep(blocked_s)

    @world.handlers.handler("waiting")
    async def waiting(ctx: JobCtx) -> None:
        runs[ctx.job_id] += 1
        await asyncio.sleep(blocked_s + 0.5)

    await world.work(slots=2)
    ids = [await world.put("waiting"), await world.put("blocking")]
    for job_id in ids:
        row = (await world.when(job_id, "done")).row
        assert (row.attempts, row.crashes) == (1, 0)
    assert set(runs.values()) == {1}
    reaper = await world.work(slots=1)
    await until(lambda: (found := reaper.env.health.loops.get("reaper")) is not None and found.runs > 1)
    assert reaper.env.health.counts["reaped"] == 0


async def test_the_heart_beats_on_while_the_event_loop_is_blocked(world: World) -> None:
    @world.handlers.handler("blocking")
    async def blocking(ctx: JobCtx) -> None:
        time.sleep(0.8)

    runtime = await world.work(slots=1)
    await until(lambda: runtime.env.health.beats > 0)
    before = runtime.env.health.beats
    await world.when(await world.put("blocking"), "done")
    assert runtime.env.health.beats - before >= 5
    assert runtime.env.health.counts["fenced"] == 0


async def test_several_blocked_turns_in_a_row_leave_no_fault_behind(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    @world.handlers.handler("blocking")
    async def blocking(ctx: JobCtx) -> None:
        for _ in range(4):
            time.sleep(0.35)
            await asyncio.sleep(0)

    await world.work(slots=4)
    ids = [await world.put("blocking") for _ in range(4)]
    for job_id in ids:
        await world.when(job_id, "done", within_s=15)
    await world.works_on()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


async def test_a_job_that_was_taken_away_is_reported_to_its_handler_and_its_result_dropped(world: World) -> None:
    told: list[CancelReason] = []
    started = asyncio.Event()

    @world.handlers.handler("taken")
    async def taken(ctx: JobCtx) -> Done:
        if ctx.fence == 1:
            started.set()
            told.append(await ctx.cancel.wait())
        return Done()

    runtime = await world.work(slots=2)
    job_id = await world.put("taken")
    await started.wait()
    revived = await world.storage.jobs.revive_stale(timedelta(0))
    assert [job.job_id for job in revived] == [job_id]
    row = (await world.when(job_id, "done")).row
    assert (row.attempts, row.crashes) == (2, 1)
    await until(lambda: told == [CancelReason.LOST_OWNERSHIP])
    await until(lambda: runtime.env.health.counts["lost"] == 1)
    assert runtime.report.finished == 1, "only the second run counted"


@pytest.mark.parametrize("writing", [False, True], ids=["idle", "while-it-writes"])
async def test_a_worker_that_cannot_beat_fences_itself_before_others_may_take_its_jobs(
    world: World, writing: bool
) -> None:
    """And takes up work again, without a restart, when the file is free."""
    told: list[CancelReason] = []
    started = asyncio.Event()

    @world.handlers.handler("long")
    async def long(ctx: JobCtx) -> Failed | None:
        if told:
            return None
        started.set()
        told.append(await ctx.cancel.wait())
        return Failed("stopped")

    runtime = await world.work(slots=1)
    job_id = await world.put("long")
    await started.wait()
    put: list[asyncio.Task[JobId]] = []
    with world.locked():
        began = time.monotonic()
        if writing:
            put.append(asyncio.ensure_future(world.put("ordinary")))
        await until(lambda: told, within_s=7)
        silent_s = time.monotonic() - began
        assert told == [CancelReason.LOST_OWNERSHIP]
        assert silent_s <= QUICK.stale_s + 0.1, f"told after {silent_s:.2f} s; others may run the job after 1 s"
        assert runtime.env.health.fenced
    for writer in put:
        await writer
    await until(lambda: not runtime.env.health.fenced)
    row = (await world.when(job_id, "done")).row
    assert (row.attempts, row.crashes) == (1, 0), "stopped by the fence, released, and run again"
    await world.works_on()
    assert runtime.env.health.counts["fenced"] >= 1, "a busy machine may hold a heartbeat up once more"


async def test_a_handler_that_ends_well_behind_the_fence_keeps_its_result(world: World) -> None:
    runs: list[CancelReason] = []

    @world.handlers.handler("long")
    async def long(ctx: JobCtx) -> Done:
        runs.append(await ctx.cancel.wait())
        return Done()

    runtime = await world.work(slots=1)
    job_id = await world.put("long")
    await world.when(job_id, "in_progress")
    with world.locked():
        await until(lambda: runs, within_s=7)
    row = (await world.when(job_id, "done")).row
    assert (runs, row.attempts) == ([CancelReason.LOST_OWNERSHIP], 1)
    assert runtime.report.finished == 1


async def test_a_worker_behind_a_writer_that_never_ends_fences_itself_too(world: World, tmp_path: Path) -> None:
    """As when another of our processes is frozen inside its transaction: it holds the turn, not only SQLite's lock."""
    told: list[CancelReason] = []

    @world.handlers.handler("long")
    async def long(ctx: JobCtx) -> None:
        told.append(await ctx.cancel.wait())

    runtime = await world.work(slots=1)
    await world.put("long")
    await until(lambda: len(runtime.env.running) == 1)
    frozen = Turnstile(tmp_path / "jobs.db")
    frozen.enter()
    try:
        began = time.monotonic()
        await until(lambda: told, within_s=3)
        assert time.monotonic() - began <= QUICK.stale_s + 0.1
        assert told == [CancelReason.LOST_OWNERSHIP]
    finally:
        frozen.leave()
        frozen.close()
    await until(lambda: not runtime.env.health.fenced)
    await world.works_on()


async def test_a_process_row_says_what_its_process_does(world: World) -> None:
    go_on = asyncio.Event()

    @world.handlers.handler("held")
    async def held(ctx: JobCtx) -> None:
        await go_on.wait()

    await world.work(slots=2, name=" mill ", queues=("default", "other"))
    job_id = await world.put("held")

    async def shown() -> bool:
        (row,) = await world.storage.processes.list(QUICK.stale_after)
        return row.live and job_id in row.info.running.values()

    await until(shown)
    (row,) = await world.storage.processes.list(QUICK.stale_after)
    assert row.info.running == {(await world.row(job_id)).process_id: job_id}
    assert (row.info.label, row.info.queues, row.info.kinds) == ("mill", ("default", "other"), ("held",))
    assert (row.info.slots, row.info.state) == ({"default": 2, "other": 2}, ProcessState.RUNNING)
    assert (await world.row(job_id)).worker == "mill"
    go_on.set()


async def test_a_process_row_that_was_removed_in_error_comes_back(world: World) -> None:
    runtime = await world.work(slots=1, name="mill")
    await world.storage.processes.remove(runtime.host_id)

    async def back() -> bool:
        return [row.info.label for row in await world.storage.processes.list(QUICK.stale_after)] == ["mill"]

    await until(back)


async def test_a_job_one_crash_from_its_end_runs_alone(world: World) -> None:
    """Poison must not take twenty neighbours with it: they end before it starts and start after it ended."""
    at_once: list[int] = []
    now = 0

    async def count(ctx: JobCtx, seconds: float) -> None:
        nonlocal now
        now += 1
        if ctx.kind == "poison":
            at_once.append(now)
        await asyncio.sleep(seconds)
        if ctx.kind == "poison":
            at_once.append(now)
        now -= 1

    world.handlers.handler("poison")(count)
    world.handlers.handler("neighbour")(count)
    poison = await world.put("poison", 0.2)
    for alone in (False, False):
        (job,) = (await world.storage.jobs.claim(make_claim(queue="default", kinds=("poison",), alone=alone))).jobs
        died = Crashed(error=ErrorText("died"), delay=timedelta(0), max_crashes=3)
        await world.storage.jobs.finalize(job.id, job.fence, died)
    neighbours = [await world.put("neighbour", 0.05) for _ in range(60)]
    await world.work(slots=20)
    row = (await world.when(poison, "done")).row
    assert at_once == [1, 1]
    assert row.crashes == 2
    for job_id in neighbours:
        await world.when(job_id, "done")


async def test_a_kind_whose_first_crash_is_its_last_always_runs_alone(world: World) -> None:
    at_once: list[int] = []
    now = 0

    @world.handlers.handler("fragile", max_crashes=1)
    async def fragile(ctx: JobCtx) -> None:
        at_once.append(now)
        await asyncio.sleep(0.02)
        at_once.append(now)

    @world.handlers.handler("neighbour")
    async def neighbour(ctx: JobCtx) -> None:
        nonlocal now
        now += 1
        await asyncio.sleep(0.01)
        now -= 1

    ids = [await world.put("fragile" if n % 5 == 0 else "neighbour") for n in range(40)]
    await world.work(slots=10)
    for job_id in ids:
        await world.when(job_id, "done")
    assert at_once == [0] * 16


async def test_a_beat_that_finds_a_job_over_by_its_own_transaction_does_not_call_it_lost(world: World) -> None:
    seen: list[bool] = []

    @world.handlers.handler("probe")
    async def probe(ctx: JobCtx) -> None:
        async with ctx.transaction():
            pass
        run = ctx._run
        lost = BeatAnswer(lost=frozenset([run.claimed]), cancel_requested=frozenset(), strays=frozenset())
        run.env.heartbeat._apply(lost)
        seen.append(ctx.cancel.is_cancelled)

    runtime = await world.work(slots=1)
    await world.when(await world.put("probe"), "done")
    await until(lambda: seen == [False])
    assert runtime.env.health.counts["lost"] == 0
