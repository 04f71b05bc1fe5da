"""Taking jobs back from silent owners, and ending what is past its time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

from forge_jobs.clock import duration_us
from forge_jobs.storage import lifecycle
from forge_jobs.storage.backoff import crash_delay
from forge_jobs.storage.error import StorageError
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Row, Tx
from forge_jobs.storage.sql.rows import queue_settings
from forge_jobs.storage.sql.write import Locked, lock, locked, write_transition
from forge_jobs.storage.types.answers import Revived
from forge_jobs.storage.types.event import JobEvent
from forge_jobs.storage.types.finalize import Crashed, ErrorText
from forge_jobs.storage.types.job import ErrorKind
from forge_jobs.storage.types.queue import BackoffPolicy

log = logging.getLogger("forge_jobs.reaper")

STALE_JOBS = statement("stale_jobs")
EXPIRED_JOBS = statement("expired_jobs")
GET_QUEUE = statement("get_queue")


def revive_stale(
    tx: Tx, stale_after: timedelta, limit: int, max_crashes: Callable[[str], int], allowed: Callable[[], bool]
) -> tuple[list[Revived], list[JobEvent]]:
    """Revive up to `limit` jobs, oldest beat first. One that cannot be revived is logged and skipped."""
    revived: list[Revived] = []
    events: list[JobEvent] = []
    _ = tx.now_us  # the transaction has begun, so the store is there
    if not allowed():
        return revived, events
    for row in tx.rows(STALE_JOBS, {"stale": duration_us(stale_after), "limit": limit}):
        try:
            with tx.savepoint():
                done, event = _revive(tx, row, max_crashes)
        except (StorageError, ValueError, AssertionError):
            log.exception("revive_failed job_id=%s", row[0])
            continue
        revived.append(done)
        events.append(event)
    return revived, events


def expire_due(tx: Tx, limit: int) -> list[JobEvent]:
    """End waiting jobs past their `expires_at`, the longest overdue first."""
    events: list[JobEvent] = []
    for (job_id,) in tx.rows(EXPIRED_JOBS, {"limit": limit}):
        job = lock(tx, job_id)
        transition = lifecycle.expire(job.state) if job is not None else None
        if job is not None and transition is not None:
            events.append(write_transition(tx, job, transition))
    return events


def _revive(tx: Tx, row: Row, max_crashes: Callable[[str], int]) -> tuple[Revived, JobEvent]:
    job = locked(row)
    silent_s, label = row[15], row[16]
    transition = lifecycle.revive(
        job.state,
        Crashed(
            error=ErrorText(_message(job, silent_s, label), kind=ErrorKind.LOST_WORKER),
            delay=crash_delay(job.state.crashes + 1, _policy(tx, job.queue)),
            max_crashes=max_crashes(job.kind),
        ),
    )
    event = write_transition(tx, job, transition)
    status, reason = transition.state.status, transition.dead_reason
    return (
        Revived(
            job_id=job.id, queue=job.queue, kind=job.kind, status=status.value, dead_reason=reason and reason.value
        ),
        event,
    )


def _message(job: Locked, silent_s: int | None, label: str | None) -> str:
    worker = label or job.process
    if silent_s is None:
        return f"worker {worker} was gone after a restart of its host"
    return f"worker {worker} stopped heartbeating for {silent_s} s"


def _policy(tx: Tx, queue: str) -> BackoffPolicy:
    row = tx.row(GET_QUEUE, {"name": queue})
    return BackoffPolicy() if row is None else queue_settings(row, ()).backoff
