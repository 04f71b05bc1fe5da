"""Why a queue stands still or a schedule does not fire."""

from __future__ import annotations

from datetime import timedelta

from forge_jobs.clock import ManualClock, from_us
from forge_jobs.runtime.loops.cron import cron_tick_once
from forge_jobs.runtime.routing import DefaultRouter
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.blocker import Blocker
from forge_jobs.storage.types.event import Actor
from forge_jobs.storage.types.finalize import Done
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.storage.types.rate_limit import Gate, RateLimitDeclaration
from forge_jobs.storage.types.schedule import ScheduleChange, ScheduleDeclaration
from forge_jobs.testing.conformance.arrange import add, add_many, run, settle, take, take_one
from forge_jobs.testing.conformance.fixtures import Beater
from forge_jobs.testing.factories import HOST, KIND, QUEUE, make_crashed, make_failed, make_process

TTL = timedelta(seconds=15)
NIGHTLY = ScheduleDeclaration("nightly", KIND, "0 3 * * *", queue=QUEUE)


async def of_queue(storage: Storage, name: str = QUEUE) -> dict[str, Blocker]:
    return {str(one.code): one for one in await storage.queues.explain(name)}


async def of_schedule(storage: Storage, name: str = "nightly") -> dict[str, Blocker]:
    return {str(one.code): one for one in await storage.schedules.explain(name)}


async def look(storage: Storage, clock: ManualClock) -> None:
    """One pass over the schedules."""
    await cron_tick_once(storage, DefaultRouter(), from_us(clock.now_us()))


class TestExplainQueue:
    async def test_a_queue_that_is_not_there(self, storage: Storage) -> None:
        assert list(await of_queue(storage, "nobody")) == ["unknown_queue"]

    async def test_one_without_jobs(self, storage: Storage, clock: ManualClock, beater: Beater) -> None:
        await add(storage, delay=30)
        await beater.beat(make_process())
        idle = await of_queue(storage)
        assert list(idle) == ["idle"]
        assert idle["idle"].until == clock.now() + timedelta(seconds=30)

    async def test_one_without_jobs_and_without_workers(self, storage: Storage) -> None:
        await storage.queues.ensure(QUEUE)
        assert list(await of_queue(storage)) == ["queue_unserved", "idle"]

    async def test_one_whose_jobs_are_taken(self, storage: Storage, beater: Beater) -> None:
        await add(storage)
        await beater.beat(make_process())
        assert list(await of_queue(storage)) == ["ready"]
        assert len(await take(storage)) == 1

    async def test_a_full_one(self, storage: Storage, beater: Beater) -> None:
        await storage.queues.ensure(QUEUE, QueueChange(max_pending=2))
        await add_many(storage, 2)
        await beater.beat(make_process())
        assert list(await of_queue(storage)) == ["queue_full", "ready"]

    async def test_what_holds_some_of_its_kinds(self, storage: Storage, beater: Beater) -> None:
        gates = (Gate(kind="paid", scope="api"), Gate(kind="lost", scope="gone"))
        await storage.rate_limits.ensure(RateLimitDeclaration(scope="api", capacity=1, refill_per_s=0.1))
        await storage.rate_limits.acquire("api")
        for kind in (KIND, "strange", "paid", "lost"):
            await add(storage, kind=kind)
        await beater.beat(make_process(kinds=(KIND, "lost", "paid"), gates=gates))
        assert list(await of_queue(storage)) == ["kind_unserved", "rate_scope_unknown", "rate_limited", "ready"]

    async def test_many_kinds_of_one_sort_are_counted(self, storage: Storage, beater: Beater) -> None:
        for number in range(15):
            await add(storage, kind=f"strange-{number:02}")
        await beater.beat(make_process())
        found = await storage.queues.explain(QUEUE)
        assert [str(one.code) for one in found] == ["kind_unserved"] * 10
        assert "5 kinds more" in found[-1].text

    async def test_one_that_is_paused_cools_down_and_is_busy(self, storage: Storage, beater: Beater) -> None:
        await add_many(storage, 2)
        job = await take_one(storage)
        await beater.beat(make_process(running={"x": job.id}))
        assert list(await of_queue(storage)) == ["slots_busy", "ready"]
        await storage.queues.pause(QUEUE)
        assert "queue_paused" in await of_queue(storage)
        await storage.queues.resume(QUEUE)
        await settle(storage, job, Done())
        assert list(await of_queue(storage)) == ["ready"]


