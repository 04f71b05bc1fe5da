"""A schedule makes one job for each of its ticks, however many processes believe it is theirs to make."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from forge_jobs.clock import ManualClock, from_us
from forge_jobs.runtime import schedules
from forge_jobs.runtime.loops.cron import CronReport, cron_tick_once
from forge_jobs.runtime.routing import DefaultRouter
from forge_jobs.storage.error import InvalidInput, InvalidName, NotFound, QueueFull, ScheduleExists
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.event import Actor
from forge_jobs.storage.types.finalize import Done
from forge_jobs.storage.types.job import Deduped, Enqueued, JobRow
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.storage.types.schedule import (
    Firing,
    PlannedTick,
    Schedule,
    ScheduleChange,
    ScheduleDeclaration,
    ScheduleState,
    TickOutcome,
)
from forge_jobs.testing.conformance.arrange import events_of, read_all, run
from forge_jobs.testing.factories import KIND, QUEUE

ROUTER: Final = DefaultRouter(QUEUE)
OPERATOR: Final = Actor(name="olga", surface="cli")
MINUTE: Final = timedelta(minutes=1)
NIGHTLY: Final = "nightly"
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""Where the clock of every test stands at first."""


BAD_SETTINGS: Final[list[tuple[dict[str, Any], str]]] = [
    ({"expr": "61 * * * *"}, "expr"),
    ({"expr": "* * * *"}, "expr"),
    ({"expr": "0 0 30 2 *"}, "expr"),
    ({"expr": "*/0 * * * *"}, "expr"),
    ({"zone": "Mars/Olympus"}, "zone"),
    ({"gap": "jump"}, "gap"),
    ({"fold": "third"}, "fold"),
    ({"misfire": "all(0)"}, "misfire"),
    ({"misfire": "all(1001)"}, "misfire"),
    ({"misfire": "some"}, "misfire"),
    ({"misfire_grace_s": -1}, "misfire_grace_s"),
    ({"misfire_grace_s": float("nan")}, "misfire_grace_s"),
    ({"jitter_s": 3601}, "jitter_s"),
    ({"enabled": 1}, "enabled"),
    ({"skip_if_running": "yes"}, "skip_if_running"),
    ({"priority": 2_000}, "priority"),
    ({"max_attempts": 0}, "max_attempts"),
    ({"dedupe_key": ""}, "dedupe_key"),
    ({"starts_at": datetime(2026, 1, 1)}, "starts_at"),  # noqa: DTZ001
    ({"ends_at": "tomorrow"}, "ends_at"),
    ({"starts_at": START, "ends_at": START}, "ends_at"),
    ({"payload": {1, 2}}, "payload"),
    ({"kind": "a b"}, "kind"),
    ({"queue": "-x"}, "queue"),
]


def declare(name: str = NIGHTLY, expr: str = "* * * * *", **settings: Any) -> ScheduleDeclaration:
    return ScheduleDeclaration(name, settings.pop("kind", KIND), expr, **settings)


async def tick(storage: Storage) -> CronReport:
    """One pass at the store's time."""
    return await cron_tick_once(storage, ROUTER, from_us(storage.clock.now_us()))


async def seeded(storage: Storage, name: str = NIGHTLY, expr: str = "* * * * *", **settings: Any) -> Schedule:
    """A declared schedule whose next tick is known."""
    await storage.schedules.ensure(declare(name, expr, **settings))
    await tick(storage)
    return await get(storage, name)


async def get(storage: Storage, name: str = NIGHTLY) -> Schedule:
    found = await storage.schedules.get(name)
    assert found is not None
    return found


async def jobs(storage: Storage) -> list[JobRow]:
    """Every job, oldest first."""
    return [row for _, row in sorted((await read_all(storage)).items())]


async def ticks(storage: Storage, name: str = NIGHTLY) -> list[tuple[int, str, str | None]]:
    """Ticks oldest first: the minute they are for, what became of them, why."""
    found = reversed(await storage.schedules.ticks(name, limit=1_000))
    return [(round((one.fire_at - START) / MINUTE), str(one.outcome), one.reason) for one in found]


