"""The schedule store over a driver.

A tick happens once because of its row, `(schedule, fire_at)`, which is written with its job in one transaction, after
the schedule was moved on from the value that was read. Whoever comes second changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec

from forge_jobs import limits
from forge_jobs.clock import from_us, to_us
from forge_jobs.config import StoreConfig
from forge_jobs.ids import JobId
from forge_jobs.names import check_name
from forge_jobs.storage.error import InvalidInput, NotFound, ScheduleExists
from forge_jobs.storage.protocol import CLUSTER, PYTHON, STALE_AFTER
from forge_jobs.storage.request import check_request
from forge_jobs.storage.schedule_check import check_declaration, check_settings, read_settings
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Driver, Operation, Row, Tx, Wake
from forge_jobs.storage.sql.enqueue import Answer, Batch, KnownQueues, insert_jobs
from forge_jobs.storage.sql.explain import explain_schedule
from forge_jobs.storage.sql.jobs import SqlJobs
from forge_jobs.storage.sql.rows import audit_params, instant, to_json
from forge_jobs.storage.types.blocker import Blocker
from forge_jobs.storage.types.event import Actor
from forge_jobs.storage.types.job import Deduped, Enqueued, EnqueueOutcome, EnqueueRequest, NewJob
from forge_jobs.storage.types.schedule import (
    SETTINGS,
    TIMING,
    DueSchedules,
    Edit,
    Firing,
    PlannedTick,
    Schedule,
    ScheduleChange,
    ScheduleDeclaration,
    ScheduleState,
    Tick,
    TickOutcome,
)
from forge_jobs.text import clean

LIST_SCHEDULES = statement("list_schedules")
GET_SCHEDULE = statement("get_schedule")
LOCK_SCHEDULE = statement("lock_schedule")
DUE_SCHEDULES = statement("due_schedules")
NEXT_SCHEDULE = statement("next_schedule")
INSERT_SCHEDULE = statement("insert_schedule")
WRITE_SCHEDULE = statement("write_schedule")
DELETE_SCHEDULE = statement("delete_schedule")
SEED_SCHEDULE = statement("seed_schedule")
MOVE_SCHEDULE = statement("move_schedule")
WRITE_OUTCOME = statement("write_outcome")
INVALIDATE_SCHEDULE = statement("invalidate_schedule")
COUNT_SCHEDULE_ERROR = statement("count_schedule_error")
INSERT_TICK = statement("insert_tick")
LIST_TICKS = statement("list_ticks")
COUNT_TICKS = statement("count_ticks")
INSERT_AUDIT = statement("insert_audit")

CODE: Final = "code"
"""Who changed a schedule that was declared anew."""
HELD: Final = "held"
"""The reason of a tick whose key another job has."""

T = TypeVar("T")


class _Raced(Exception):
    """Another has this tick already."""


class SqlSchedules:
    """Implements `ScheduleStore`."""

    def __init__(self, driver: Driver, jobs: SqlJobs, wake: Wake, config: StoreConfig, known: KnownQueues) -> None:
        self._driver = driver
        self._jobs = jobs
        self._wake = wake
        self._config = config
        self._known = known

    # What is scheduled

    async def ensure(self, declaration: ScheduleDeclaration) -> Schedule:
        settings = check_declaration(declaration, self._config.payload_max)
        name, version = declaration.name, declaration.version

        def operation(tx: Tx) -> tuple[Schedule, bool]:
            first = {"name": name, "settings": to_json(settings), "state": _state(settings), "edited": "{}"}
            declared = {"declaration": to_json(settings), "version": version, "by": CODE}
            if tx.change(INSERT_SCHEDULE, {**first, **declared}):
                return _schedule(_lock(tx, name)), True
            found = _lock(tx, name)
            row = _stored(found)
            if version < row.version:
                return _schedule(found), False
            before = row.declaration or {}
            wanted = {
                key: value for key, value in settings.items() if key not in row.edited and before.get(key, ()) != value
            }
            if not wanted and before == settings and version == row.version:
                return _schedule(found), False
            row = replace(row, declaration=settings, version=version)
            return _write(tx, row, wanted, by=CODE), bool(wanted)

        known = await self.get(name)  # a declaration that changes nothing is only read
        if known is not None and known.declared == declaration:
            return known
        return await self._changed(operation)

    async def add(self, declaration: ScheduleDeclaration, *, actor: Actor = PYTHON) -> Schedule:
        settings = check_declaration(declaration, self._config.payload_max)
        name = declaration.name

        def operation(tx: Tx) -> tuple[Schedule, bool]:
            edited = {key: {"by": actor.name, "at": tx.now_us} for key in SETTINGS}
            row = {"name": name, "settings": to_json(settings), "state": _state(settings), "edited": to_json(edited)}
            if not tx.change(INSERT_SCHEDULE, {**row, "declaration": None, "version": 0, "by": actor.name}):
                raise ScheduleExists(f"there is a schedule {name!r} already; change it, or remove it first")
            _audit(tx, actor, "schedule.add", name, None, settings)
            return _schedule(_lock(tx, name)), True

        return await self._changed(operation)

    async def get(self, name: str) -> Schedule | None:
        check_name(name, "schedule")
        row = await self._driver.read(lambda tx: tx.row(GET_SCHEDULE, {"name": name}))
        return None if row is None else _schedule(row)

    async def list(self) -> list[Schedule]:
        return [_schedule(row) for row in await self._driver.read(lambda tx: tx.rows(LIST_SCHEDULES))]

    async def explain(self, name: str, *, stale_after: timedelta = STALE_AFTER) -> Sequence[Blocker]:
        check_name(name, "schedule")

        def operation(tx: Tx) -> Sequence[Blocker]:
            row = tx.row(GET_SCHEDULE, {"name": name})
            ticks = tx.rows(LIST_TICKS, {"name": name, "until": None, "limit": 1})
            schedule, newest = None if row is None else _schedule(row), _tick(ticks[0]) if ticks else None
            return explain_schedule(tx, name, stale_after, schedule, newest)

        return await self._driver.read(operation)

    async def change(
        self,
        name: str,
        change: ScheduleChange,
        *,
        check: Callable[[Schedule], None] = lambda found: None,
        actor: Actor = PYTHON,
    ) -> Schedule:
        return await self._edit(name, change.given(), "schedule.change", actor, check=check)

    async def enable(self, name: str, *, actor: Actor = PYTHON) -> Schedule:
        return await self._edit(name, {"enabled": True}, "schedule.enable", actor, anew=True, forgive=True)

    async def disable(self, name: str, *, actor: Actor = PYTHON) -> Schedule:
        return await self._edit(name, {"enabled": False}, "schedule.disable", actor, anew=True)

    async def remove(self, name: str, *, actor: Actor = PYTHON) -> bool:
        check_name(name, "schedule")

        def operation(tx: Tx) -> bool:
            gone = tx.change(DELETE_SCHEDULE, {"name": name}) == 1
            _audit(tx, actor, "schedule.remove", name, None, {"removed": gone})
            return gone

        return await self._driver.write(operation, label="schedule")

    async def reset_to_code(self, name: str, *, actor: Actor = PYTHON) -> Schedule:
        check_name(name, "schedule")

        def operation(tx: Tx) -> tuple[Schedule, bool]:
            row = _stored(_lock(tx, name))
            if row.declaration is None:
                raise NotFound(f"schedule {name!r} was never declared by code; there is nothing to go back to")
            before = {key: row.settings.get(key) for key in row.edited}
            schedule = _write(tx, replace(row, edited={}), row.declaration, by=actor.name)
            _audit(tx, actor, "schedule.reset", name, before, {key: row.declaration.get(key) for key in before})
            return schedule, True

        return await self._changed(operation)

    async def _edit(
        self,
        name: str,
        given: Mapping[str, Any],
        action: str,
        actor: Actor,
        *,
        anew: bool = False,
        forgive: bool = False,
        check: Callable[[Schedule], None] = lambda found: None,
    ) -> Schedule:
        check_name(name, "schedule")

        def operation(tx: Tx) -> tuple[Schedule, bool]:
            found = _lock(tx, name)
            check(_schedule(found))
            row = _stored(found)
            wanted = self._checked(row, given)
            edit = {"by": actor.name, "at": tx.now_us}
            before = {key: row.settings.get(key) for key in wanted}
            row = replace(row, edited={**row.edited, **dict.fromkeys(wanted, edit)})
            schedule = _write(tx, row, wanted, by=actor.name, anew=anew, forgive=forgive)
            _audit(tx, actor, action, name, before, wanted)
            return schedule, True

        return await self._changed(operation)

    def _checked(self, row: _Stored, given: Mapping[str, Any]) -> dict[str, Any]:
        """What is given in its stored form, checked together with what stays."""
        if set(given) == {"enabled"}:  # also of a schedule that cannot be read any more
            if type(given["enabled"]) is not bool:
                raise InvalidInput(f"enabled {given['enabled']!r} must be true or false", field="enabled")
            return dict(given)
        settings = check_settings({**_full(row.settings), **given}, self._config.payload_max)
        return {key: settings[key] for key in given}

    async def _changed(self, operation: Operation[tuple[Schedule, bool]]) -> Schedule:
        schedule, changed = await self._driver.write(operation, label="schedule")
        if changed:
            self._wake.due([CLUSTER])
        return schedule

    # Firing

    async def trigger(self, name: str, request: EnqueueRequest, *, actor: Actor = PYTHON) -> EnqueueOutcome:
        check_name(name, "schedule")
        job = self._job(name, request)

        def operation(tx: Tx) -> tuple[EnqueueOutcome, Batch]:
            _lock(tx, name)
            batch = insert_jobs(tx, [job], self._known, atomic=True)
            outcome = batch.answers[0]
            assert isinstance(outcome, (Enqueued, Deduped))  # atomic: a refusal was raised
            deduped = isinstance(outcome, Deduped)
            _audit(tx, actor, "schedule.trigger", name, None, {"job_id": outcome.id, "deduped": deduped})
            return outcome, batch

        outcome, batch = await self._enqueuing(operation)
        self._jobs.tell_added(batch)
        return outcome

    async def due(self, now: datetime) -> DueSchedules:
        at = to_us(now)

        def operation(tx: Tx) -> tuple[Sequence[Row], Row | None]:
            return tx.rows(DUE_SCHEDULES, {"until": at}), tx.row(NEXT_SCHEDULE, {"since": at})

        rows, soonest = await self._driver.read(operation)
        return DueSchedules(
            schedules=tuple(_schedule(row) for row in rows), next_due=instant(soonest[0]) if soonest else None
        )

    async def seed(self, schedule: Schedule, next_fire_at: datetime | None) -> bool:
        params = {**_as_read(schedule), **_next(next_fire_at)}
        return await self._driver.write(lambda tx: tx.change(SEED_SCHEDULE, params), label="seed") == 1

    async def fire(self, firing: Firing) -> Sequence[Tick] | None:
        schedule = firing.schedule
        assert schedule.next_fire_at is not None
        jobs = [self._job(schedule.name, tick.request) for tick in firing.ticks if tick.request is not None]
        params = {**_as_read(schedule), **_next(firing.next_fire_at), "was": to_us(schedule.next_fire_at)}

        def operation(tx: Tx) -> tuple[Sequence[Tick], Batch | None]:
            if tx.change(MOVE_SCHEDULE, params) != 1:
                raise _Raced
            batch = insert_jobs(tx, jobs, self._known, atomic=True) if jobs else None
            answers = iter(batch.answers if batch is not None else ())
            ticks = [_write_tick(tx, schedule.name, tick, answers) for tick in firing.ticks]
            fired = [tick.fire_at for tick in ticks if tick.outcome is TickOutcome.FIRED]
            outcome = {"outcome": _in_words(ticks[-1]), "fired_at": to_us(max(fired)) if fired else None}
            tx.change(WRITE_OUTCOME, {"name": schedule.name, **outcome})
            return ticks, batch

        try:
            ticks, batch = await self._enqueuing(operation, label="cron")
        except _Raced:
            return None
        if batch is not None:
            self._jobs.tell_added(batch)
        return ticks

    async def record_error(self, schedule: Schedule, fire_at: datetime | None, error: str) -> None:
        text = clean(error, limits.ERROR_TEXT_BYTES)

        def operation(tx: Tx) -> None:
            if tx.change(COUNT_SCHEDULE_ERROR, {**_as_read(schedule), "error": text}) and fire_at is not None:
                tick = PlannedTick(fire_at=fire_at, reason=text)
                tx.change(INSERT_TICK, _tick_params(schedule.name, tick, TickOutcome.ERROR, text, None))

        await self._driver.write(operation, label="schedule")

    async def invalidate(self, schedule: Schedule, error: str) -> bool:
        params = {**_as_read(schedule), "error": clean(error, limits.ERROR_TEXT_BYTES)}
        return await self._driver.write(lambda tx: tx.change(INVALIDATE_SCHEDULE, params), label="schedule") == 1

    async def ticks(self, name: str, *, limit: int = 50, before: datetime | None = None) -> Sequence[Tick]:
        check_name(name, "schedule")
        if type(limit) is not int or not 1 <= limit <= limits.PAGE:
            raise InvalidInput(f"limit {limit!r} is not within 1 … {limits.PAGE}", field="limit", reason="out_of_range")
        params = {"name": name, "until": None if before is None else to_us(before), "limit": limit}
        return [_tick(row) for row in await self._driver.read(lambda tx: tx.rows(LIST_TICKS, params))]

    async def count_ticks(self, name: str) -> int:
        check_name(name, "schedule")
        row = await self._driver.read(lambda tx: tx.row(COUNT_TICKS, {"name": name}))
        return 0 if row is None else int(row[0])

    def _job(self, name: str, request: EnqueueRequest) -> NewJob:
        job = check_request(request, payload_max=self._config.payload_max)
        return msgspec.structs.replace(job, tags=to_json([f"schedule:{name}"]), plain=False)

    async def _enqueuing(self, operation: Operation[T], *, label: str = "schedule") -> T:
        try:
            return await self._driver.write(operation, label=label)
        except BaseException:
            self._known.forget()
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """A row as it is written: settings and declaration in their stored form."""

    name: str
    state: str
    settings: Mapping[str, Any]
    declaration: Mapping[str, Any] | None
    version: int
    edited: Mapping[str, Mapping[str, Any]]


def _stored(row: Row) -> _Stored:
    return _Stored(
        name=row[0],
        settings=_read(row[1]),
        state=row[2],
        declaration=_read(row[9]) if row[9] else None,
        version=row[10],
        edited=_read(row[11]),
    )


def _read(text: str) -> dict[str, Any]:
    """A JSON object; an empty one where it is damaged, so that one bad row does not hide the others."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _schedule(row: Row) -> Schedule:
    """A row of `list_schedules`. Settings that cannot be read are empty, and so can never fire."""
    stored = _stored(row)

    def declaration(settings: Mapping[str, Any]) -> ScheduleDeclaration:
        try:
            return ScheduleDeclaration(stored.name, version=stored.version, **read_settings(settings))
        except (TypeError, KeyError, ValueError, OverflowError):
            return ScheduleDeclaration(stored.name, "", "", version=stored.version)

    return Schedule(
        name=stored.name,
        settings=declaration(stored.settings),
        state=ScheduleState(stored.state),
        revision=row[3],
        next_fire_at=instant(row[4]),
        last_fired_at=instant(row[5]),
        last_outcome=row[6],
        last_error=row[7],
        consecutive_errors=row[8],
        declared=None if stored.declaration is None else declaration(stored.declaration),
        edited={key: Edit(by=edit["by"], at=from_us(edit["at"])) for key, edit in stored.edited.items()},
        created_at=from_us(row[12]),
        updated_at=from_us(row[13]),
        updated_by=row[14],
    )


