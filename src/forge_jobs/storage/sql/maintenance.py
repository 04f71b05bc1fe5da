"""Retention, and the audit's reading side."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import asdict, dataclass, replace
from typing import Final

from forge_jobs import limits
from forge_jobs.names import check_name
from forge_jobs.storage.error import InvalidInput
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Driver, Tx
from forge_jobs.storage.sql.rows import audit_params, audit_row, to_json
from forge_jobs.storage.types.answers import CleanupReport
from forge_jobs.storage.types.event import Actor, AuditPage, AuditRow
from forge_jobs.text import clean

log = logging.getLogger("forge_jobs.cleanup")

LIST_QUEUES = statement("list_queues")
DELETE_FINISHED = statement("delete_finished")
DELETE_CHILDREN = statement("delete_children_of_jobs")
DELETE_PROGRESS_OF_JOBS = statement("delete_progress_of_jobs")
DELETE_LOG_OF_JOBS = statement("delete_log_of_jobs")
DELETE_EVENTS_OF_JOBS = statement("delete_events_of_jobs")
DELETE_OLD_EVENTS = statement("delete_old_events")
DELETE_OLD_AUDIT = statement("delete_old_audit")
DELETE_LAPSED_HOLDS = statement("delete_lapsed_holds")
DELETE_IDLE_LIMITS = statement("delete_idle_limits")
DELETE_OLD_TICKS = statement("delete_old_ticks")
DELETE_OLD_METRICS = statement("delete_old_metrics")
DELETE_OLD_PROCESS_METRICS = statement("delete_old_process_metrics")
LIST_AUDIT = statement("list_audit")
AUDIT_PAGE = statement("audit_page")
COUNT_AUDIT = statement("count_audit")
INSERT_AUDIT = statement("insert_audit")

NAME_BYTES: Final = 512

BATCH: Final = 100
"""A claim waits for the batch that is under way, and 500 rows made the slowest claims five times as slow."""
PAUSE_S: Final = 0.01
"""Between two batches others get the store."""
DAY_US: Final = 86_400_000_000
EVENTS_KEPT_DAYS: Final = 30
AUDIT_KEPT_DAYS: Final = 365
METRICS_KEPT_DAYS: Final = 30
PROCESS_METRICS_KEPT_DAYS: Final = 3
"""There are a dozen a minute for each process."""
IDLE_LIMITS_KEPT_DAYS: Final = 1
"""A keyed bucket that is full again is as good as a new one."""
TICKS_KEPT_DAYS: Final = 30


class SqlAudit:
    """Implements `AuditStore`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def list(self, *, limit: int = 50) -> list[AuditRow]:
        return await self._driver.read(lambda tx: [audit_row(row) for row in tx.rows(LIST_AUDIT, {"limit": limit})])

    async def page(
        self, *, limit: int = 50, cursor: str | None = None, actor: str | None = None, action: str | None = None
    ) -> AuditPage:
        chosen = {"actor": actor and clean(actor, NAME_BYTES), "action": action and clean(action, NAME_BYTES)}
        at, seq = (None, None) if cursor is None else _read_cursor(cursor)

        def operation(tx: Tx) -> AuditPage:
            rows = tx.rows(AUDIT_PAGE, {**chosen, "at": at, "seq": seq, "limit": limit + 1})
            total = tx.row(COUNT_AUDIT, chosen)
            last = rows[limit - 1] if len(rows) > limit else None
            return AuditPage(
                items=tuple(audit_row(row[:12]) for row in rows[:limit]),
                next_cursor=None if last is None else f"a1-{last[0]}-{last[12]}",
                total=total[0] if total else 0,
            )

        return await self._driver.read(operation)