class TestDeclaredSchedules:
    async def test_an_absent_schedule_is_added_and_read_as_it_was_declared(self, storage: Storage) -> None:
        declaration = declare(
            expr="30 2 * * *",
            payload={"ü": [1, None, 2.5]},
            queue="reports",
            zone="Europe/Berlin",
            gap="skip",
            fold="both",
            misfire="all(7)",
            misfire_grace_s=90.0,
            enabled=False,
            max_attempts=2,
            priority=-5,
            dedupe_key="report",
            skip_if_running=True,
            jitter_s=12.5,
            starts_at=datetime(2026, 2, 1, tzinfo=UTC),
            ends_at=datetime(2027, 2, 1, 1, 2, 3, 4, tzinfo=UTC),
            version=3,
        )
        assert (await storage.schedules.ensure(declaration)).settings == declaration
        stored = await get(storage)
        assert (stored.settings, stored.declared) == (declaration, declaration)
        assert (stored.state, stored.edited, stored.differences) == (ScheduleState.DISABLED, {}, {})
        assert [one.name for one in await storage.schedules.list()] == [NIGHTLY]

    async def test_the_same_declaration_again_changes_nothing(self, storage: Storage, clock: ManualClock) -> None:
        before = await seeded(storage)
        clock.advance(10)
        assert await storage.schedules.ensure(declare()) == before
        assert await get(storage) == before

    async def test_a_changed_declaration_is_written(self, storage: Storage) -> None:
        await seeded(storage)
        await storage.schedules.ensure(declare(expr="*/5 * * * *", payload={"n": 2}))
        stored = await get(storage)
        assert (stored.settings.expr, stored.settings.payload) == ("*/5 * * * *", {"n": 2})
        assert stored.next_fire_at is None

    async def test_what_the_next_tick_does_not_depend_on_leaves_it(self, storage: Storage) -> None:
        before = await seeded(storage)
        await storage.schedules.ensure(declare(payload={"n": 2}, priority=3))
        assert (await get(storage)).next_fire_at == before.next_fire_at

    async def test_a_lower_version_changes_nothing(self, storage: Storage) -> None:
        await storage.schedules.ensure(declare(payload={"n": 2}, version=2))
        await storage.schedules.ensure(declare(payload={"n": 1}, version=1))
        stored = await get(storage)
        assert (stored.settings.payload, stored.settings.version) == ({"n": 2}, 2)
        await storage.schedules.ensure(declare(payload={"n": 3}, version=3))
        assert (await get(storage)).settings.payload == {"n": 3}

    async def test_what_an_operator_edited_is_not_overwritten(self, storage: Storage) -> None:
        await storage.schedules.ensure(declare(payload={"n": 1}))
        await storage.schedules.change(NIGHTLY, ScheduleChange(priority=7), actor=OPERATOR)
        await storage.schedules.ensure(declare(payload={"n": 2}, priority=1))
        stored = await get(storage)
        assert (stored.settings.priority, stored.settings.payload) == (7, {"n": 2})
        assert stored.differences == {"priority": (1, 7)}
        assert stored.edited["priority"].by == "olga"

    async def test_code_does_not_turn_on_what_an_operator_turned_off(self, storage: Storage) -> None:
        await storage.schedules.ensure(declare())
        await storage.schedules.disable(NIGHTLY, actor=OPERATOR)
        await storage.schedules.ensure(declare(payload={"new": 1}))
        await storage.schedules.ensure(declare(enabled=False))
        await storage.schedules.ensure(declare(enabled=True))
        assert (await get(storage)).state is ScheduleState.DISABLED

    async def test_code_turns_its_own_schedules_off_and_on(self, storage: Storage) -> None:
        await seeded(storage)
        await storage.schedules.ensure(declare(enabled=False))
        stored = await get(storage)
        assert (stored.state, stored.next_fire_at) == (ScheduleState.DISABLED, None)
        await storage.schedules.ensure(declare())
        assert (await get(storage)).state is ScheduleState.ACTIVE

    async def test_a_schedule_that_an_operator_added_stays_the_operators(self, storage: Storage) -> None:
        await storage.schedules.add(declare(payload={"by": "olga"}), actor=OPERATOR)
        await storage.schedules.ensure(declare(expr="0 4 * * *", payload={"by": "code"}))
        stored = await get(storage)
        assert (stored.settings.expr, stored.settings.payload) == ("* * * * *", {"by": "olga"})
        assert set(stored.differences) == {"expr", "payload"}
        await storage.schedules.reset_to_code(NIGHTLY, actor=OPERATOR)
        assert (await get(storage)).settings.payload == {"by": "code"}

    async def test_reset_applies_what_code_declared_last(self, storage: Storage) -> None:
        await seeded(storage)
        await storage.schedules.change(NIGHTLY, ScheduleChange(expr="0 5 * * *", priority=9), actor=OPERATOR)
        await storage.schedules.disable(NIGHTLY, actor=OPERATOR)
        stored = await storage.schedules.reset_to_code(NIGHTLY, actor=OPERATOR)
        assert (stored.settings, stored.edited, stored.state) == (declare(), {}, ScheduleState.ACTIVE)
        assert stored.next_fire_at is None

    async def test_there_is_nothing_to_reset_to_without_a_declaration(self, storage: Storage) -> None:
        await storage.schedules.add(declare())
        with pytest.raises(NotFound, match="never declared by code"):
            await storage.schedules.reset_to_code(NIGHTLY)

    async def test_many_processes_that_declare_it_at_once_make_one(self, storage: Storage, neighbour: Storage) -> None:
        await asyncio.gather(*(one.schedules.ensure(declare()) for one in (storage, neighbour) * 5))
        assert len(await storage.schedules.list()) == 1


