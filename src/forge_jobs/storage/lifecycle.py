"""What may become of a job, decided here and nowhere else.

Pure: no clock, no store, no logging. A backend reads a row under its lock, asks here what an event makes
of it, and writes the answer down under the guard of the row's status and fence. Instants are not known
here, so a transition says `due_in` (from now) and `finished` (now), and the store fills them in.

    from          event                                   to
    -             enqueue                                 pending
    pending       claim                                   in_progress    fence + 1, attempt + 1
    failed        claim (its retry is due)                in_progress    fence + 1, attempt + 1
    in_progress   Done                                    done
    in_progress   Failed, attempts left / spent           failed / dead (exhausted)
    in_progress   Dead                                    dead (rejected)
    in_progress   Throttled, Released                     pending        attempt - 1
    in_progress   Crashed or revived, within bounds       failed         crash + 1
    in_progress   … crashes spent / attempts spent        dead (crashed / exhausted)
    in_progress   anything but Done, cancel requested     dead (cancelled)
    pending, failed   cancel / expire / replaced          dead (cancelled / expired / superseded)
    failed, dead  retry by an operator                    pending        attempts and crashes 0
    pending       run now                                 pending        due now
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, assert_never

from forge_jobs.storage.types.event import EventType
from forge_jobs.storage.types.finalize import (
    Crashed,
    Dead,
    Done,
    ErrorText,
    Failed,
    FinalizeOutcome,
    Released,
    Throttled,
)
from forge_jobs.storage.types.job import DeadReason, ErrorKind, JobStatus

WAITING: Final = frozenset({JobStatus.PENDING, JobStatus.FAILED})
FINISHED: Final = frozenset({JobStatus.DONE, JobStatus.DEAD})

NOW: Final = timedelta(0)
THROTTLE_COUNT_MAX: Final = 30
COOL_DOWN_GRACE: Final = timedelta(seconds=120)
"""A queue's throttle count is forgotten by a Done that comes this long after its window closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """The part of a row that decisions read. `alone`: its next crash would be its last, so it runs by itself."""

    status: JobStatus
    attempts: int = 0
    max_attempts: int = 5
    crashes: int = 0
    throttles: int = 0
    fence: int = 0
    cancel_requested: bool = False
    alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """What to write. `due_in` null leaves `scheduled_at`."""

    state: JobState
    event: EventType
    cause: str | None = None
    dead_reason: DeadReason | None = None
    due_in: timedelta | None = None
    error: ErrorText | None = None

    @property
    def finished(self) -> bool:
        return self.state.status in FINISHED


def settle(job: JobState, outcome: FinalizeOutcome) -> Transition:
    """What the owner's outcome makes of its running job.

    The caller has checked that the job is in progress under the owner's fence. A requested cancel turns
    every outcome but Done into `dead`/`cancelled`: a job that finished first stays finished.
    """
    assert job.status is JobStatus.IN_PROGRESS
    if isinstance(outcome, Done):
        return Transition(state=_to(job, JobStatus.DONE, throttles=0), event=EventType.COMPLETED)
    if isinstance(outcome, Crashed):
        return crash(job, outcome, cause="crashed", fence=job.fence)
    if job.cancel_requested:
        return _cancelled(job, getattr(outcome, "error", None))
    match outcome:
        case Failed(error=error, delay=delay):
            if job.attempts >= job.max_attempts:
                return _dead(job, DeadReason.EXHAUSTED, error)
            return Transition(
                state=_to(job, JobStatus.FAILED), event=EventType.RETRIED, cause="failed", due_in=delay, error=error
            )
        case Dead(error=error):
            return _dead(job, DeadReason.REJECTED, error)
        case Throttled(delay=delay):
            return Transition(
                state=_to(job, JobStatus.PENDING, attempts=_one_less(job), throttles=job.throttles + 1),
                event=EventType.RETRIED,
                cause="throttled",
                due_in=delay,
            )
        case Released(delay=delay):
            return Transition(
                state=_to(job, JobStatus.PENDING, attempts=_one_less(job)),
                event=EventType.RELEASED,
                cause=None if delay is None else "rate_limited",
                due_in=delay,
            )
        case _:
            assert_never(outcome)


def revive(job: JobState, outcome: Crashed) -> Transition:
    """What the reaper makes of a running job whose owner fell silent: a crash, under a new fence."""
    assert job.status is JobStatus.IN_PROGRESS
    return crash(job, outcome, cause="lost_worker", fence=job.fence + 1)