def _lock(tx: Tx, name: str) -> Row:
    """The row, which nobody else can change before this transaction ends."""
    row = tx.row(LOCK_SCHEDULE, {"name": name})
    if row is None:
        raise NotFound(f"there is no schedule {name!r}")
    return row


def _write(
    tx: Tx, row: _Stored, wanted: Mapping[str, Any], *, by: str, anew: bool = False, forgive: bool = False
) -> Schedule:
    """Write settings, with what follows from them for the next tick."""
    settings = {**row.settings, **wanted}
    changed = {key for key in wanted if row.settings.get(key, ()) != wanted[key]}
    switched = "enabled" in changed
    anew = anew or switched or bool(changed & TIMING)
    tx.change(
        WRITE_SCHEDULE,
        {
            "name": row.name,
            "settings": to_json(settings),
            "state": _state(settings) if anew else row.state,
            "declaration": None if row.declaration is None else to_json(row.declaration),
            "version": row.version,
            "edited": to_json(row.edited),
            "by": by,
            "anew": anew,
            "forgive": forgive or (switched and settings["enabled"]),
        },
    )
    return _schedule(_lock(tx, row.name))


def _state(settings: Mapping[str, Any]) -> str:
    return (ScheduleState.ACTIVE if settings["enabled"] else ScheduleState.DISABLED).value


