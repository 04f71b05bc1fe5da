"""Answers to what people ask of jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from forge_jobs.ids import JobId


class CancelOutcome(StrEnum):
    """What became of a cancel."""

    CANCELLED = "cancelled"
    CANCEL_REQUESTED = "cancel_requested"
    ALREADY_FINISHED = "already_finished"
    NOT_FOUND = "not_found"


class DeleteOutcome(StrEnum):
    """What became of a delete. A running job is asked to stop; it ends `dead` and stays until a second delete."""

    DELETED = "deleted"
    CANCEL_REQUESTED = "cancel_requested"
    NOT_FOUND = "not_found"


@dataclass(frozen=True, slots=True)
class Retried:
    """The job is pending again, with a fresh budget."""


@dataclass(frozen=True, slots=True)
class SlotHeld:
    """Another job holds the dedupe key, so this one stays as it is."""

    holder: JobId


@dataclass(frozen=True, slots=True)
class NotRetryable:
    """The job is pending, in progress, done or gone (`status` null); nothing changed."""

    status: str | None


@dataclass(frozen=True, slots=True)
class NotWaiting:
    """The job runs, has ended or is gone (`status` null); nothing changed."""

    status: str | None


RetryOutcome = Retried | SlotHeld | NotRetryable


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkReport:
    """What a bulk act did: jobs changed, and jobs skipped by reason."""

    changed: int
    skipped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outstanding:
    """What is left to do of some queues and kinds, all processes together. Paused queues do not count as ready."""

    ready: int
    running: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Revived:
    """A job taken from a silent owner, and the status it is in now."""

    job_id: JobId
    queue: str
    kind: str
    status: str
    dead_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupReport:
    """Rows that retention removed."""

    done: int = 0
    dead: int = 0
    events: int = 0
    audit: int = 0
    unique_holds: int = 0
    rate_limits: int = 0
    """Keyed buckets that are full and unused."""
    ticks: int = 0
    metrics: int = 0
