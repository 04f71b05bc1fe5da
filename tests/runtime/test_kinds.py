"""A worker runs what it has handlers for, and leaves the rest alone."""

from __future__ import annotations

import asyncio
from typing import Any

from forge_jobs import HandlerRegistry, JobCtx
from forge_jobs.testing.cluster import until

from .world import World


async def test_a_kind_without_handler_waits_untouched_while_others_pass(world: World) -> None:
    unknown = await world.put("unknown", priority=-100)
    await world.work(slots=1)
    await world.works_on()
    row = await world.row(unknown)
    assert (row.status, row.attempts, row.fence, row.last_error) == ("pending", 0, 0, None)


async def test_a_handler_registered_while_running_takes_its_waiting_jobs(world: World) -> None:
    job_id = await world.put("later")
    await world.work(slots=1)
    await world.works_on()

    @world.handlers.handler("later")
    async def later(ctx: JobCtx) -> None: ...

    await world.when(job_id, "done", within_s=2)


async def test_the_last_registration_of_a_kind_wins_for_the_next_job(world: World) -> None:
    ran: list[str] = []

    def register(name: str) -> None:
        @world.handlers.handler("greet")
        async def greet(ctx: JobCtx) -> None:
            ran.append(name)

    register("old")
    await world.work(slots=1)
    await world.when(await world.put("greet"), "done")
    register("new")
    await world.when(await world.put("greet"), "done")
    assert ran == ["old", "new"]


async def test_a_claimed_job_whose_handler_vanished_is_released_and_not_failed(world: World) -> None:
    class Vanishing(HandlerRegistry):
        """As after a reload: the kind is listed for the claim, and gone when the job arrives."""

        gone = True

        def get(self, kind: str) -> Any:
            return None if kind == "moved" and self.gone else super().get(kind)

    world.handlers = handlers = Vanishing()

    @world.handlers.handler("moved")
    async def moved(ctx: JobCtx) -> None: ...

    runtime = await world.work(slots=1)
    job_id = await world.put("moved")
    await until(lambda: runtime.report.released > 0)
    handlers.gone = False
    detail = await world.when(job_id, "done")
    assert (detail.row.attempts, detail.history) == (1, ())


async def test_a_wave_of_kinds_is_run_in_order_of_priority(world: World) -> None:
    ran: list[int] = []

    async def note(ctx: JobCtx, payload: Any) -> None:
        ran.append(payload)

    for kind in range(20):
        world.handlers.handler(f"kind_{kind}")(note)
    for number in range(40):
        await world.put(f"kind_{number % 20}", number, priority=number % 5)
    runtime = await world.work(slots=1)
    await until(lambda: len(ran) == 40)
    assert [number % 5 for number in ran] == sorted(number % 5 for number in range(40))
    assert runtime.report.abandoned == 0


async def test_a_job_scheduled_for_later_runs_then_and_never_before(world: World) -> None:
    started: list[float] = []
    loop = asyncio.get_running_loop()

    @world.handlers.handler("timed")
    async def timed(ctx: JobCtx) -> None:
        started.append(loop.time())

    await world.work(slots=1)
    before = loop.time()
    await world.when(await world.put("timed", delay=0.3), "done")
    assert 0.3 <= started[0] - before < 0.3 + 0.25
