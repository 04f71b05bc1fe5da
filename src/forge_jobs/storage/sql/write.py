"""Writing a decided transition down: read the row under the lock, decide elsewhere, write under its guard."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from forge_jobs import limits
from forge_jobs.clock import duration_us
from forge_jobs.ids import JobId
from forge_jobs.storage.lifecycle import WAITING, JobState, Transition
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Row, Tx
from forge_jobs.storage.sql.rows import job_state
from forge_jobs.storage.types.event import EventType, JobEvent
from forge_jobs.storage.types.finalize import ErrorText
from forge_jobs.storage.types.job import JobStatus
from forge_jobs.text import clean

LOCK_JOB = statement("lock_job")
WRITE_JOB = statement("write_job")
LAST_ERROR_SEQ = statement("last_error_seq")
INSERT_ERROR = statement("insert_error")
TRIM_ERRORS = statement("trim_errors")

LONGEST_US: Final = limits.DELAY_S[1] * 1_000_000
"""No delay puts a job further off than an enqueue could."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """A row that nobody else can change before this transaction ends."""

    id: JobId
    queue: str
    kind: str
    state: JobState
    enqueued_us: int
    started_us: int | None = None
    process: str | None = None
    dedupe_key: str | None = None


def lock(tx: Tx, job_id: JobId) -> Locked | None:
    """The row of this id, locked; None if there is none."""
    row = tx.row(LOCK_JOB, {"id": job_id})
    return None if row is None else locked(row)


def locked(row: Row) -> Locked:
    """A row of `lock_job`: id, queue, kind, the state's columns, started_at, process_id, dedupe_key,
    enqueued_at."""
    return Locked(
        id=JobId(row[0]),
        queue=row[1],
        kind=row[2],
        state=job_state(row[3:11]),
        started_us=row[11],
        process=row[12],
        dedupe_key=row[13],
        enqueued_us=row[14],
    )


def write_transition(tx: Tx, job: Locked, transition: Transition) -> JobEvent:
    """Write what was decided, guarded by the status and fence that were read; gives back its event."""
    changed = tx.change(WRITE_JOB, as_row(job, transition))
    assert changed == 1, f"job {job.id} changed under its lock"
    if transition.error is not None:
        add_error(tx, job, transition.error)
    return as_event(job, transition, tx.now_us)


def as_row(job: Locked, transition: Transition) -> dict[str, Any]:
    """The parameters of `write_job`."""
    was, state, error = job.state, transition.state, transition.error
    return {
        "id": job.id,
        "was_status": was.status.value,
        "was_fence": was.fence,
        "status": state.status.value,
        "attempts": state.attempts,
        "crashes": state.crashes,
        "throttles": state.throttles,
        "fence": state.fence,
        "alone": state.alone,
        "dead_reason": transition.dead_reason and transition.dead_reason.value,
        "due_in": _interval(transition.due_in),
        "waiting": state.status in WAITING,
        "finished": transition.finished,
        "cancel_requested": state.cancel_requested,
        "error": error and clean(error.message, limits.ERROR_TEXT_BYTES),
        "traceback": error and error.traceback and clean(error.traceback, limits.TRACEBACK_BYTES),
    }


def as_event(job: Locked, transition: Transition, now_us: int) -> JobEvent:
    """What timelines are told of it."""
    was = job.state
    ran = was.status is JobStatus.IN_PROGRESS and job.started_us is not None
    return JobEvent(
        now_us,
        transition.event.value,
        job.queue,
        job.kind,
        job.id,
        was.attempts,
        transition.cause,
        max(now_us - job.started_us, 0) if ran and job.started_us is not None else None,
        total_us=max(now_us - job.enqueued_us, 0) if transition.event is EventType.COMPLETED else None,
    )


def add_error(tx: Tx, job: Locked, error: ErrorText) -> None:
    """One more line of the job's history; the oldest beyond the limit go."""
    row = tx.row(LAST_ERROR_SEQ, {"id": job.id})
    seq = (row[0] if row else 0) + 1
    params: dict[str, Any] = {
        "id": job.id,
        "seq": seq,
        "attempt": job.state.attempts,
        "fence": job.state.fence,
        "process": job.process,
        "message": clean(error.message, limits.ERROR_TEXT_BYTES),
        "kind_of_error": error.kind.value,
    }
    tx.change(INSERT_ERROR, params)
    if seq > limits.ERROR_HISTORY:
        tx.change(TRIM_ERRORS, {"id": job.id, "seq": seq - limits.ERROR_HISTORY})


def _interval(duration: timedelta | None) -> int | None:
    return None if duration is None else min(duration_us(duration), LONGEST_US)
