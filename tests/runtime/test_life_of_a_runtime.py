"""Starting, draining, stopping and starting again."""

from __future__ import annotations

import asyncio
import threading

import pytest

from forge_jobs import Busy, ConfigError, EnqueueRequest, Failed, InvalidName, JobCtx, QueueRuntime, Throttled
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.cluster import until

from .world import World, scaled


def register_ordinary(world: World) -> list[str]:
    ran: list[str] = []

    @world.handlers.handler("ordinary")
    async def ordinary(ctx: JobCtx) -> None:
        ran.append(ctx.job_id)

    return ran


async def test_a_drain_ends_when_nothing_is_ready_and_leaves_what_is_not_due(world: World) -> None:
    ran = register_ordinary(world)

    @world.handlers.handler("failing")
    async def failing(ctx: JobCtx) -> Failed:
        return Failed("later")

    now = [await world.put("ordinary") for _ in range(50)]
    future, unknown = await world.put("ordinary", delay=3_600), await world.put("unknown")
    failed = await world.put("failing")
    runtime = world.runtime(slots=10)
    await runtime.drain()
    assert sorted(ran) == sorted(now)
    assert runtime.report.finished == 51
    assert [(await world.row(job_id)).status for job_id in (future, unknown, failed)] == [
        "pending",
        "pending",
        "failed",
    ]


async def test_a_drain_of_everything_waits_for_retries_and_for_what_is_due_later(world: World) -> None:
    ran = register_ordinary(world)

    @world.handlers.handler("twice", backoff=[0.2])
    async def twice(ctx: JobCtx) -> Failed | None:
        return Failed("once more") if ctx.attempt == 1 else None

    @world.handlers.handler("limited")
    async def limited(ctx: JobCtx) -> Throttled | None:
        return None if ran else Throttled(0.2)

    ids = [await world.put("twice"), await world.put("ordinary", delay=0.3), await world.put("limited")]
    await world.runtime(slots=3).drain(all=True)
    assert [(await world.row(job_id)).status for job_id in ids] == ["done"] * 3


async def test_a_drain_waits_for_jobs_that_jobs_made(world: World) -> None:
    depth: list[int] = []

    @world.handlers.handler("step")
    async def step(ctx: JobCtx, payload: int) -> None:
        depth.append(payload)
        if payload < 20:
            await ctx.enqueue(EnqueueRequest("step", payload + 1))

    await world.put("step", 0)
    await world.runtime(slots=2).drain()
    assert depth == list(range(21))


async def test_a_drain_is_not_held_by_a_paused_queue(world: World) -> None:
    register_ordinary(world)
    job_id = await world.put("ordinary")
    await world.storage.queues.pause("default")
    await asyncio.wait_for(world.runtime().drain(), 3)
    assert (await world.row(job_id)).status == "pending"


async def test_a_drain_of_an_empty_store_ends_at_once(world: World) -> None:
    register_ordinary(world)
    await asyncio.wait_for(world.runtime().drain(), 2)


async def test_a_runtime_drains_as_often_as_it_is_asked(world: World) -> None:
    ran = register_ordinary(world)
    runtime = world.runtime()
    for _ in range(3):
        await world.put("ordinary")
        await runtime.drain()
    assert len(ran) == 3


async def test_a_stopped_runtime_can_be_started_again(world: World) -> None:
    ran = register_ordinary(world)
    runtime = await world.work()
    first_host = runtime.host_id
    await world.when(await world.put("ordinary"), "done")
    await runtime.stop(0)
    waiting = await world.put("ordinary")
    await runtime.start()
    await world.when(waiting, "done")
    assert len(ran) == 2
    assert runtime.host_id != first_host, "every start is a process of its own to the store"


async def test_runtimes_come_and_go_on_one_store_and_leave_nothing_behind(world: World) -> None:
    register_ordinary(world)
    await world.runtime().drain()
    threads = threading.active_count()
    tasks = len(asyncio.all_tasks())
    for _ in range(5):
        job_id = await world.put("ordinary")
        await world.runtime(slots=3).drain()
        assert (await world.row(job_id)).status == "done"
    await until(lambda: threading.active_count() <= threads, what="threads end with their runtime")
    await until(lambda: len(asyncio.all_tasks()) <= tasks, what="tasks end with their runtime")


