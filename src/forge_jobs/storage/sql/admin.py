"""What an operator does to jobs: cancel, delete, retry, run now; one by one or by filter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from forge_jobs.ids import JobId
from forge_jobs.storage import lifecycle
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Tx
from forge_jobs.storage.sql.rows import audit_params
from forge_jobs.storage.sql.write import Locked, lock, write_transition
from forge_jobs.storage.types.answers import (
    CancelOutcome,
    DeleteOutcome,
    NotRetryable,
    NotWaiting,
    Retried,
    RetryOutcome,
    SlotHeld,
)
from forge_jobs.storage.types.event import Actor, JobEvent
from forge_jobs.storage.types.job import JobStatus

REQUEST_CANCEL = statement("request_cancel")
MAKE_DUE = statement("make_due")
DELETE_JOB = statement("delete_job")
DELETE_ERRORS = statement("delete_errors")
DELETE_PROGRESS = statement("delete_progress")
DELETE_LOG = statement("delete_log")
DELETE_EVENTS = statement("delete_events")
FREE_HOLD = statement("free_hold")
KEY_HOLDER = statement("key_holder")
WAITING_SETTINGS = statement("waiting_settings")
CHANGE_JOB = statement("change_job")
ENSURE_QUEUE = statement("ensure_queue")
INSERT_AUDIT = statement("insert_audit")


@dataclass(slots=True)
class Effects:
    """What to tell once the change is committed: events, the queues that have something new, or will have."""

    events: list[JobEvent] = field(default_factory=list)
    due: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)
    deleted: set[JobId] = field(default_factory=set)


def cancel(tx: Tx, job_id: JobId, effects: Effects) -> CancelOutcome:
    job = lock(tx, job_id)
    if job is None:
        return CancelOutcome.NOT_FOUND
    transition = lifecycle.cancel(job.state)
    if transition is not None:
        effects.events.append(write_transition(tx, job, transition))
        _free_hold(tx, job)
        return CancelOutcome.CANCELLED
    if job.state.status is JobStatus.IN_PROGRESS:
        tx.change(REQUEST_CANCEL, {"id": job_id})
        _free_hold(tx, job)
        return CancelOutcome.CANCEL_REQUESTED
    return CancelOutcome.ALREADY_FINISHED


def delete(tx: Tx, job_id: JobId, effects: Effects) -> DeleteOutcome:
    job = lock(tx, job_id)
    if job is None:
        return DeleteOutcome.NOT_FOUND
    if not lifecycle.may_delete(job.state):
        tx.change(REQUEST_CANCEL, {"id": job_id})
        _free_hold(tx, job)
        return DeleteOutcome.CANCEL_REQUESTED
    for name in (DELETE_JOB, DELETE_ERRORS, DELETE_PROGRESS, DELETE_LOG, DELETE_EVENTS):
        tx.change(name, {"id": job_id})
    _free_hold(tx, job)
    effects.deleted.add(job_id)
    return DeleteOutcome.DELETED


@dataclass(frozen=True, slots=True)
class Pace:
    """So many jobs a second are to be due, the first at `start_us`; `before` are due already, or will be."""

    per_s: float
    start_us: int
    before: int = 0

    def due_in(self, now_us: int, count: int) -> timedelta:
        """When the next job is due, after `count` more."""
        due_us = self.start_us + round((self.before + count) / self.per_s * 1_000_000)
        return timedelta(microseconds=max(due_us - now_us, 0))


def retry(tx: Tx, job_id: JobId, effects: Effects, due_in: timedelta = lifecycle.NOW) -> RetryOutcome:
    job = lock(tx, job_id)
    if job is None:
        return NotRetryable(None)
    transition = lifecycle.retry(job.state, due_in)
    if transition is None:
        return NotRetryable(job.state.status.value)
    if job.dedupe_key is not None:
        tx.reserve([job.dedupe_key], wait=True)
        holder = tx.row(KEY_HOLDER, {"key": job.dedupe_key, "id": job_id})
        if holder is not None:
            return SlotHeld(JobId(holder[0]))
    effects.events.append(write_transition(tx, job, transition))
    (effects.later if due_in else effects.due).add(job.queue)
    return Retried()


def run_now(tx: Tx, job_id: JobId, effects: Effects) -> bool:
    job = lock(tx, job_id)
    if job is None or not lifecycle.run_now(job.state):
        return False
    tx.change(MAKE_DUE, {"id": job_id})
    effects.due.add(job.queue)
    return True


def change(tx: Tx, job_id: JobId, wanted: dict[str, Any], actor: Actor) -> tuple[NotWaiting | None, str | None]:
    """Change a job that waits; why not, and the queue that may have something new to do."""
    job = lock(tx, job_id)
    row = tx.row(WAITING_SETTINGS, {"id": job_id})
    if job is None or row is None:
        return NotWaiting(None), None
    if job.state.status not in lifecycle.WAITING:
        return NotWaiting(job.state.status.value), None
    before = dict(zip(("priority", "scheduled_at", "max_attempts", "queue", "expires_at"), row, strict=True))
    after = {**before, **wanted}
    if after["queue"] != before["queue"]:
        tx.change(ENSURE_QUEUE, {"name": after["queue"]})
    tx.change(CHANGE_JOB, {**after, "id": job_id})
    changed = [key for key in after if after[key] != before[key]]
    shown = ({key: before[key] for key in changed}, {key: after[key] for key in changed})
    tx.change(
        INSERT_AUDIT, audit_params(actor, "job.change", job_id, outcome="changed", before=shown[0], after=shown[1])
    )
    return None, after["queue"]


def _free_hold(tx: Tx, job: Locked) -> None:
    """A user's cancel or delete gives the dedupe key back, `unique_for` or not."""
    if job.dedupe_key is not None:
        tx.change(FREE_HOLD, {"key": job.dedupe_key, "id": job.id})