def crash(job: JobState, outcome: Crashed, *, cause: str, fence: int) -> Transition:
    """A crash counts apart from attempts, so that poison ends after a bounded number of workers."""
    job = replace(job, crashes=job.crashes + 1, fence=fence)
    if job.cancel_requested:
        return _cancelled(job, outcome.error)
    if job.crashes >= outcome.max_crashes:
        return _dead(job, DeadReason.CRASHED, outcome.error)
    if job.attempts >= job.max_attempts:
        return _dead(job, DeadReason.EXHAUSTED, outcome.error)
    return Transition(
        state=replace(job, status=JobStatus.FAILED, alone=job.crashes + 1 >= outcome.max_crashes),
        event=EventType.RETRIED,
        cause=cause,
        due_in=outcome.delay,
        error=outcome.error,
    )


def cancel(job: JobState) -> Transition | None:
    """A waiting job becomes `dead`/`cancelled`. None: it is running (request it) or finished (leave it)."""
    if job.status not in WAITING:
        return None
    return _finish_waiting(job, DeadReason.CANCELLED, EventType.FAILED, None)


def expire(job: JobState) -> Transition | None:
    """A waiting job past its `expires_at` becomes `dead`/`expired`; any other is left alone."""
    if job.status not in WAITING:
        return None
    error = ErrorText("expired before it was run", kind=ErrorKind.EXPIRED)
    return _finish_waiting(job, DeadReason.EXPIRED, EventType.FAILED, error)


def supersede(job: JobState) -> Transition | None:
    """A waiting holder of a dedupe key gives way to its replacement; a running or finished one does not."""
    if job.status not in WAITING:
        return None
    return _finish_waiting(job, DeadReason.SUPERSEDED, EventType.SUPERSEDED, None)


def retry(job: JobState, due_in: timedelta = NOW) -> Transition | None:
    """An operator's retry of a failed or dead job: pending, due now or later, a fresh budget. Its history stays."""
    if job.status not in (JobStatus.FAILED, JobStatus.DEAD):
        return None
    state = replace(job, status=JobStatus.PENDING, attempts=0, crashes=0, cancel_requested=False, alone=False)
    return Transition(state=state, event=EventType.REQUEUED, due_in=due_in)


def run_now(job: JobState) -> bool:
    """Whether the job may be made due now: only a pending one."""
    return job.status is JobStatus.PENDING


def may_delete(job: JobState) -> bool:
    """Whether the row may go: never while it runs."""
    return job.status is not JobStatus.IN_PROGRESS


@dataclass(frozen=True, slots=True, kw_only=True)
class CoolDown:
    """A queue's window: how many limiter events it counted, and how long from now it is still open."""

    throttle_attempts: int
    open_for: timedelta | None


def cool_down(window: CoolDown, throttled: Throttled) -> CoolDown | None:
    """What a throttle makes of the queue's window; None leaves it.

    It counts limiter events, not slots: inside an open window nothing changes, except that a longer hint
    extends it. An event with a hint raises the count at most to 1, since the upstream said how long to wait.
    """
    is_open = window.open_for is not None and window.open_for > NOW
    if is_open:
        assert window.open_for is not None
        if throttled.hinted and throttled.delay > window.open_for:
            return replace(window, open_for=throttled.delay)
        return None
    raised = min(window.throttle_attempts + 1, THROTTLE_COUNT_MAX)
    if throttled.hinted:
        raised = max(window.throttle_attempts, min(raised, 1))
    return CoolDown(throttle_attempts=raised, open_for=throttled.delay)


def _one_less(job: JobState) -> int:
    return max(job.attempts - 1, 0)


def _to(job: JobState, status: JobStatus, **changes: int) -> JobState:
    return replace(job, status=status, **changes)  # type: ignore[arg-type]


def _dead(job: JobState, reason: DeadReason, error: ErrorText) -> Transition:
    return Transition(
        state=_to(job, JobStatus.DEAD), event=EventType.FAILED, cause=reason.value, dead_reason=reason, error=error
    )


def _cancelled(job: JobState, error: ErrorText | None) -> Transition:
    message = "cancelled while running" if error is None else f"cancelled while running: {error.message}"
    entry = ErrorText(message, error.traceback if error else None, ErrorKind.CANCELLED)
    return _dead(job, DeadReason.CANCELLED, entry)


def _finish_waiting(job: JobState, reason: DeadReason, event: EventType, error: ErrorText | None) -> Transition:
    return Transition(state=_to(job, JobStatus.DEAD), event=event, cause=reason.value, dead_reason=reason, error=error)
