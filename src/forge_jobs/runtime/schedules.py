"""What a schedule is to do now: decided from what was read, without a clock and without a store."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from forge_jobs.clock import from_us
from forge_jobs.cron_expr import CronExpr, Fire, parse
from forge_jobs.runtime.handler import HandlerRegistry
from forge_jobs.runtime.routing import Router, fill
from forge_jobs.storage.error import NotFound
from forge_jobs.storage.protocol import PYTHON, Storage
from forge_jobs.storage.schedule_check import SKIP_GRACE_S, misfire
from forge_jobs.storage.types.event import Actor
from forge_jobs.storage.types.job import EnqueueOutcome, EnqueueRequest
from forge_jobs.storage.types.process import ProcessRow
from forge_jobs.storage.types.schedule import Firing, PlannedTick, Schedule, ScheduleDeclaration, ScheduleState

MISFIRE: Final = "misfire"
"""The reason of a tick that was too late."""
MOMENT: Final = timedelta(microseconds=1)


def expression(settings: ScheduleDeclaration) -> CronExpr:
    """The schedule's expression.

    Raises:
        InvalidInput: it, or its zone, cannot be read (any more).
    """
    return parse(settings.expr, settings.zone, settings.gap, settings.fold)


def first_after(settings: ScheduleDeclaration, now: datetime) -> datetime | None:
    """The schedule's first tick after `now`, from its `starts_at` on; None if there is none before its `ends_at`."""
    return next((fire.at for fire in fires_after(settings, now, 1)), None)


def fires_after(settings: ScheduleDeclaration, now: datetime, n: int) -> list[Fire]:
    """The schedule's next `n` ticks after `now`, fewer if it ends before."""
    after = now if settings.starts_at is None else max(now, settings.starts_at - MOMENT)
    found = expression(settings).preview(after, n)
    return [fire for fire in found if settings.ends_at is None or fire.at < settings.ends_at]


def plan(schedule: Schedule, now: datetime) -> tuple[list[datetime], list[datetime]]:
    """The ticks of a due schedule that fire now, and those that are skipped, of each run the first and the last.

    The stored tick is one, whatever the expression says today. Of a long row of missed ticks only the newest are looked
    at.
    """
    settings = schedule.settings
    assert schedule.next_fire_at is not None
    policy, most = misfire(settings.misfire)
    until = now if settings.ends_at is None else min(now, settings.ends_at - MOMENT)
    later = [fire.at for fire in expression(settings).newest(schedule.next_fire_at, until, most + 1)]
    due = later if len(later) > most else [schedule.next_fire_at, *later]
    grace = settings.misfire_grace_s if settings.misfire_grace_s is not None or policy != "skip" else SKIP_GRACE_S
    in_time = [at for at in due[-most:] if grace is None or now - at <= timedelta(seconds=grace)]
    late = due[: len(due) - len(in_time)]
    if late and len(later) > most:
        late.insert(0, schedule.next_fire_at)
    return in_time, late


def firing(
    schedule: Schedule, now: datetime, router: Router, handlers: HandlerRegistry | None, max_attempts: int | None
) -> Firing:
    """What is to be written of a due schedule."""
    fires, skipped = plan(schedule, now)
    ticks = []
    if skipped:
        first, last = skipped[0], skipped[-1]
        ticks.append(PlannedTick(fire_at=first, reason=MISFIRE, through=last if last > first else None))
    ticks += [
        PlannedTick(fire_at=at, request=request(schedule, at, router, handlers, max_attempts=max_attempts))
        for at in fires
    ]
    return Firing(schedule=schedule, ticks=tuple(ticks), next_fire_at=first_after(schedule.settings, now))


def request(
    schedule: Schedule,
    fire_at: datetime,
    router: Router,
    handlers: HandlerRegistry | None = None,
    *,
    max_attempts: int | None = None,
    force: bool = False,
) -> EnqueueRequest:
    """The job of a tick. With `force` it goes without a key."""
    settings = schedule.settings
    key = settings.dedupe_key or (f"schedule:{schedule.name}" if settings.skip_if_running else None)
    job = EnqueueRequest(
        settings.kind,
        settings.payload,
        queue=settings.queue,
        priority=settings.priority,
        max_attempts=settings.max_attempts,
        dedupe_key=None if force else key,
        delay=random.uniform(0, settings.jitter_s) if settings.jitter_s else None,  # noqa: S311
        trace={"schedule": schedule.name, "fire_at": fire_at.isoformat()},
    )
    return fill(job, router, handlers, max_attempts=max_attempts)


async def trigger(
    storage: Storage,
    router: Router,
    name: str,
    *,
    handlers: HandlerRegistry | None = None,
    max_attempts: int | None = None,
    force: bool = False,
    actor: Actor = PYTHON,
) -> EnqueueOutcome:
    """Enqueue one job of the schedule now, on the way of its ticks, which are not touched. `force` ignores its key.

    Raises:
        NotFound: there is no such schedule.
    """
    schedule = await storage.schedules.get(name)
    if schedule is None:
        raise NotFound(f"there is no schedule {name!r}")
    now = from_us(storage.clock.now_us())
    job = request(schedule, now, router, handlers, max_attempts=max_attempts, force=force)
    return await storage.schedules.trigger(name, job, actor=actor)


def undeclared(schedules: Iterable[Schedule], processes: Sequence[ProcessRow]) -> set[str]:
    """The schedules that code declared once and no live process declares today; none if no process lives."""
    live = [row for row in processes if row.live]
    declared = {name for row in live for name in row.info.schedules}
    return {one.name for one in schedules if live and one.declared is not None and one.name not in declared}


async def is_led(storage: Storage) -> bool:
    """Whether a process runs the loop that fires schedules."""
    return any(lease.name == "cron" for lease in await storage.leases.list())


def why_silent(schedule: Schedule, *, led: bool) -> str | None:
    """Why the schedule does not fire, or did not the last time; None if nothing keeps it. `led`: a process runs the
    loop that fires schedules."""
    match schedule.state:
        case ScheduleState.DISABLED:
            edit = schedule.edited.get("enabled")
            return "disabled" if edit is None else f"disabled by {edit.by}"
        case ScheduleState.INVALID:
            return f"invalid: {schedule.last_error}"
        case ScheduleState.FINISHED:
            return "finished: no tick is left before its ends_at"
    if not led:
        return "no live worker fires schedules"
    if schedule.consecutive_errors:
        return f"error: {schedule.last_error}"
    outcome = schedule.last_outcome or ""
    return outcome if outcome.startswith("skipped") else None