def apply_to(
    tx: Tx, action: str, job_ids: list[JobId], skipped: Counter[str], effects: Effects, pace: Pace | None = None
) -> int:
    """`action` for each job; how many changed. Those that it does not fit are counted in `skipped` by reason. With a
    pace the action is `retry`."""
    act = ACTIONS[action]
    changed = 0
    for job_id in job_ids:
        if pace is None:
            refusal = act(tx, job_id, effects)
        else:
            refusal = _retry_one(tx, job_id, effects, pace.due_in(tx.now_us, changed))
        if refusal is None:
            changed += 1
        else:
            skipped[refusal] += 1
    return changed


def _cancel_one(tx: Tx, job_id: JobId, effects: Effects) -> str | None:
    outcome = cancel(tx, job_id, effects)
    return None if outcome in (CancelOutcome.CANCELLED, CancelOutcome.CANCEL_REQUESTED) else outcome.value


def _delete_one(tx: Tx, job_id: JobId, effects: Effects) -> str | None:
    outcome = delete(tx, job_id, effects)
    return None if outcome is DeleteOutcome.DELETED else outcome.value


def _retry_one(tx: Tx, job_id: JobId, effects: Effects, due_in: timedelta = lifecycle.NOW) -> str | None:
    match retry(tx, job_id, effects, due_in):
        case Retried():
            return None
        case SlotHeld():
            return "slot_held"
        case NotRetryable(status=status):
            return f"is_{status}" if status else "not_found"


def _run_now_one(tx: Tx, job_id: JobId, effects: Effects) -> str | None:
    return None if run_now(tx, job_id, effects) else "not_pending"


ACTIONS: Final[dict[str, Callable[[Tx, JobId, Effects], str | None]]] = {
    "cancel": _cancel_one,
    "delete": _delete_one,
    "retry": _retry_one,
    "run_now": _run_now_one,
}
