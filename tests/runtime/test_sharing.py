"""Several processes share the totals of their queues: fairly, lazily, and never more at a time than the total."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from forge_jobs import JobCtx, QueueRuntime, RuntimeConfig, open_storage
from forge_jobs.storage.sqlite.wake import socket_directory
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.clock import ManualClock
from forge_jobs.testing.cluster import until
from forge_jobs.testing.conformance.fixtures import Beater
from forge_jobs.testing.factories import OTHER_HOST, make_process

from .test_scaling import Gauge
from .world import World, scaled

BUSY = scaled(rebalance_s=0.05)


def open_slots(runtime: QueueRuntime, queue: str = "default") -> int:
    """How many slots of the queue are open and stay so."""
    (supervisor,) = [one for one in runtime._supervisors if one.line.queue == queue]
    return sum(not slot.closing for slot in supervisor.slots.values())


async def until_open(runtimes: Sequence[QueueRuntime], *slots: int, within_s: float = 5.0) -> None:
    """Wait until the processes have so many slots, in any order."""
    try:
        await until(lambda: sorted(map(open_slots, runtimes)) == sorted(slots), within_s=within_s)
    except AssertionError:
        raise AssertionError(f"not {slots} but {[open_slots(one) for one in runtimes]}") from None


async def until_written(world: World, runtimes: Sequence[QueueRuntime]) -> None:
    """Wait until the shares of the processes in the store are the slots that they have open."""
    expected = {runtime.host_id: (open_slots(runtime), open_slots(runtime)) for runtime in runtimes}

    async def written() -> bool:
        rows = [row for row in await world.storage.shares.list() if row.queue == "default"]
        return {row.host_id: (row.share, row.open) for row in rows} == expected

    await until(written, what="shares and open slots")


async def total(world: World, workers: int | None, queue: str = "default") -> None:
    await world.storage.queues.ensure(queue)
    await world.storage.queues.change(queue, QueueChange(max_workers=workers))


async def test_ten_workers_on_three_processes_are_four_three_and_three(world: World) -> None:
    await total(world, 10)
    runtimes = [await world.work(slots=None) for _ in range(3)]
    await until_open(runtimes, 4, 3, 3)
    await until_written(world, runtimes)


async def test_ten_queues_of_one_worker_put_two_on_each_of_five_processes(world: World) -> None:
    queues = [f"queue-{number}" for number in range(10)]
    for queue in queues:
        await total(world, 1, queue)
    runtimes = [await world.work(slots=None, queues=queues) for _ in range(5)]
    await until(
        lambda: [sum(open_slots(one, queue) for queue in queues) for one in runtimes] == [2] * 5, what="two on each"
    )


async def test_what_a_process_cannot_take_goes_to_the_others(world: World) -> None:
    await total(world, 10)
    small, large = await world.work(slots=2), await world.work(slots=None)
    await until_open([small, large], 2, 8)
    assert open_slots(small) == 2


async def test_idle_slots_change_hands_at_once_with_the_usual_timings(world: World) -> None:
    await total(world, 10)
    runtimes = [await world.work(slots=None, config=RuntimeConfig()) for _ in range(2)]
    began, period = time.monotonic(), RuntimeConfig().rebalance_s
    await until_open(runtimes, 5, 5)
    await total(world, 4)
    await until_open(runtimes, 2, 2)
    await total(world, 8)
    await until_open(runtimes, 4, 4)
    first, second = runtimes
    await first.stop()
    await until_open([second], 8)
    assert time.monotonic() - began < period, "four moves, and none waited for the next round"


async def test_without_any_wake_slots_change_hands_a_little_later(world: World, tmp_path: Path) -> None:
    """Two stores on one file whose sockets cannot be made: nobody is told anything."""
    directory = socket_directory(tmp_path / "jobs.db")
    shutil.rmtree(directory, ignore_errors=True)  # of a file that had this number before and whose owner was killed
    directory.write_text("in the way")
    async with open_storage(world.storage.url) as elsewhere:
        other = World(elsewhere, None)
        await total(world, 10)
        first, second = await world.work(slots=None, config=BUSY), await other.work(slots=None, config=BUSY)
        await until_open([first, second], 5, 5)
        await total(world, 4)
        await until_open([first, second], 2, 2)
        await other.close()
        await until_open([first], 4)


async def test_a_process_that_grows_waits_for_the_jobs_of_the_one_that_shrinks(world: World) -> None:
    gauge = Gauge(world)
    await total(world, 4)
    first = await world.work(slots=None)
    ids = [await world.put("held") for _ in range(8)]
    await until(lambda: gauge.now == 4)
    second = await world.work(slots=None)
    await until(lambda: open_slots(first) == 2)
    assert (open_slots(second), gauge.now) == (0, 4), "its slots are still busy elsewhere"
    gauge.let_go.set()
    for job_id in ids:
        assert (await world.when(job_id, "done")).row.attempts == 1
    await until_open([first, second], 2, 2)
    assert gauge.most == 4


async def test_a_process_that_stops_gives_its_idle_slots_away_before_its_last_job_ends(world: World) -> None:
    gauge = Gauge(world)
    await total(world, 6)
    await world.put("held")
    leaving = await world.work(slots=None)
    await until(lambda: gauge.now == 1)
    staying = await world.work(slots=None)
    await until_open([leaving, staying], 3, 3)
    stop = asyncio.create_task(leaving.stop(grace=5))
    await until_open([staying], 5)
    assert gauge.now == 1
    gauge.let_go.set()
    await stop
    await until_open([staying], 6)


async def test_a_rolling_restart_never_runs_more_than_the_total_and_burns_no_attempt(world: World) -> None:
    gauge = Gauge(world)

    @world.handlers.handler("short")
    async def short(ctx: JobCtx) -> None:
        gauge.now += 1
        gauge.most = max(gauge.most, gauge.now)
        await asyncio.sleep(0.01)
        gauge.now -= 1

    await total(world, 5)
    ids = [await world.put("short") for _ in range(300)]
    runtimes = [await world.work(slots=None) for _ in range(3)]
    for _ in range(3):
        runtimes.append(await world.work(slots=None))
        await runtimes.pop(0).stop(grace=5)
    for job_id in ids:
        row = (await world.when(job_id, "done", within_s=10)).row
        assert (row.attempts, row.crashes) == (1, 0)
    await until_open(runtimes, 2, 2, 1)
    assert gauge.most == 5


async def test_totals_that_change_under_load_are_kept_and_burn_no_attempt(world: World) -> None:
    running = most = 0

    @world.handlers.handler("short")
    async def short(ctx: JobCtx) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    await total(world, 6)
    runtimes = [await world.work(slots=None) for _ in range(3)]
    ids = []
    for workers in (2, 5, 1, 6, 3):
        await total(world, workers)
        await until(lambda workers=workers: sum(map(open_slots, runtimes)) == workers)  # type: ignore[misc]
        await until(lambda workers=workers: running <= workers)  # type: ignore[misc]
        most = 0
        batch = [await world.put("short") for _ in range(40)]
        for job_id in batch:
            await world.when(job_id, "done")
        assert most <= workers
        ids += batch
    assert {(await world.row(job_id)).attempts for job_id in ids} == {1}


async def test_a_steady_cluster_writes_no_shares(world: World, tmp_path: Path) -> None:
    await total(world, 10)
    await total(world, None, "free")
    runtimes = [await world.work(slots=None, config=BUSY, queues=("default", "free")) for _ in range(3)]
    await until_open(runtimes, 4, 3, 3)
    await until_written(world, runtimes)
    with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as watch:
        watch.execute("CREATE TABLE changes (host_id)")
        for event in ("INSERT", "UPDATE"):
            watch.execute(
                f"CREATE TRIGGER on_{event} AFTER {event} ON forge_shares "
                "BEGIN INSERT INTO changes VALUES (new.host_id); END"
            )
        loops = [runtime.env.health.loops["rebalance"] for runtime in runtimes]
        before = sum(loop.runs for loop in loops)
        await until(lambda: sum(loop.runs for loop in loops) >= before + 20, what="some rounds")
        assert watch.execute("SELECT * FROM changes").fetchall() == []
        await total(world, 9)
        await until_open(runtimes, 3, 3, 3)
        assert watch.execute("SELECT * FROM changes").fetchall() != [], "the trigger works"


async def test_a_paused_queue_keeps_its_shares_and_opens_no_slots(world: World) -> None:
    await total(world, 4)
    runtimes = [await world.work(slots=None, config=BUSY) for _ in range(2)]
    await until_open(runtimes, 2, 2)
    await until_written(world, runtimes)
    await world.storage.queues.pause("default")
    await until_open(runtimes, 0, 0)
    rounds = runtimes[0].env.health.loops["rebalance"]
    seen = rounds.runs
    await until(lambda: rounds.runs > seen + 2)
    assert [(row.share, row.open) for row in await world.storage.shares.list()] == [(2, 0), (2, 0)]
    await world.storage.queues.resume("default")
    await until_open(runtimes, 2, 2)


async def test_a_total_that_is_lifted_leaves_every_process_its_own_slots_and_a_new_one_is_kept(world: World) -> None:
    gauge = Gauge(world)
    await total(world, 3)
    runtimes = [await world.work(slots=4) for _ in range(2)]
    await until_open(runtimes, 2, 1)
    await total(world, None)
    await until_open(runtimes, 4, 4)
    ids = [await world.put("held") for _ in range(12)]
    await until(lambda: gauge.now == 8)
    await total(world, 3)
    await until_open(runtimes, 2, 1)
    gauge.most = 0
    gauge.let_go.set()
    for job_id in ids:
        assert (await world.when(job_id, "done")).row.attempts == 1
    assert gauge.most <= 3, "what was too many ended, and nothing more began"


async def test_before_the_rebalancer_has_seen_it_a_process_opens_what_is_free_of_its_part(world: World) -> None:
    never = scaled(rebalance_s=3_600)
    async with open_storage(world.storage.url) as elsewhere:
        other = World(elsewhere, None)
        await total(world, 5)
        # The lease is held by a process that does nothing, so nobody rebalances.
        assert await world.storage.leases.take("rebalance", "nobody", timedelta(hours=1))
        first = await world.work(slots=None, config=never)
        assert open_slots(first) == 5
        second = await other.work(slots=None, config=never)
        await until_open([first, second], 3, 2)
        assert {row.share for row in await world.storage.shares.list()} == {None}
        await other.close()


@pytest.mark.parametrize("slots", [None, 7])
async def test_the_list_of_processes_says_how_many_slots_each_offers(world: World, slots: int | None) -> None:
    await world.work(slots=slots, queues=("a", "b", "c"))
    (row,) = await world.storage.processes.list(scaled().stale_after)
    assert row.info.offered == dict.fromkeys("abc", 666 if slots is None else 7)


async def test_a_slot_that_closes_counts_while_a_claim_for_it_is_under_way(world: World) -> None:
    await total(world, 2)
    (supervisor,) = (await world.work(slots=None))._supervisors
    slots = supervisor.slots
    with world.locked():
        await until(lambda: [slot.reserved for slot in slots.values()] == [True, True], what="a claim for both")
        supervisor.scale_to(0)
        assert (supervisor._staying, supervisor._closing) == (0, 2)
        supervisor.env.stopping.set()  # or it would open them again
    await until(lambda: not slots and supervisor._closing == 0)


async def test_a_slot_that_closes_counts_until_its_job_is_settled(world: World) -> None:
    gauge = Gauge(world)
    await total(world, 2)
    runtime = await world.work(slots=None)
    (supervisor,) = runtime._supervisors
    ids = [await world.put("held") for _ in range(2)]
    await until(lambda: gauge.now == 2)
    await total(world, 1)
    await until(lambda: supervisor._closing == 1)
    with world.locked():
        gauge.let_go.set()
        await until(lambda: gauge.now == 0)
        await until(lambda: len(supervisor.slots) == 1, what="the slot is closed")
        assert supervisor._closing == 1, "its job is not settled"
    for job_id in ids:
        await world.when(job_id, "done")
    await until(lambda: supervisor._closing == 0)


async def take_over(url: str, clock: ManualClock) -> None:
    """Another process opens all five slots."""
    async with open_storage(url, clock=clock) as storage:
        with Beater(storage) as beater:
            await beater.beat(make_process(OTHER_HOST, queues=("default",)))
        stale = RuntimeConfig().stale_after
        await storage.shares.open_slots("default", OTHER_HOST, staying=0, closing=0, wanted=5, stale_after=stale)


async def test_a_process_that_was_silent_too_long_claims_nothing_before_it_knows_which_slots_it_still_has(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    async with open_storage(f"sqlite:///{tmp_path}/late.db", clock=clock) as storage:
        world = World(storage, None)
        ran: list[str] = []

        @world.handlers.handler("ordinary")
        async def ordinary(ctx: JobCtx) -> None:
            ran.append(ctx.job_id)

        await total(world, 5)
        late = await world.work(slots=None, config=RuntimeConfig())
        assert open_slots(late) == 5
        clock.advance(31)
        elsewhere = threading.Thread(target=lambda: asyncio.run(take_over(storage.url, clock)))
        elsewhere.start()
        elsewhere.join()  # this thread stands still, and with it the process
        job_id = await world.put("ordinary")
        await until_open([late], 0)
        assert {row.open for row in await storage.shares.list()} == {5, 0}
        assert (ran, (await world.row(job_id)).attempts) == ([], 0)
        await storage.processes.remove(OTHER_HOST)
        await until_open([late], 5)
        await world.when(job_id, "done")
        await world.close()
