"""Fires schedules, in one process of the cluster.

The lease only spares the others the work. That a tick makes one job is seen to by its row, so two who believe to hold
the lease, or one that stood still for a week, change nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from forge_jobs import failpoints
from forge_jobs.clock import from_us, to_us
from forge_jobs.observe import Observer, tell
from forge_jobs.runtime import schedules
from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.runtime.handler import HandlerRegistry
from forge_jobs.runtime.lease import RENEWALS
from forge_jobs.runtime.loops.loop import Loop
from forge_jobs.runtime.routing import Router
from forge_jobs.storage.error import InvalidInput
from forge_jobs.storage.protocol import CLUSTER, Storage
from forge_jobs.storage.types.schedule import Schedule, Tick, TickOutcome

log = logging.getLogger("forge_jobs.cron")

PAUSE_S: Final = (0.1, 5.0)
"""Shortest and longest time between two passes."""
RETRY_S: Final = 1.0
"""How soon a schedule that met an error is tried again, more for every further one, up to the longest pause."""


@dataclass(slots=True)
class CronReport:
    """What one pass did: schedules whose next tick was found, ticks that made a job, rows of skipped ones, schedules
    that met an error; and when the next pass has something to do."""

    seeded: int = 0
    fired: int = 0
    skipped: int = 0
    errors: int = 0
    next_due: datetime | None = None

    def due_at(self, at: datetime | None) -> None:
        """Something is due at `at`."""
        if at is not None and (self.next_due is None or at < self.next_due):
            self.next_due = at


async def tick(env: RuntimeEnv) -> CronReport:
    """One pass, by the store's time."""
    report = await cron_tick_once(
        env.storage,
        env.router,
        from_us(env.clock.now_us()),
        handlers=env.handlers,
        max_attempts=env.config.max_attempts,
    )
    env.cron_due_us = None if report.next_due is None else to_us(report.next_due)
    return report


async def cron_tick_once(
    storage: Storage,
    router: Router,
    now: datetime,
    *,
    handlers: HandlerRegistry | None = None,
    max_attempts: int | None = None,
) -> CronReport:
    """One-shot: fire what is due at `now`, in the order of names. A fault in one schedule never stops the others."""
    due = await storage.schedules.due(now)
    report = CronReport(next_due=due.next_due)
    for schedule in due.schedules:
        try:
            if schedule.next_fire_at is None:
                await _seed(storage, schedule, now, report)
            else:
                firing = schedules.firing(schedule, now, router, handlers, max_attempts)
                failpoints.hit("cron.planned")
                ticks = await storage.schedules.fire(firing)
                if ticks is None:  # another was first, or our own try whose answer was lost: look again
                    report.due_at(now)
                else:
                    report.due_at(firing.next_fire_at)
                    _count(storage.observer, schedule, ticks, now, report)
        except Exception as error:
            report.errors += 1
            storage.observer.count("cron_errors", schedule.name)
            storage.observer.happened("cron_fault", schedule=schedule.name, error=error)
            await _keep(storage, schedule, now, error, report)
    return report


async def _seed(storage: Storage, schedule: Schedule, now: datetime, report: CronReport) -> None:
    first = schedules.first_after(schedule.settings, now)
    if await storage.schedules.seed(schedule, first):
        report.seeded += 1
        report.due_at(first)
    else:
        report.due_at(now)


def _count(observer: Observer, schedule: Schedule, ticks: Sequence[Tick], now: datetime, report: CronReport) -> None:
    for one in ticks:
        if one.outcome is TickOutcome.FIRED:
            report.fired += 1
            late_ms = round((now - one.fire_at).total_seconds() * 1000)
            observer.count("cron_fired", schedule.name)
            observer.happened("cron_fired", schedule=schedule.name, job_id=one.job_id, late_ms=late_ms)
            tell(log, logging.INFO, "cron_fired", schedule=schedule.name, job_id=one.job_id, late_ms=late_ms)
        else:
            report.skipped += 1
            observer.count("cron_skipped", schedule.name, str(one.reason))
            observer.happened("cron_skipped", schedule=schedule.name, reason=one.reason)
            tell(log, logging.INFO, "cron_skipped", schedule=schedule.name, reason=one.reason, job_id=one.job_id)


async def _keep(storage: Storage, schedule: Schedule, now: datetime, error: Exception, report: CronReport) -> None:
    """Write down why a schedule did not fire; stop it only if it cannot be read."""
    text = f"{type(error).__name__}: {error}"
    try:
        if _cannot_be_read(schedule):
            tell(log, logging.ERROR, "cron_invalid", schedule=schedule.name, error=str(error))
            await storage.schedules.invalidate(schedule, str(error))
            return
        tell(log, logging.WARNING, "cron_fault", schedule=schedule.name, error=text)
        await storage.schedules.record_error(schedule, schedule.next_fire_at, text)
    except Exception as second:
        tell(log, logging.WARNING, "cron_fault", schedule=schedule.name, error=f"{type(second).__name__}: {second}")
    report.due_at(now + timedelta(seconds=min(RETRY_S * 2 ** min(schedule.consecutive_errors, 8), PAUSE_S[1])))


def _cannot_be_read(schedule: Schedule) -> bool:
    try:
        schedules.expression(schedule.settings)
    except InvalidInput:
        return True
    return False


def pause_s(env: RuntimeEnv) -> float:
    """Until the soonest schedule is due; processes that do not hold the lease only ask for it."""
    health = env.health.loops.get(LOOP.name)
    if health is None or health.runs == 0:
        return 0.0
    if not health.leading:
        return min(env.config.lease_ttl_s / RENEWALS, PAUSE_S[1])
    if env.cron_due_us is None:
        return PAUSE_S[1]
    return min(max((env.cron_due_us - env.clock.now_us()) / 1e6, PAUSE_S[0]), PAUSE_S[1])


LOOP: Final = Loop("cron", pause_s, tick, leased=True, wake_on=CLUSTER, jitter=0.0, longest_pause_s=PAUSE_S[1])