async def test_a_stop_is_quick_when_nothing_runs(world: World) -> None:
    register_ordinary(world)
    runtime = await world.work(slots=100)
    await world.works_on()
    began = asyncio.get_running_loop().time()
    await runtime.stop(grace=30)
    assert asyncio.get_running_loop().time() - began < 1


async def test_a_run_ends_when_it_is_asked_to(world: World) -> None:
    register_ordinary(world)
    runtime = world.runtime()
    running = asyncio.ensure_future(runtime.run())
    await world.when(await world.put("ordinary"), "done")
    runtime.request_stop()
    await asyncio.wait_for(running, 3)


async def test_a_hurried_stop_does_not_wait_for_the_grace(world: World) -> None:
    @world.handlers.handler("long")
    async def long(ctx: JobCtx) -> None:
        await asyncio.Event().wait()

    runtime = world.runtime(config=scaled(shutdown_grace_s=60))
    running = asyncio.ensure_future(runtime.run())
    job_id = await world.put("long")
    await world.when(job_id, "in_progress")
    runtime.request_stop()
    runtime.request_stop(hurry=True)
    await asyncio.wait_for(running, 5)
    assert ((await world.row(job_id)).status, (await world.row(job_id)).attempts) == ("pending", 0)


async def test_a_stop_ends_in_time_though_the_store_does_not_answer(world: World) -> None:
    stopping = asyncio.Event()

    @world.handlers.handler("long")
    async def long(ctx: JobCtx) -> None:
        await ctx.cancel.wait()
        stopping.set()

    runtime = await world.work(slots=2)
    job_id = await world.put("long")
    await world.when(job_id, "in_progress")
    with world.locked():
        began = asyncio.get_running_loop().time()
        await runtime.stop(grace=0.2)
        assert asyncio.get_running_loop().time() - began <= 0.2 + 5
        assert stopping.is_set()
    await world.work(slots=2)
    row = (await world.when(job_id, "done")).row
    assert row.attempts == 1 + row.crashes, "its write came through after all, or the reaper gave the job back"


@pytest.mark.parametrize("again", ["start", "drain"])
async def test_a_start_that_failed_can_be_tried_again(hasty_world: World, again: str) -> None:
    world = hasty_world
    ran = register_ordinary(world)
    runtime = world.runtime()
    with world.locked(), pytest.raises(Busy):
        await runtime.start()
    job_id = await world.put("ordinary")
    await asyncio.wait_for(runtime.start() if again == "start" else runtime.drain(), 5)
    await world.when(job_id, "done")
    assert ran == [job_id]


async def test_a_stop_before_the_start_says_what_is_wrong(world: World) -> None:
    with pytest.raises(ConfigError, match="start"):
        await world.runtime().stop()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"queues": ()}, ConfigError),
        ({"queues": ("",)}, ConfigError),
        ({"queues": "default"}, ConfigError),
        ({"queues": ("a,b",)}, InvalidName),
        ({"slots": 0}, ConfigError),
        ({"slots": True}, ConfigError),
        ({"slots": 2_001}, ConfigError),
        ({"slots": 1_500, "queues": ("a", "b")}, ConfigError),
        ({"name": "x" * 129}, ConfigError),
    ],
)
async def test_a_runtime_that_cannot_work_is_refused_when_it_is_made(
    world: World, options: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        QueueRuntime(world.storage, world.handlers, **options)  # type: ignore[arg-type]


async def test_a_runtime_works_on_a_store_in_memory(memory_world: World) -> None:
    world = memory_world
    register_ordinary(world)
    ids = [await world.put("ordinary") for _ in range(100)]
    runtime = await world.work(slots=10)
    for job_id in ids:
        await world.when(job_id, "done")
    await until(lambda: runtime.env.health.beats >= 3)
    await world.storage.queues.change("default", QueueChange(max_workers=2))
    await world.works_on()
    assert (await runtime.stop(1)).abandoned == 0
