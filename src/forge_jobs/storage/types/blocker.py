"""Why a job does not run at the moment, or a queue or a schedule stands still."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class BlockerCode(StrEnum):
    """What stands in the way, most final first: what no waiting helps, what needs a person, what passes by itself."""

    UNKNOWN_ID = "unknown_id"
    """No such job, or it was purged."""
    UNKNOWN_QUEUE = "unknown_queue"
    UNKNOWN_SCHEDULE = "unknown_schedule"
    UNREADABLE = "unreadable"
    """Written by a newer version, or damaged."""
    FINISHED = "finished"
    """Done or dead."""
    EXPIRED = "expired"
    """Past its `expires_at`, not swept up yet."""
    CANCEL_REQUESTED = "cancel_requested"
    """It runs, and was asked to stop."""
    RUNNING_STALE = "running_stale"
    """Its worker is silent; the job will be taken back."""
    RUNNING_NO_SLOT = "running_no_slot"
    """Claimed, and not begun by its worker."""
    RUNNING = "running"
    LOOP_DEAD = "loop_dead"
    """The background loop that would move it on makes no progress anywhere."""
    SCHEDULE_INVALID = "schedule_invalid"
    SCHEDULE_FINISHED = "schedule_finished"
    SCHEDULE_DISABLED = "schedule_disabled"
    SCHEDULE_FAILING = "schedule_failing"
    """Its ticks meet errors."""
    NO_LEADER = "no_leader"
    """No worker fires schedules."""
    QUEUE_STOPPED = "queue_stopped"
    """Its total of workers is 0."""
    QUEUE_PAUSED = "queue_paused"
    QUEUE_FULL = "queue_full"
    """It takes in no more jobs."""
    QUEUE_UNSERVED = "queue_unserved"
    """No live process serves it."""
    KIND_UNSERVED = "kind_unserved"
    """No live process that serves the queue has a handler for the kind."""
    THREADS_ABANDONED = "threads_abandoned"
    """Handlers that would not end made its workers stop taking the kind."""
    WORKERS_FENCED = "workers_fenced"
    """Its workers live, but are cut off from the store."""
    WORKERS_QUIET = "workers_quiet"
    """An operator asked its workers to claim nothing."""
    NO_SLOTS = "no_slots"
    """Its workers have no slot open for the queue: no share of the total, or all are draining."""
    RATE_SCOPE_UNKNOWN = "rate_scope_unknown"
    """The rate limit that the kind is paid from does not exist."""
    QUEUE_COOLING_DOWN = "queue_cooling_down"
    THROTTLE_WAIT = "throttle_wait"
    """The upstream asked to come back later."""
    RETRY_WAIT = "retry_wait"
    SCHEDULED = "scheduled"
    """Not due yet."""
    HELD = "held"
    """The last tick made no job, since another held its key."""
    RATE_LIMITED = "rate_limited"
    RUNS_ALONE = "runs_alone"
    """It runs with nothing beside it, so a worker has to become idle first."""
    SLOTS_BUSY = "slots_busy"
    BEHIND_OTHERS = "behind_others"
    POLL_MODE = "poll_mode"
    """Workers are not told of new jobs, and find them by looking."""
    READY = "ready"
    """Nothing: it starts with the next claim."""
    IDLE = "idle"
    """Nothing: a queue without a job that is due."""


ORDER = {code: place for place, code in enumerate(BlockerCode)}
"""Where each code stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """One thing that stands in the way.

    `text` is a sentence for people. `since` and `until` are set as far as they are known; `remedy` is what to do, with
    a command where there is one, null where nothing is wrong.
    """

    code: BlockerCode
    text: str
    since: datetime | None = None
    until: datetime | None = None
    remedy: str | None = None


def most_final_first(blockers: list[Blocker]) -> list[Blocker]:
    """The blockers in the order of their codes."""
    return sorted(blockers, key=lambda one: ORDER[one.code])
