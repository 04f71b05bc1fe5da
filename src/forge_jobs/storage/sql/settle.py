"""Recording what became of claimed jobs, under their fences.

A batch of Done is one statement. Any other outcome, and a batch in which a fence does not fit, is taken row by
row: read under the lock, decided by `lifecycle.settle`, written under the guard.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias

from forge_jobs.clock import duration_us
from forge_jobs.ids import JobId
from forge_jobs.storage import lifecycle
from forge_jobs.storage.protocol import Claim
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Tx, is_of_the_store
from forge_jobs.storage.sql.rate_limits import drain_bucket
from forge_jobs.storage.sql.rows import to_json
from forge_jobs.storage.sql.write import Locked, lock, write_transition
from forge_jobs.storage.types.event import JobEvent
from forge_jobs.storage.types.finalize import (
    APPLIED_DONE,
    Applied,
    Dead,
    Done,
    ErrorText,
    Finalize,
    Lost,
    Repeated,
    Settled,
    Throttled,
)
from forge_jobs.storage.types.job import ErrorKind, JobRecord, JobStatus

SETTLE_DONE = statement("settle_done")
GET_QUEUE = statement("get_queue")
WRITE_COOL_DOWN = statement("write_cool_down")
DECAY_COOL_DOWN = statement("decay_cool_down")

log = logging.getLogger("forge_jobs.settle")


@dataclass(slots=True)
class Settlements:
    """What one transaction of settlements came to: an answer each, jobs that are done, and other events."""

    answers: list[Settled]
    done: list[JobRecord] = field(default_factory=list)
    events: list[JobEvent] = field(default_factory=list)
    waiting_queues: set[str] = field(default_factory=set)
    """Queues that got a job back which is due now."""


Exchanged: TypeAlias = tuple[Settlements, list[Claim], int]
"""What one exchange came to, and store time."""


class _NotAllMine(Exception):
    pass


def settle_jobs(tx: Tx, items: Sequence[Finalize]) -> Settlements:
    """Settle `items` in order."""
    result = Settlements(answers=[])
    done = {item.job_id: item for item in items if type(item.outcome) is Done and item.job is not None}
    if done and not _settle_done(tx, done):
        done = {}
    if len(done) == len(items):  # nearly always
        result.answers = [APPLIED_DONE] * len(items)
        result.done = [item.job for item in items if item.job is not None]
    else:
        for item in items:
            if done.get(item.job_id) is item and item.job is not None:
                result.answers.append(APPLIED_DONE)
                result.done.append(item.job)
            else:
                result.answers.append(_settle_surely(tx, item, result))
    _decay(tx, {job.queue for job in result.done})
    return result


def _settle_done(tx: Tx, done: Mapping[JobId, Finalize]) -> bool:
    """Settle a batch of Done, or none of it if a fence does not fit."""
    claims = to_json({job_id: item.fence for job_id, item in done.items()})
    if len(done) == 1:
        return tx.change(SETTLE_DONE, {"claims": claims}) == 1
    try:
        with tx.savepoint():
            if tx.change(SETTLE_DONE, {"claims": claims}) != len(done):
                raise _NotAllMine
    except _NotAllMine:
        return False
    return True


def _settle_surely(tx: Tx, item: Finalize, result: Settlements) -> Settled:
    """Settle one; if its outcome cannot be written, end the job by what can, so that it never stays in progress."""
    try:
        with tx.savepoint():
            return _settle_one(tx, item, result)
    except Exception as error:
        if is_of_the_store(error):  # the whole transaction is tried again
            raise
        log.exception("settle_fault job_id=%s", item.job_id)
        text = ErrorText(f"its outcome could not be recorded ({type(error).__name__}: {error})", kind=ErrorKind.DEAD)
        return _settle_one(tx, Finalize(item.job_id, item.fence, Dead(text)), result)


def _settle_one(tx: Tx, item: Finalize, result: Settlements) -> Settled:
    job = lock(tx, item.job_id)
    if job is None:
        return Lost()
    if job.state.fence != item.fence:
        return Lost()
    if job.state.status is not JobStatus.IN_PROGRESS:
        return Repeated()
    transition = lifecycle.settle(job.state, item.outcome)
    result.events.append(write_transition(tx, job, transition))
    status = transition.state.status
    if isinstance(item.outcome, Throttled) and status is JobStatus.PENDING and item.outcome.cool_down:
        _cool_down(tx, job, item.outcome)
    if isinstance(item.outcome, Throttled) and item.outcome.scope is not None:
        drain_bucket(tx, item.outcome.scope, duration_us(item.outcome.delay) if item.outcome.hinted else 0)
    if status is JobStatus.DONE:
        _decay(tx, {job.queue})
    if status in lifecycle.WAITING and (transition.due_in is None or transition.due_in <= timedelta(0)):
        result.waiting_queues.add(job.queue)
    return Applied(status=status, dead_reason=transition.dead_reason)


def _cool_down(tx: Tx, job: Locked, throttled: Throttled) -> None:
    queue = tx.row(GET_QUEUE, {"name": job.queue})
    if queue is None or not queue[8]:
        return
    until = queue[11]
    window = lifecycle.CoolDown(
        throttle_attempts=queue[10], open_for=None if until is None else timedelta(microseconds=until - tx.now_us)
    )
    changed = lifecycle.cool_down(window, throttled)
    if changed is not None and changed.open_for is not None:
        params = {
            "name": job.queue,
            "throttle_attempts": changed.throttle_attempts,
            "throttled_until": tx.now_us + duration_us(changed.open_for),
        }
        tx.change(WRITE_COOL_DOWN, params)


def _decay(tx: Tx, queues: set[str]) -> None:
    grace = duration_us(lifecycle.COOL_DOWN_GRACE)
    for queue in queues:
        tx.change(DECAY_COOL_DOWN, {"name": queue, "grace": grace})
