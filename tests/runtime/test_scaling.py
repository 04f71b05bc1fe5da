"""Slots follow the settings while jobs run, and nothing that changes them costs an attempt."""

from __future__ import annotations

import asyncio
from collections import Counter

from forge_jobs import JobCtx
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.cluster import until

from .world import World


class Gauge:
    """A kind whose jobs run until they are let go, with how many run at a time."""

    def __init__(self, world: World) -> None:
        self.now = self.most = 0
        self.runs: Counter[str] = Counter()
        self.let_go = asyncio.Event()

        @world.handlers.handler("held")
        async def held(ctx: JobCtx) -> None:
            self.now += 1
            self.most = max(self.most, self.now)
            self.runs[ctx.job_id] += 1
            try:
                await self.let_go.wait()
            finally:
                self.now -= 1


async def test_more_workers_start_more_jobs_at_once(world: World) -> None:
    gauge = Gauge(world)
    await world.storage.queues.ensure("default", QueueChange(max_workers=1))
    await world.work(slots=None)
    for _ in range(5):
        await world.put("held")
    await until(lambda: gauge.now == 1)
    await world.storage.queues.change("default", QueueChange(max_workers=4))
    await until(lambda: gauge.now == 4)
    assert gauge.most == 4


async def test_fewer_workers_interrupt_nobody_and_burn_no_attempt(world: World) -> None:
    gauge = Gauge(world)
    await world.storage.queues.ensure("default", QueueChange(max_workers=5))
    runtime = await world.work(slots=None)
    ids = [await world.put("held") for _ in range(8)]
    await until(lambda: gauge.now == 5)
    await world.storage.queues.change("default", QueueChange(max_workers=1))
    slots = runtime._supervisors[0].slots
    await until(lambda: sum(not slot.closing for slot in slots.values()) == 1)
    assert gauge.now == 5, "nobody was interrupted"
    gauge.most = 0
    gauge.let_go.set()
    for job_id in ids:
        row = (await world.when(job_id, "done")).row
        assert row.attempts == 1
    assert set(gauge.runs.values()) == {1}
    await until(lambda: len(slots) == 1)


async def test_no_workers_stop_the_queue_and_some_start_it_again(world: World) -> None:
    await world.storage.queues.ensure("default", QueueChange(max_workers=0))
    runtime = await world.work(slots=None)
    job_id = await world.put("ordinary")
    await until(lambda: runtime.env.health.beats > 2)
    assert (await world.row(job_id)).status == "pending"
    await world.storage.queues.change("default", QueueChange(max_workers=1))
    await world.works_on()
    await world.when(job_id, "done")


async def test_the_slots_of_a_process_cap_its_share_of_a_total(world: World) -> None:
    gauge = Gauge(world)
    await world.storage.queues.ensure("default", QueueChange(max_workers=50))
    runtime = await world.work(slots=3)
    for _ in range(10):
        await world.put("held")
    await until(lambda: gauge.now == 3)
    assert len(runtime._supervisors[0].slots) == 3


async def test_two_processes_share_a_total_between_them(world: World) -> None:
    gauge = Gauge(world)
    await world.storage.queues.ensure("default", QueueChange(max_workers=5))
    first, second = await world.work(slots=None), await world.work(slots=None)
    await until(
        lambda: sorted(len(runtime._supervisors[0].slots) for runtime in (first, second)) == [2, 3],
        what="five slots in two parts",
    )
    for _ in range(10):
        await world.put("held")
    await until(lambda: gauge.now == 5)
    await first.stop(0)
    await until(lambda: len(second._supervisors[0].slots) == 5, what="the one that is left has them all")


async def test_a_queue_that_is_busy_does_not_hold_another_up(world: World) -> None:
    gauge = Gauge(world)
    await world.work(slots=2, queues=("default", "mail"))
    for _ in range(20):
        await world.put("held")
    await until(lambda: gauge.now == 2)

    @world.handlers.handler("letter")
    async def letter(ctx: JobCtx) -> None: ...

    await world.when(await world.put("letter", queue="mail"), "done", within_s=1)


async def test_a_wave_of_wakes_and_settings_changes_loses_no_job(world: World) -> None:
    @world.handlers.handler("brief")
    async def brief(ctx: JobCtx) -> None:
        await asyncio.sleep(0)

    await world.work(slots=None)
    ids = []
    for step in range(60):
        ids.append(await world.put("brief"))
        if step % 6 == 0:
            await world.storage.queues.change("default", QueueChange(max_workers=step % 4 + 1))
        if step % 10 == 5:
            await world.storage.queues.pause("default")
        if step % 10 == 8:
            await world.storage.queues.resume("default")
    await world.storage.queues.resume("default")
    for job_id in ids:
        row = (await world.when(job_id, "done")).row
        assert (row.attempts, row.crashes) == (1, 0)
