"""A background loop that the cluster needs once runs in one process, and in another when that one is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta

from forge_jobs import DefaultRouter, HandlerRegistry, QueueRuntime, Storage
from forge_jobs.clock import ManualClock
from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.runtime.lease import Post
from forge_jobs.runtime.loops.loop import Loop, run_loop
from forge_jobs.storage.types.lease import Lease
from forge_jobs.testing.cluster import until

from .world import World, scaled

HASTY = scaled(lease_ttl_s=0.3, rebalance_s=0.05)


def process(storage: Storage) -> RuntimeEnv:
    """A process without anything running in it."""
    return RuntimeEnv(storage, HandlerRegistry(), DefaultRouter(), scaled(lease_ttl_s=15), None)


class TestPost:
    async def test_the_first_holds_it_and_keeps_it(self, forge_storage: Storage, forge_clock: ManualClock) -> None:
        first, second = Post(process(forge_storage), "cron"), Post(process(forge_storage), "cron")
        for _ in range(10):
            assert (await first.hold(), await second.hold()) == (True, False)
            forge_clock.advance(6)

    async def test_it_is_not_written_at_every_look(self, forge_storage: Storage, forge_clock: ManualClock) -> None:
        post = Post(process(forge_storage), "cron")
        await post.hold()
        (before,) = await forge_storage.leases.list()
        forge_clock.advance(4)
        await post.hold()
        assert await forge_storage.leases.list() == [before]
        forge_clock.advance(1)
        await post.hold()
        (after,) = await forge_storage.leases.list()
        assert (after.token, after.expires_at > before.expires_at) == (before.token, True)

    async def test_a_holder_that_stood_still_learns_that_it_was_replaced(
        self, forge_storage: Storage, forge_clock: ManualClock
    ) -> None:
        first, second = Post(process(forge_storage), "cron"), Post(process(forge_storage), "cron")
        await first.hold()
        forge_clock.advance(16)
        assert await second.hold() is True
        assert await first.hold() is False
        assert (await first.hold(), await second.hold()) == (False, True)

    async def test_a_step_of_the_wall_clock_costs_nobody_the_lease(
        self, forge_storage: Storage, forge_clock: ManualClock
    ) -> None:
        first, second = Post(process(forge_storage), "cron"), Post(process(forge_storage), "cron")
        await first.hold()
        forge_clock.step(7_200)
        assert (await first.hold(), await second.hold()) == (True, False)


def leaders(runtimes: Iterable[QueueRuntime]) -> list[QueueRuntime]:
    """Those that believe to hold the rebalancer's lease."""
    return [one for one in runtimes if one.env.health.loops["rebalance"].leading]


async def the_leader(runtimes: Iterable[QueueRuntime]) -> QueueRuntime:
    return (await until(lambda: leaders(runtimes), what="a leader"))[0]


async def test_of_three_processes_one_runs_the_loop(world: World) -> None:
    runtimes = [await world.work(config=HASTY) for _ in range(3)]
    leader = await the_leader(runtimes)
    rounds = [one.env.health.loops["rebalance"] for one in runtimes]
    seen = [loop.runs for loop in rounds]
    await until(lambda: all(loop.runs > before + 5 for loop, before in zip(rounds, seen, strict=True)))
    assert leaders(runtimes) == [leader]
    (lease,) = [one for one in await world.storage.leases.list() if one.name == "rebalance"]
    assert lease.holder == leader.host_id


async def test_another_takes_over_when_the_holder_stops(world: World) -> None:
    runtimes = [await world.work(config=scaled(rebalance_s=0.05)) for _ in range(2)]
    leader = await the_leader(runtimes)
    await leader.stop()
    (other,) = [one for one in runtimes if one is not leader]
    await until(lambda: leaders([other]), within_s=2, what="the other, long before the lease would have ended")


async def test_another_takes_over_when_the_holder_falls_silent(world: World) -> None:
    runtimes = [await world.work(config=HASTY) for _ in range(2)]
    leader = await the_leader(runtimes)
    (loop,) = [task for task in leader._tasks if task.get_name() == "forge-rebalance"]
    loop.cancel()
    (other,) = [one for one in runtimes if one is not leader]
    await until(lambda: leaders([other]), within_s=2)


async def test_a_lease_is_kept_between_two_rounds_that_are_far_apart(world: World) -> None:
    env = (await world.work(config=HASTY)).env
    rounds: list[None] = []

    async def tick(env: RuntimeEnv) -> None:
        rounds.append(None)

    rare = Loop("rare", lambda env: 60 if rounds else 0.01, tick, leased=True)
    loop = asyncio.create_task(run_loop(env, rare))

    async def renewed() -> Lease | None:
        (lease,) = [one for one in await world.storage.leases.list() if one.name == "rare"]
        return lease if lease.expires_at > first.expires_at + 2 * timedelta(seconds=HASTY.lease_ttl_s) else None

    try:
        await until(lambda: rounds)
        (first,) = [one for one in await world.storage.leases.list() if one.name == "rare"]
        later = await until(renewed)
        assert (later.holder, later.token, len(rounds)) == (env.host_id, first.token, 1)
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
