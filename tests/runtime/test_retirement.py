"""A worker that has done its share, or has grown too large, ends by itself; and a blocked event loop is noticed."""

from __future__ import annotations

import asyncio
import time

import pytest

from forge_jobs import JobCtx
from forge_jobs.runtime.loops import lag
from forge_jobs.storage.types.process import ProcessState
from forge_jobs.testing.cluster import until

from .world import World, scaled


@pytest.mark.parametrize("slots", [1, 4])
async def test_a_worker_ends_after_exactly_its_share_of_jobs(world: World, slots: int) -> None:
    ran: list[str] = []

    @world.handlers.handler("count")
    async def count(ctx: JobCtx) -> None:
        ran.append(ctx.job_id)
        await asyncio.sleep(0.01)

    jobs = [await world.put("count") for _ in range(20)]
    runtime = world.runtime(slots, config=scaled(max_jobs=7))
    await asyncio.wait_for(runtime.run(), 15)
    assert len(ran) == 7
    assert runtime.report.finished == 7
    rows = [await world.row(job_id) for job_id in jobs]
    assert sorted((row.status, row.attempts) for row in rows) == [("done", 1)] * 7 + [("pending", 0)] * 13


async def test_jobs_that_run_when_a_worker_retires_go_on_and_hear_nothing(world: World) -> None:
    let_go = asyncio.Event()
    seen: list[bool] = []

    @world.handlers.handler("slow")
    async def slow(ctx: JobCtx) -> None:
        await let_go.wait()
        seen.append(ctx.cancel.is_cancelled)

    running, waiting = await world.put("slow"), await world.put("slow")
    runtime = world.runtime(2, config=scaled(max_jobs=1))
    work = asyncio.create_task(runtime.run())

    async def draining() -> bool:
        return any(one.info.state is ProcessState.DRAINING for one in await processes())

    async def processes() -> list:  # type: ignore[type-arg]
        return await world.storage.processes.list(runtime.env.config.stale_after) if runtime._env else []

    await until(draining, what="the list of workers says that it takes no more")
    assert not work.done()
    let_go.set()
    await asyncio.wait_for(work, 15)
    assert seen == [False]
    assert [(await world.row(job)).status for job in (running, waiting)] == ["done", "pending"]


async def test_a_worker_that_has_grown_too_large_ends(world: World) -> None:
    @world.handlers.handler("quick")
    async def quick(ctx: JobCtx) -> None: ...

    runtime = world.runtime(1, config=scaled(max_rss_mib=1))
    await asyncio.wait_for(runtime.run(), 15)
    assert runtime.env.retiring


async def test_a_blocked_event_loop_is_noticed_whenever_it_is_and_names_who_ran_on_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    @world.handlers.handler("blocking")
    async def blocking(ctx: JobCtx) -> None:
        time.sleep(1.3)

    @world.handlers.handler("plain")
    def plain(ctx: JobCtx) -> None:
        ctx.cancel.wait_sync(5)

    runtime = await world.work(slots=2)
    await world.put("plain")
    await until(lambda: len(runtime.env.running) == 1, what="running")
    ticked = asyncio.create_task(lag.tick(runtime.env, 0.2))
    await asyncio.sleep(0)
    await world.put("blocking")
    await ticked
    while "loop_lag lag_ms=1" not in caplog.text:  # the job may have begun after this tick
        await lag.tick(runtime.env, 0.2)
    assert "running=blocking" in caplog.text
    assert "plain" not in caplog.text.partition("running=")[2].partition("\n")[0]
