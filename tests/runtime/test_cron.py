"""Workers bring schedules into the store and fire them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from forge_jobs import JobCtx, NotFound, QueueRuntime, ScheduleChange, ScheduleDeclaration
from forge_jobs.runtime.env import LoopHealth
from forge_jobs.runtime.loops import cron
from forge_jobs.runtime.loops.loop import run_loop
from forge_jobs.runtime.schedules import undeclared, why_silent
from forge_jobs.storage.types.job import JobFilter
from forge_jobs.storage.types.schedule import ScheduleState, Tick
from forge_jobs.testing.cluster import until

from .world import World, scaled

EVERY_SECOND = "* * * * * *"
NEVER_SOON = "0 0 29 2 *"


async def fired(world: World, name: str = "beat") -> list[Tick]:
    return [one for one in await world.storage.schedules.ticks(name) if one.outcome == "fired"]


async def leading(world: World, *runtimes: QueueRuntime) -> QueueRuntime:
    """The one that fires schedules."""

    def leader() -> QueueRuntime | None:
        return next((one for one in runtimes if one.env.health.loops["cron"].leading), None)

    return await until(leader, what="a leader")


async def test_a_declared_schedule_runs_its_handler_with_the_name_and_the_tick(world: World) -> None:
    seen: list[tuple[str | None, datetime | None, Any]] = []

    @world.handlers.schedule(EVERY_SECOND, name="beat", payload={"n": 1})
    @world.handlers.handler("count")
    async def count(ctx: JobCtx, payload: Any) -> None:
        seen.append((ctx.schedule, ctx.fire_at, payload))

    await world.work()
    await until(lambda: len(seen) >= 2)
    (name, fire_at, payload), (_, following, _) = seen[:2]
    assert (name, payload) == ("beat", {"n": 1})
    assert fire_at is not None
    assert following is not None
    assert (fire_at.microsecond, fire_at.tzinfo) == (0, UTC)
    assert following - fire_at >= timedelta(seconds=1)
    for tick in await fired(world):
        assert timedelta(0) <= tick.at - tick.fire_at < timedelta(seconds=3)


async def test_jobs_without_a_schedule_have_no_tick(world: World) -> None:
    seen: list[tuple[str | None, datetime | None]] = []

    @world.handlers.handler("plain")
    async def plain(ctx: JobCtx) -> None:
        seen.append((ctx.schedule, ctx.fire_at))

    await world.work()
    await world.put("plain")
    await world.put("plain", trace={"schedule": "x", "fire_at": "soon"})
    await until(lambda: len(seen) == 2)
    assert sorted(seen, key=str) == [("x", None), (None, None)]


async def test_the_handlers_queue_and_attempts_are_those_of_the_job(world: World) -> None:
    @world.handlers.schedule(EVERY_SECOND, name="beat")
    @world.handlers.handler("count", queue="elsewhere", max_attempts=2)
    async def count(ctx: JobCtx) -> None: ...

    await world.work()
    (tick, *_) = await until(lambda: fired(world))
    assert tick.job_id is not None
    row = await world.row(tick.job_id)
    assert (row.queue, row.max_attempts) == ("elsewhere", 2)


async def test_a_triggered_job_is_like_that_of_a_tick(world: World) -> None:
    seen: list[str | None] = []

    @world.handlers.schedule(NEVER_SOON, name="rare", skip_if_running=True)
    @world.handlers.handler("count", max_attempts=2)
    async def count(ctx: JobCtx) -> None:
        seen.append(ctx.schedule)

    runtime = await world.work()
    outcome = await runtime.trigger("rare")
    detail = await world.when(outcome.id, "done")
    assert (seen, detail.row.max_attempts, detail.row.tags) == (["rare"], 2, ("schedule:rare",))
    with pytest.raises(NotFound):
        await runtime.trigger("unknown")


async def test_two_that_both_believe_to_lead_make_one_job_for_each_tick(world: World) -> None:
    runtimes = [await world.work() for _ in range(2)]
    unled = replace(cron.LOOP, name="cron-without-lease", leased=False, interval_s=lambda env: 0.02)
    loops = [asyncio.create_task(run_loop(one.env, unled)) for one in runtimes for _ in range(2)]
    try:
        await world.storage.schedules.add(ScheduleDeclaration("beat", "nobody", EVERY_SECOND, misfire="all(100)"))
        await until(lambda: _at_least(world, 3), within_s=15)
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
    for one in runtimes:
        await one.stop(0)
    ticks = await fired(world)
    jobs = await world.storage.jobs.list_jobs(JobFilter(kinds=("nobody",)))
    assert jobs.total == len(ticks)
    assert {job.id for job in jobs.items} == {tick.job_id for tick in ticks}
    seconds = sorted(tick.fire_at for tick in ticks)
    assert seconds == [seconds[0] + timedelta(seconds=n) for n in range(len(seconds))]


async def _at_least(world: World, n: int) -> bool:
    return len(await fired(world)) >= n


async def test_a_change_is_seen_at_once(world: World) -> None:
    runtime = await world.work()
    await leading(world, runtime)
    health = runtime.env.health.loops["cron"]
    await until(lambda: health.runs >= 1)
    before = health.runs
    await world.storage.schedules.add(ScheduleDeclaration("rare", "x", NEVER_SOON))
    await until(lambda: runtime.env.cron_due_us is not None, within_s=3)
    seeded = health.runs
    assert seeded > before
    await world.storage.schedules.change("rare", ScheduleChange(priority=1))
    await until(lambda: health.runs > seeded, within_s=3)


async def test_the_leader_sleeps_until_the_soonest_and_the_others_only_ask_for_the_lease(world: World) -> None:
    env = (await world.work(config=scaled(lease_ttl_s=15))).env
    health = env.health.loops["cron"] = LoopHealth()
    assert cron.pause_s(env) == 0, "the first pass is at once"
    health.runs = 1
    assert cron.pause_s(env) == 5
    health.leading = True
    env.cron_due_us = None
    assert cron.pause_s(env) == 5
    for due_s, pause in ((-10, 0.1), (0.05, 0.1), (3600, 5)):
        env.cron_due_us = env.clock.now_us() + round(due_s * 1e6)
        assert cron.pause_s(env) == pause
    env.cron_due_us = env.clock.now_us() + 2_000_000
    assert 1 < cron.pause_s(env) <= 2


async def test_a_locked_store_disables_nothing_and_costs_no_tick(
    hasty_world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world = hasty_world
    await world.work(config=scaled(stale_s=20, heartbeat_s=1))
    await world.storage.schedules.add(ScheduleDeclaration("beat", "nobody", EVERY_SECOND, misfire="all(100)"))
    (first, *_) = await until(lambda: fired(world))
    with world.locked():
        await until(lambda: "cron_fault" in caplog.text)
    await until(lambda: _at_least(world, 3), within_s=15)
    stored = await world.storage.schedules.get("beat")
    assert stored is not None
    assert stored.state is ScheduleState.ACTIVE
    seconds = sorted(tick.fire_at for tick in await fired(world))
    assert seconds[0] == first.fire_at
    assert seconds == [seconds[0] + timedelta(seconds=n) for n in range(len(seconds))]


async def test_damaged_rows_are_marked_and_the_others_fire(world: World) -> None:
    damages = ("{", "[]", "{}", '{"kind": "nobody", "expr": "* * * * *", "payload": 5}')
    for n, damage in enumerate(damages):
        await world.storage.schedules.add(ScheduleDeclaration(f"a{n}", "nobody", EVERY_SECOND))
        world.damage_schedule(f"a{n}", damage)
    await world.storage.schedules.add(ScheduleDeclaration("beat", "nobody", EVERY_SECOND))
    await world.work()
    await until(lambda: fired(world))
    found = {one.name: one.state for one in await world.storage.schedules.list()}
    assert found.pop("beat") is ScheduleState.ACTIVE
    assert set(found.values()) == {ScheduleState.INVALID}
    assert await world.storage.schedules.remove("a0")


async def test_a_schedule_is_declared_as_long_as_a_live_worker_says_so(world: World) -> None:
    @world.handlers.schedule(NEVER_SOON, name="rare")
    @world.handlers.handler("count")
    async def count(ctx: JobCtx) -> None: ...

    await world.storage.schedules.ensure(ScheduleDeclaration("old", "count", NEVER_SOON))
    await world.storage.schedules.add(ScheduleDeclaration("by-hand", "count", NEVER_SOON))
    runtime = await world.work()
    schedules = await world.storage.schedules.list()
    processes = await world.storage.processes.list(timedelta(seconds=30))
    assert [row.info.schedules for row in processes] == [("rare",)]
    assert undeclared(schedules, processes) == {"old"}
    await runtime.stop()
    assert undeclared(schedules, []) == set()


async def test_a_worker_that_starts_leaves_alone_what_operators_edited(world: World) -> None:
    world.handlers.declare(ScheduleDeclaration("rare", "count", NEVER_SOON, priority=1))
    await (await world.work()).stop()
    await world.storage.schedules.disable("rare")
    await (await world.work()).stop()
    stored = await world.storage.schedules.get("rare")
    assert stored is not None
    assert stored.state is ScheduleState.DISABLED


@pytest.mark.parametrize(
    ("state", "led", "outcome", "errors", "said"),
    [
        (ScheduleState.ACTIVE, True, "fired", 0, None),
        (ScheduleState.ACTIVE, False, None, 0, "no live worker fires schedules"),
        (ScheduleState.ACTIVE, True, "error", 2, "error: boom"),
        (ScheduleState.ACTIVE, True, "skipped: held by 01J", 0, "skipped: held by 01J"),
        (ScheduleState.DISABLED, True, None, 0, "disabled"),
        (ScheduleState.INVALID, True, None, 1, "invalid: boom"),
        (ScheduleState.FINISHED, True, "fired", 0, "finished: no tick is left before its ends_at"),
    ],
)
async def test_why_a_schedule_is_silent_is_said(
    memory_world: World, state: ScheduleState, led: bool, outcome: str | None, errors: int, said: str | None
) -> None:
    stored = await memory_world.storage.schedules.ensure(ScheduleDeclaration("x", "x", "@daily"))
    seen = replace(stored, state=state, last_outcome=outcome, last_error="boom", consecutive_errors=errors)
    assert why_silent(seen, led=led) == said
