"""Retention, and the audit's reading side."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Final

from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Driver, Tx
from forge_jobs.storage.sql.rows import audit_row, to_json
from forge_jobs.storage.types.answers import CleanupReport
from forge_jobs.storage.types.event import AuditRow

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


async def cleanup(driver: Driver) -> CleanupReport:
    """Remove what retention lets go. A fault on one queue is logged and the next queue is swept."""
    report = CleanupReport()
    limits = await driver.read(lambda tx: [(row[0], row[2], row[3]) for row in tx.rows(LIST_QUEUES)])
    for queue, done_days, dead_days in limits:
        for status, days in (("done", done_days), ("dead", dead_days)):
            if days is None:
                continue
            try:
                removed = await _sweep(driver, queue, status, days)
            except Exception:
                log.exception("cleanup_fault queue=%s status=%s", queue, status)
                continue
            report = replace(report, **{status: getattr(report, status) + removed})
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