class TestKindsThatWait:
    async def test_they_are_those_of_due_later_and_lonely_jobs_by_queue(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        assert await storage.jobs.kinds_that_wait() == {}
        await add(storage, kind="lonely")
        for _ in range(2):
            await run(storage, make_crashed(), kinds=("lonely",))
        for kind in ("b", "a", "b", "running", "done", "retried"):
            await add(storage, kind=kind)
        await add(storage, kind="later", delay=60)
        await add(storage, kind="elsewhere", queue="other")
        await take_one(storage, kinds=("running",))
        await run(storage, Done(), kinds=("done",))
        await run(storage, make_failed(delay=60), kinds=("retried",))
        assert await storage.jobs.kinds_that_wait() == {
            QUEUE: ["a", "b", "later", "lonely", "retried"],
            "other": ["elsewhere"],
        }


class TestExplainSchedule:
    async def test_a_schedule_that_is_not_there(self, storage: Storage) -> None:
        assert list(await of_schedule(storage)) == ["unknown_schedule"]

    async def test_one_that_fires_at_its_time(self, storage: Storage, clock: ManualClock, beater: Beater) -> None:
        await storage.schedules.ensure(NIGHTLY)
        await beater.beat(make_process())
        await storage.leases.take("cron", HOST, TTL)
        await look(storage, clock)
        found = await of_schedule(storage)
        assert list(found) == ["scheduled"]
        assert found["scheduled"].until == clock.now() + timedelta(hours=3)

    async def test_one_that_nobody_fires(self, storage: Storage, clock: ManualClock, beater: Beater) -> None:
        await storage.schedules.ensure(NIGHTLY)
        assert "no worker is alive" in (await of_schedule(storage))["no_leader"].text
        await beater.beat(make_process())
        assert "1 live worker" in (await of_schedule(storage))["no_leader"].text
        await storage.leases.take("cron", HOST, TTL)
        assert list(await of_schedule(storage)) == ["scheduled"]

    async def test_one_whose_leader_stands_still(self, storage: Storage, clock: ManualClock, beater: Beater) -> None:
        await storage.schedules.ensure(NIGHTLY)
        before = clock.now_us()
        clock.advance(60)
        await beater.beat(make_process(label="w1", loops={"cron": before}))
        await storage.leases.take("cron", HOST, TTL)
        found = await of_schedule(storage)
        assert list(found) == ["loop_dead", "scheduled"]
        assert "w1" in found["loop_dead"].text
        await beater.beat(make_process(label="w1", loops={"cron": clock.now_us()}))
        assert list(await of_schedule(storage)) == ["scheduled"]

    async def test_one_that_was_turned_off(self, storage: Storage, clock: ManualClock) -> None:
        await storage.schedules.ensure(NIGHTLY)
        await storage.schedules.disable("nightly", actor=Actor(name="ana"))
        disabled = (await of_schedule(storage))["schedule_disabled"]
        assert "by ana" in disabled.text
        assert disabled.since == clock.now()
        await storage.schedules.enable("nightly")
        assert "schedule_disabled" not in await of_schedule(storage)

    async def test_one_that_is_finished(self, storage: Storage, clock: ManualClock) -> None:
        ends = clock.now() + timedelta(hours=1)
        await storage.schedules.ensure(ScheduleDeclaration("nightly", KIND, "0 3 * * *", ends_at=ends))
        await look(storage, clock)
        assert list(await of_schedule(storage)) == ["schedule_finished"]
        await storage.schedules.change("nightly", ScheduleChange(ends_at=None))
        assert "schedule_finished" not in await of_schedule(storage)

    async def test_one_that_cannot_be_read_any_more(self, storage: Storage, clock: ManualClock) -> None:
        schedule = await storage.schedules.ensure(NIGHTLY)
        assert await storage.schedules.invalidate(schedule, "no such zone")
        invalid = await of_schedule(storage)
        assert list(invalid) == ["schedule_invalid"]
        assert "no such zone" in invalid["schedule_invalid"].text

    async def test_one_whose_ticks_fail(self, storage: Storage, clock: ManualClock, beater: Beater) -> None:
        await storage.queues.ensure(QUEUE, QueueChange(max_pending=1))
        await add(storage)
        await storage.schedules.ensure(NIGHTLY)
        await look(storage, clock)
        clock.advance(3 * 3600 + 1)
        await look(storage, clock)
        await beater.beat(make_process())
        await storage.leases.take("cron", HOST, TTL)
        failing = await of_schedule(storage)
        assert list(failing) == ["schedule_failing", "scheduled"]
        assert "1 time in a row" in failing["schedule_failing"].text

    async def test_one_whose_tick_was_skipped_names_the_holder(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await storage.schedules.ensure(
            ScheduleDeclaration("nightly", KIND, "0 3 * * *", queue=QUEUE, dedupe_key="report")
        )
        holder = await add(storage, dedupe_key="report")
        await look(storage, clock)
        clock.advance(3 * 3600 + 1)
        await look(storage, clock)
        await beater.beat(make_process())
        await storage.leases.take("cron", HOST, TTL)
        found = await of_schedule(storage)
        assert list(found) == ["scheduled", "held"]
        assert holder in found["held"].text
        assert found["held"].remedy == f"forge-jobs jobs explain {holder}"