class TestEditedSchedules:
    async def test_a_bad_setting_is_refused_by_field_and_nothing_is_written(self, storage: Storage) -> None:
        for settings, field in BAD_SETTINGS:
            with pytest.raises(InvalidInput) as declared:
                await storage.schedules.ensure(replace(declare(), **settings))
            assert (declared.value.field, bool(declared.value.reason)) == (field, True), settings
            assert field in str(declared.value), settings
        assert await storage.schedules.list() == []
        await storage.schedules.add(declare())
        before = await get(storage)
        for settings, field in BAD_SETTINGS:
            with pytest.raises(InvalidInput) as changed:
                await storage.schedules.change(NIGHTLY, ScheduleChange(**settings))
            assert changed.value.field == field, settings
        assert await get(storage) == before

    async def test_a_bad_name_is_refused(self, storage: Storage) -> None:
        for name in ("", "a b", "-x", "x\n", "n" * 129):
            with pytest.raises(InvalidName):
                await storage.schedules.add(declare(name))
            with pytest.raises(InvalidName):
                await storage.schedules.ensure(declare(name))

    async def test_a_name_is_added_once(self, storage: Storage) -> None:
        await storage.schedules.add(declare(payload=1), actor=OPERATOR)
        with pytest.raises(ScheduleExists):
            await storage.schedules.add(declare(payload=2), actor=OPERATOR)
        assert (await get(storage)).settings.payload == 1

    async def test_a_change_says_who_and_when(self, storage: Storage, clock: ManualClock) -> None:
        await storage.schedules.ensure(declare())
        clock.advance(60)
        stored = await storage.schedules.change(NIGHTLY, ScheduleChange(priority=1, queue="other"), actor=OPERATOR)
        assert {key: (edit.by, edit.at) for key, edit in stored.edited.items()} == {
            "priority": ("olga", clock.now()),
            "queue": ("olga", clock.now()),
        }
        assert (stored.updated_by, stored.updated_at) == ("olga", clock.now())

    async def test_a_check_sees_what_is_stored_and_may_refuse_the_change(self, storage: Storage) -> None:
        await seeded(storage)
        before = await storage.schedules.change(NIGHTLY, ScheduleChange(priority=7), actor=OPERATOR)
        seen: list[int] = []

        def check(found: Schedule) -> None:
            seen.append(found.settings.priority)
            raise LookupError

        with pytest.raises(LookupError):
            await storage.schedules.change(NIGHTLY, ScheduleChange(priority=1), check=check)
        assert (await get(storage), set(seen)) == (before, {7})

    async def test_a_change_of_its_times_finds_the_next_tick_anew(self, storage: Storage) -> None:
        changes: list[dict[str, Any]] = [
            {"expr": "*/2 * * * *"},
            {"zone": "Europe/Berlin"},
            {"gap": "skip"},
            {"fold": "both"},
            {"starts_at": START},
            {"ends_at": START + timedelta(days=9)},
        ]
        await storage.schedules.ensure(declare())
        for change in changes:
            await tick(storage)
            before = await get(storage)
            assert before.next_fire_at is not None
            await storage.schedules.record_error(before, None, "boom")
            stored = await storage.schedules.change(NIGHTLY, ScheduleChange(**change), actor=OPERATOR)
            assert (stored.next_fire_at, stored.last_error) == (None, None), change

    async def test_enable_begins_anew_and_fires_nothing_at_once(self, storage: Storage, clock: ManualClock) -> None:
        await seeded(storage)
        stored = await storage.schedules.disable(NIGHTLY, actor=OPERATOR)
        assert (stored.state, stored.next_fire_at) == (ScheduleState.DISABLED, None)
        clock.advance(600)
        assert (await tick(storage)).seeded == 0
        stored = await storage.schedules.enable(NIGHTLY, actor=OPERATOR)
        assert (stored.state, stored.next_fire_at, stored.last_error) == (ScheduleState.ACTIVE, None, None)
        report = await tick(storage)
        assert (report.seeded, report.fired) == (1, 0)
        assert (await get(storage)).next_fire_at == clock.now() + MINUTE

    async def test_enable_forgets_errors(self, storage: Storage) -> None:
        await storage.schedules.record_error(await seeded(storage), None, "boom")
        assert (await get(storage)).consecutive_errors == 1
        stored = await storage.schedules.enable(NIGHTLY)
        assert (stored.last_error, stored.consecutive_errors) == (None, 0)

    async def test_remove_keeps_jobs_and_ticks_and_may_be_repeated(self, storage: Storage, clock: ManualClock) -> None:
        await seeded(storage)
        clock.advance(60)
        await tick(storage)
        assert await storage.schedules.remove(NIGHTLY, actor=OPERATOR) is True
        assert await storage.schedules.remove(NIGHTLY, actor=OPERATOR) is False
        assert await storage.schedules.get(NIGHTLY) is None
        assert len(await jobs(storage)) == 1
        assert await ticks(storage) == [(1, "fired", None)]

    async def test_unknown_schedules_are_not_found(self, storage: Storage) -> None:
        store = storage.schedules
        for act in (
            store.change("x", ScheduleChange(priority=1)),
            store.enable("x"),
            store.disable("x"),
            store.reset_to_code("x"),
            schedules.trigger(storage, ROUTER, "x"),
        ):
            with pytest.raises(NotFound):
                await act

    async def test_what_operators_do_is_audited(self, storage: Storage) -> None:
        store = storage.schedules
        await store.ensure(declare())
        await store.change(NIGHTLY, ScheduleChange(priority=4), actor=OPERATOR)
        await store.disable(NIGHTLY, actor=OPERATOR)
        await store.enable(NIGHTLY, actor=OPERATOR)
        await store.reset_to_code(NIGHTLY, actor=OPERATOR)
        await schedules.trigger(storage, ROUTER, NIGHTLY, actor=OPERATOR)
        await store.remove(NIGHTLY, actor=OPERATOR)
        await store.add(declare(), actor=OPERATOR)
        rows = list(reversed(await storage.audit.list()))
        assert [row.action for row in rows] == [
            f"schedule.{verb}" for verb in ("change", "disable", "enable", "reset", "trigger", "remove", "add")
        ]
        assert {(row.actor.name, row.target) for row in rows} == {("olga", NIGHTLY)}
        assert (rows[0].before, rows[0].after) == ({"priority": 0}, {"priority": 4})