def _full(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings as they were given, with defaults for those from after they were written."""
    found = ScheduleDeclaration("x", **read_settings(stored))
    return {name: getattr(found, name) for name in SETTINGS}


def _as_read(schedule: Schedule) -> dict[str, Any]:
    return {"name": schedule.name, "revision": schedule.revision}


def _next(at: datetime | None) -> dict[str, Any]:
    state = ScheduleState.FINISHED if at is None else ScheduleState.ACTIVE
    return {"next_fire_at": None if at is None else to_us(at), "state": state.value}


def _write_tick(tx: Tx, name: str, tick: PlannedTick, answers: Iterator[Answer]) -> Tick:
    """Write what became of a tick; `answers` are those to the requests, in order."""
    outcome, reason, job_id = TickOutcome.SKIPPED, tick.reason, None
    if tick.request is not None:
        answer = next(answers)
        assert isinstance(answer, (Enqueued, Deduped))  # atomic: a refusal was raised
        job_id = answer.id
        if isinstance(answer, Deduped):
            reason = HELD
        else:
            outcome = TickOutcome.FIRED
    if tx.change(INSERT_TICK, _tick_params(name, tick, outcome, reason, job_id)) != 1:
        raise _Raced
    return Tick(
        schedule=name,
        fire_at=tick.fire_at,
        through=tick.through,
        outcome=outcome,
        reason=reason,
        job_id=job_id,
        at=from_us(tx.now_us),
    )


def _tick_params(
    name: str, tick: PlannedTick, outcome: TickOutcome, reason: str | None, job_id: JobId | None
) -> dict[str, Any]:
    return {
        "name": name,
        "fire_at": to_us(tick.fire_at),
        "through": None if tick.through is None else to_us(tick.through),
        "outcome": outcome.value,
        "reason": reason,
        "job_id": job_id,
    }


def _tick(row: Row) -> Tick:
    schedule, fire_at, through, outcome, reason, job_id, at = row
    return Tick(
        schedule=schedule,
        fire_at=from_us(fire_at),
        through=instant(through),
        outcome=TickOutcome(outcome),
        reason=reason,
        job_id=None if job_id is None else JobId(job_id),
        at=from_us(at),
    )


def _in_words(tick: Tick) -> str:
    if tick.reason == HELD:
        return f"skipped: held by {tick.job_id}"
    return tick.outcome.value if tick.reason is None else f"{tick.outcome.value}: {tick.reason}"


def _audit(tx: Tx, actor: Actor, action: str, name: str, before: object, after: object) -> None:
    tx.change(INSERT_AUDIT, audit_params(actor, action, name, outcome="ok", before=before, after=after))