def _read_cursor(cursor: str) -> tuple[int, int]:
    found = re.fullmatch(r"a1-(\d{1,18})-(\d{1,18})", cursor, re.ASCII)
    if found is None:
        raise InvalidInput(f"cursor {ascii(cursor)[:80]} is not one of ours", field="cursor", reason="invalid_cursor")
    return int(found[1]), int(found[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What to remove. With `queue` only finished jobs of that queue; days that are given take the place of those that
    queues keep."""

    queue: str | None = None
    done_older_days: float | None = None
    dead_older_days: float | None = None
    actor: Actor | None = None

    def __post_init__(self) -> None:
        for name in ("done_older_days", "dead_older_days"):
            days = getattr(self, name)
            low, high = limits.RETENTION_DAYS
            if days is not None and (type(days) not in (int, float) or not low <= days <= high):
                raise InvalidInput(f"{name} {days!r} is not within {low} … {high}", field=name, reason="out_of_range")
        if self.queue is not None:
            check_name(self.queue, "queue")


async def cleanup(driver: Driver, sweep: Sweep | None = None) -> CleanupReport:
    """Remove what retention lets go. A fault on one queue is logged and the next queue is swept.

    A person's act is audited twice: that it was begun, so that a trace is left if this process dies in it, and with
    what was removed once it is over.
    """
    sweep = sweep or Sweep()
    await _audit(driver, sweep, "begun")
    report, faults = await _finished_jobs(driver, sweep)
    if sweep.queue is None:
        report = await _everything_else(driver, report)
    await _audit(driver, sweep, "partly" if faults else "done", report)
    return report


async def _audit(driver: Driver, sweep: Sweep, outcome: str, report: CleanupReport | None = None) -> None:
    actor = sweep.actor
    if actor is None:
        return
    shown = {key: value for key, value in asdict(sweep).items() if key != "actor"}
    removed = {} if report is None else asdict(report)
    params = audit_params(
        actor,
        "store.cleanup",
        sweep.queue or "",
        count=sum(removed.values()),
        outcome=outcome,
        after={**shown, "removed": removed} if removed else shown,
    )
    await driver.write(lambda tx: tx.change(INSERT_AUDIT, params), label="cleanup")


async def _finished_jobs(driver: Driver, sweep: Sweep) -> tuple[CleanupReport, int]:
    """What was removed of each status, and how many queues could not be swept to the end."""
    report, faults = CleanupReport(), 0
    queues = await driver.read(lambda tx: [(row[0], row[2], row[3]) for row in tx.rows(LIST_QUEUES)])
    for queue, done_days, dead_days in queues:
        if sweep.queue is not None and queue != sweep.queue:
            continue
        done_days = done_days if sweep.done_older_days is None else sweep.done_older_days
        dead_days = dead_days if sweep.dead_older_days is None else sweep.dead_older_days
        for status, days in (("done", done_days), ("dead", dead_days)):
            if days is None:
                continue
            try:
                removed = await _sweep(driver, queue, status, days)
            except Exception:
                log.exception("cleanup_fault queue=%s status=%s", queue, status)
                faults += 1
                continue
            report = replace(report, **{status: getattr(report, status) + removed})
    return report, faults


async def _everything_else(driver: Driver, report: CleanupReport) -> CleanupReport:
    return replace(
        report,
        events=await _in_batches(driver, DELETE_OLD_EVENTS, EVENTS_KEPT_DAYS),
        audit=await _in_batches(driver, DELETE_OLD_AUDIT, AUDIT_KEPT_DAYS),
        unique_holds=await _in_batches(driver, DELETE_LAPSED_HOLDS, 0),
        rate_limits=await _in_batches(driver, DELETE_IDLE_LIMITS, IDLE_LIMITS_KEPT_DAYS),
        ticks=await _in_batches(driver, DELETE_OLD_TICKS, TICKS_KEPT_DAYS),
        metrics=await _in_batches(driver, DELETE_OLD_METRICS, METRICS_KEPT_DAYS)
        + await _in_batches(driver, DELETE_OLD_PROCESS_METRICS, PROCESS_METRICS_KEPT_DAYS),
    )


async def _sweep(driver: Driver, queue: str, status: str, days: float) -> int:
    def batch(tx: Tx) -> int:
        before = tx.now_us - round(days * DAY_US)
        params = {"queue": queue, "status": status, "before": before, "limit": BATCH}
        ids = [row[0] for row in tx.rows(DELETE_FINISHED, params)]
        if ids:
            for name in (DELETE_CHILDREN, DELETE_PROGRESS_OF_JOBS, DELETE_LOG_OF_JOBS, DELETE_EVENTS_OF_JOBS):
                tx.change(name, {"ids": to_json(ids)})
        return len(ids)

    removed = 0
    while True:
        gone = await driver.write(batch, label="cleanup")
        removed += gone
        if gone < BATCH:
            return removed
        await asyncio.sleep(PAUSE_S)


async def _in_batches(driver: Driver, name: str, days: int) -> int:
    removed = 0
    while True:
        gone = await driver.write(
            lambda tx: tx.change(name, {"before": tx.now_us - days * DAY_US, "limit": BATCH}), label="cleanup"
        )
        removed += gone
        if gone < BATCH:
            return removed
        await asyncio.sleep(PAUSE_S)