class TestFire:
    async def test_a_new_schedule_is_seeded_after_now_and_enqueues_nothing(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await storage.schedules.ensure(declare())
        report = await tick(storage)
        assert (report.seeded, report.fired, report.next_due) == (1, 0, clock.now() + MINUTE)
        assert await jobs(storage) == []

    async def test_it_does_not_fire_early(self, storage: Storage, clock: ManualClock) -> None:
        await seeded(storage)
        clock.advance(59.999999)
        assert (await tick(storage)).fired == 0
        clock.advance(0.000001)
        assert (await tick(storage)).fired == 1

    async def test_the_job_is_as_the_schedule_says(self, storage: Storage, clock: ManualClock) -> None:
        await seeded(storage, payload={"n": 1}, queue="reports", priority=-7, max_attempts=9, dedupe_key="key")
        clock.advance(61)
        await tick(storage)
        (job,) = await jobs(storage)
        assert (job.kind, job.payload, job.queue, job.priority) == (KIND, {"n": 1}, "reports", -7)
        assert (job.max_attempts, job.dedupe_key, job.status) == (9, "key", "pending")
        assert (job.scheduled_at, job.tags) == (clock.now(), (f"schedule:{NIGHTLY}",))
        detail = await storage.jobs.get(job.id)
        assert detail is not None
        assert detail.trace == {"schedule": NIGHTLY, "fire_at": "2026-01-01T00:01:00+00:00"}
        assert await events_of(storage, job.id) == ["enqueued"]

    async def test_without_a_queue_the_router_names_it(self, storage: Storage, clock: ManualClock) -> None:
        await seeded(storage)
        clock.advance(60)
        await tick(storage)
        assert [job.queue for job in await jobs(storage)] == [QUEUE]

    async def test_what_fired_is_kept(self, storage: Storage, clock: ManualClock) -> None:
        await seeded(storage)
        clock.advance(75)
        report = await tick(storage)
        (job,) = await jobs(storage)
        (row,) = await storage.schedules.ticks(NIGHTLY)
        assert (row.fire_at, row.outcome, row.job_id, row.at) == (
            START + MINUTE, TickOutcome.FIRED, job.id, clock.now(),
        )  # fmt: skip
        stored = await get(storage)
        assert (stored.last_fired_at, stored.last_outcome) == (START + MINUTE, "fired")
        assert stored.next_fire_at == report.next_due == START + 2 * MINUTE

    async def test_believers_in_the_same_tick_make_one_job(
        self, storage: Storage, neighbour: Storage, clock: ManualClock
    ) -> None:
        await seeded(storage)
        for n in range(1, 6):
            clock.advance(60)
            reports = await asyncio.gather(*(tick(one) for one in (storage, neighbour) * 4))
            assert sum(report.fired for report in reports) == 1
            assert all(report.next_due is not None for report in reports), "who came second looks again"
            assert len(await jobs(storage)) == n

    async def test_a_plan_of_before_writes_nothing(self, storage: Storage, clock: ManualClock) -> None:
        """The second believer read the schedule before the first one moved it on."""
        before = await seeded(storage)
        clock.advance(60)
        late = schedules.firing(before, clock.now(), ROUTER, None, None)
        await tick(storage)
        assert await storage.schedules.fire(late) is None
        assert len(await jobs(storage)) == 1

    async def test_the_row_of_a_tick_is_unique_whatever_the_schedule_says(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        before = await seeded(storage)
        clock.advance(60)
        await tick(storage)
        await storage.schedules.remove(NIGHTLY)
        clock.step(-60)
        again = await seeded(storage)
        assert again.next_fire_at == before.next_fire_at
        clock.step(60)
        assert await storage.schedules.fire(schedules.firing(again, clock.now(), ROUTER, None, None)) is None
        assert len(await jobs(storage)) == 1

    async def test_a_schedule_that_was_changed_meanwhile_is_left(self, storage: Storage, clock: ManualClock) -> None:
        before = await seeded(storage)
        clock.advance(60)
        await storage.schedules.change(NIGHTLY, ScheduleChange(payload={"new": 1}))
        assert await storage.schedules.fire(schedules.firing(before, clock.now(), ROUTER, None, None)) is None
        assert await storage.schedules.seed(before, clock.now()) is False
        assert (await tick(storage)).fired == 1
        assert [job.payload for job in await jobs(storage)] == [{"new": 1}]

    async def test_a_disabled_schedule_does_not_fire(self, storage: Storage, clock: ManualClock) -> None:
        before = await seeded(storage)
        await storage.schedules.disable(NIGHTLY)
        clock.advance(600)
        assert (await tick(storage)).fired == 0
        assert await storage.schedules.fire(schedules.firing(before, clock.now(), ROUTER, None, None)) is None

    async def test_schedules_fire_in_the_order_of_their_names(self, storage: Storage, clock: ManualClock) -> None:
        for name in ("b", "B", "a.1", "a"):
            await storage.schedules.ensure(declare(name, payload=name))
        await tick(storage)
        clock.advance(60)
        report = await tick(storage)
        assert report.fired == 4
        assert [job.payload for job in await jobs(storage)] == ["B", "a", "a.1", "b"]

    async def test_it_begins_at_its_start_and_the_last_tick_before_its_end_fires(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await seeded(storage, starts_at=START + 3 * MINUTE, ends_at=START + 5 * MINUTE)
        assert (await get(storage)).next_fire_at == START + 3 * MINUTE
        for _ in range(8):
            clock.advance(60)
            await tick(storage)
        assert await ticks(storage) == [(3, "fired", None), (4, "fired", None)]
        stored = await get(storage)
        assert (stored.state, stored.next_fire_at) == (ScheduleState.FINISHED, None)
        await storage.schedules.change(NIGHTLY, ScheduleChange(ends_at=None))
        assert (await tick(storage)).seeded == 1

    async def test_the_final_tick_fires_although_it_is_seen_after_the_end(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await seeded(storage, ends_at=START + 2 * MINUTE)
        clock.advance(600)
        assert (await tick(storage)).fired == 1
        assert await ticks(storage) == [(1, "fired", None)]

    async def test_jitter_delays_the_job_and_not_the_tick(self, storage: Storage, clock: ManualClock) -> None:
        await seeded(storage, jitter_s=30)
        for _ in range(10):
            clock.advance(60)
            await tick(storage)
        delays = [job.scheduled_at - job.enqueued_at for job in await jobs(storage)]
        assert all(timedelta(0) <= delay <= timedelta(seconds=30) for delay in delays)
        assert len(set(delays)) > 1

    async def test_skip_if_running_makes_no_job_while_the_last_one_waits_or_runs(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await seeded(storage, skip_if_running=True)
        clock.advance(60)
        await tick(storage)
        clock.advance(60)
        report = await tick(storage)
        assert (report.fired, report.skipped) == (0, 1)
        (job,) = await jobs(storage)
        stored = await get(storage)
        assert (stored.last_fired_at, stored.last_outcome) == (START + MINUTE, f"skipped: held by {job.id}")
        assert (await storage.schedules.ticks(NIGHTLY))[0].job_id == job.id
        await run(storage, Done())
        clock.advance(60)
        assert (await tick(storage)).fired == 1
        assert await ticks(storage) == [(1, "fired", None), (2, "skipped", "held"), (3, "fired", None)]
        assert (await storage.schedules.count_ticks(NIGHTLY), await storage.schedules.count_ticks("other")) == (3, 0)

    async def test_a_key_of_its_own_is_shared_with_others(self, storage: Storage, clock: ManualClock) -> None:
        await seeded(storage, "one", skip_if_running=True, dedupe_key="both")
        await seeded(storage, "two", skip_if_running=True, dedupe_key="both")
        clock.advance(60)
        report = await tick(storage)
        assert (report.fired, report.skipped) == (1, 1)

    async def test_a_daily_schedule_fires_once_on_days_on_which_the_clocks_change(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        for day, expected in ((datetime(2026, 3, 29, tzinfo=UTC), 1), (datetime(2026, 10, 25, tzinfo=UTC), 1)):
            clock.advance(day - timedelta(hours=12) - clock.now())
            await storage.schedules.remove(NIGHTLY)
            await seeded(storage, expr="30 2 * * *", zone="Europe/Berlin")
            before = len(await jobs(storage))
            while clock.now() < day + timedelta(hours=20):
                clock.advance(15 * MINUTE)
                await tick(storage)
            assert len(await jobs(storage)) - before == expected

    async def test_ticks_are_paged_newest_first_and_forgotten_after_a_month(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await seeded(storage)
        for _ in range(5):
            clock.advance(60)
            await tick(storage)
        first = await storage.schedules.ticks(NIGHTLY, limit=2)
        second = await storage.schedules.ticks(NIGHTLY, limit=2, before=first[-1].fire_at)
        assert [round((one.fire_at - START) / MINUTE) for one in [*first, *second]] == [5, 4, 3, 2]
        clock.advance(timedelta(days=30) - 2 * MINUTE)
        assert (await storage.maintenance.cleanup()).ticks == 2
        assert [minute for minute, *_ in await ticks(storage)] == [3, 4, 5]


class TestMisfire:
    async def late(self, storage: Storage, clock: ManualClock, misfire: str, minutes: float, **settings: Any) -> None:
        await seeded(storage, misfire=misfire, **settings)
        clock.advance(timedelta(minutes=minutes))
        await tick(storage)

    async def test_of_many_missed_ticks_the_latest_fires_and_the_others_are_one_range(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await self.late(storage, clock, "latest", 10.5)
        assert await ticks(storage) == [(1, "skipped", "misfire"), (10, "fired", None)]
        (skipped,) = [one for one in await storage.schedules.ticks(NIGHTLY) if one.reason]
        assert skipped.through == START + 9 * MINUTE
        assert len(await jobs(storage)) == 1
        assert (await get(storage)).next_fire_at == START + 11 * MINUTE

    async def test_one_missed_tick_is_no_range(self, storage: Storage, clock: ManualClock) -> None:
        await self.late(storage, clock, "latest", 2)
        (skipped,) = [one for one in await storage.schedules.ticks(NIGHTLY) if one.reason]
        assert (skipped.fire_at, skipped.through) == (START + MINUTE, None)

    async def test_a_year_of_missed_seconds_costs_no_time(self, storage: Storage, clock: ManualClock) -> None:
        await seeded(storage, expr="* * * * * *")
        clock.advance(timedelta(days=365))
        report = await tick(storage)
        assert (report.fired, report.skipped) == (1, 1)

    async def test_skip_fires_only_what_is_at_most_a_minute_late(self, storage: Storage, clock: ManualClock) -> None:
        await self.late(storage, clock, "skip", 5 + 1 / 60, expr="*/2 * * * *")
        assert await ticks(storage) == [(2, "skipped", "misfire")]
        assert await jobs(storage) == []
        clock.advance(MINUTE)
        assert (await tick(storage)).fired == 1

    async def test_skip_has_a_grace_of_its_own(self, storage: Storage, clock: ManualClock) -> None:
        await self.late(storage, clock, "skip", 10, misfire_grace_s=120)
        assert [minute for minute, outcome, _ in await ticks(storage) if outcome == "fired"] == [8, 9, 10]

    async def test_all_fires_the_newest_of_them_oldest_first(self, storage: Storage, clock: ManualClock) -> None:
        await self.late(storage, clock, "all(3)", 10)
        assert await ticks(storage) == [
            (1, "skipped", "misfire"), (8, "fired", None), (9, "fired", None), (10, "fired", None),
        ]  # fmt: skip
        traces = [(await storage.jobs.get(job.id)) for job in await jobs(storage)]
        assert [one.trace["fire_at"][14:16] for one in traces if one and one.trace] == ["08", "09", "10"]

    async def test_all_fires_every_one_if_there_are_fewer(self, storage: Storage, clock: ManualClock) -> None:
        await self.late(storage, clock, "all(1000)", 10)
        assert await ticks(storage) == [(n, "fired", None) for n in range(1, 11)]

    @pytest.mark.parametrize("misfire", ["latest", "all(5)"])
    async def test_a_grace_bounds_the_other_policies_too(
        self, storage: Storage, clock: ManualClock, misfire: str
    ) -> None:
        await self.late(storage, clock, misfire, 59, expr="*/10 * * * *", misfire_grace_s=500)
        assert await ticks(storage) == [(10, "skipped", "misfire")]
        stored = await get(storage)
        assert (stored.next_fire_at, stored.last_fired_at) == (START + 60 * MINUTE, None)
        assert stored.last_outcome == "skipped: misfire"


class TestTrigger:
    async def test_one_job_now_on_the_way_of_its_ticks(self, storage: Storage, clock: ManualClock) -> None:
        before = await seeded(storage, payload={"n": 1})
        outcome = await schedules.trigger(storage, ROUTER, NIGHTLY, actor=OPERATOR)
        assert isinstance(outcome, Enqueued)
        (job,) = await jobs(storage)
        assert (job.id, job.queue, job.payload, job.scheduled_at) == (outcome.id, QUEUE, {"n": 1}, clock.now())
        assert (await get(storage)).next_fire_at == before.next_fire_at
        assert await ticks(storage) == []

    async def test_a_disabled_schedule_can_be_triggered(self, storage: Storage) -> None:
        await storage.schedules.ensure(declare(enabled=False))
        assert isinstance(await schedules.trigger(storage, ROUTER, NIGHTLY), Enqueued)

    async def test_its_key_holds_and_force_ignores_it(self, storage: Storage) -> None:
        await seeded(storage, skip_if_running=True)
        first = await schedules.trigger(storage, ROUTER, NIGHTLY)
        again = await schedules.trigger(storage, ROUTER, NIGHTLY)
        assert isinstance(again, Deduped)
        assert again.id == first.id
        assert isinstance(await schedules.trigger(storage, ROUTER, NIGHTLY, force=True), Enqueued)
        assert len(await jobs(storage)) == 2


class TestScheduleFaults:
    async def test_a_full_queue_is_an_error_that_is_tried_again_and_disables_nothing(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await seeded(storage)
        await storage.queues.ensure(QUEUE)
        await storage.queues.change(QUEUE, QueueChange(max_pending=1))
        clock.advance(60)
        assert (await tick(storage)).fired == 1
        clock.advance(60)
        report = await tick(storage)
        assert (report.fired, report.errors) == (0, 1)
        assert report.next_due is not None
        assert report.next_due - clock.now() <= timedelta(seconds=5)
        stored = await get(storage)
        assert (stored.state, stored.next_fire_at, stored.consecutive_errors) == (
            ScheduleState.ACTIVE, START + 2 * MINUTE, 1,
        )  # fmt: skip
        assert "QueueFull" in (stored.last_error or "")
        assert (await ticks(storage))[-1][:2] == (2, "error")
        for errors in range(2, 5):
            clock.advance(2)
            await tick(storage)
            assert (await get(storage)).consecutive_errors == errors
        await run(storage, Done())
        clock.advance(2)
        assert (await tick(storage)).fired == 1
        assert await ticks(storage) == [(1, "fired", None), (2, "fired", None)]
        stored = await get(storage)
        assert (stored.last_error, stored.consecutive_errors) == (None, 0)
        assert len(await jobs(storage)) == 2

    async def test_an_error_takes_every_job_of_the_pass_back(self, storage: Storage, clock: ManualClock) -> None:
        await storage.queues.ensure(QUEUE)
        await storage.queues.change(QUEUE, QueueChange(max_pending=2))
        before = await seeded(storage, misfire="all(5)")
        clock.advance(300)
        with pytest.raises(QueueFull):
            await storage.schedules.fire(schedules.firing(before, clock.now(), ROUTER, None, None))
        assert await jobs(storage) == []
        assert (await get(storage)) == before

    async def test_a_fault_in_one_does_not_stop_the_others(self, storage: Storage, clock: ManualClock) -> None:
        await storage.queues.ensure("full")
        await storage.queues.change("full", QueueChange(max_pending=1))
        await seeded(storage, "a", queue="full")
        await schedules.trigger(storage, ROUTER, "a")
        await seeded(storage, "b")
        clock.advance(60)
        report = await tick(storage)
        assert (report.errors, report.fired) == (1, 1)

    async def test_an_unreadable_schedule_is_invalid_and_the_others_fire(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await seeded(storage, "b")
        broken = await seeded(storage, "a")
        assert await storage.schedules.invalidate(broken, "zone 'X/Y' is not known") is True
        assert await storage.schedules.invalidate(broken, "again") is False
        clock.advance(60)
        assert (await tick(storage)).fired == 1
        stored = await get(storage, "a")
        assert (stored.state, stored.last_error) == (ScheduleState.INVALID, "zone 'X/Y' is not known")
        stored = await storage.schedules.change("a", ScheduleChange(zone="Europe/Berlin"))
        assert (stored.state, stored.last_error) == (ScheduleState.ACTIVE, None)

    async def test_an_error_of_a_schedule_that_changed_meanwhile_is_not_kept(self, storage: Storage) -> None:
        before = await seeded(storage)
        await storage.schedules.change(NIGHTLY, ScheduleChange(priority=1))
        await storage.schedules.record_error(before, before.next_fire_at, "boom")
        assert (await get(storage)).consecutive_errors == 0
        assert await ticks(storage) == []

    async def test_a_tick_that_was_fired_by_another_takes_the_jobs_of_a_plan_back(self, storage: Storage) -> None:
        before = await seeded(storage)
        assert before.next_fire_at is not None
        request = schedules.request(before, before.next_fire_at, ROUTER)
        twice = PlannedTick(fire_at=before.next_fire_at, request=request)
        assert await storage.schedules.fire(Firing(schedule=before, ticks=(twice, twice), next_fire_at=None)) is None
        assert await jobs(storage) == []
