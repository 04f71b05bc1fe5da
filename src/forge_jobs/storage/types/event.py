"""What happened to jobs, for timelines and charts; and what people did, for the audit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec


class EventType(StrEnum):
    """The kinds of event. started - completed - failed (of running jobs) - retried - released = jobs in progress."""

    ENQUEUED = "enqueued"
    STARTED = "started"
    RETRIED = "retried"
    COMPLETED = "completed"
    FAILED = "failed"
    RELEASED = "released"
    SUPERSEDED = "superseded"
    REQUEUED = "requeued"


class JobEvent(msgspec.Struct, frozen=True):
    """One event. `at_us` is store time; `duration_us` the length of the run that ended, or how long one that started
    had waited since it could; `total_us` how long ago a completed job was enqueued.

    With `count` above 1 and no `job_id` it stands for that many events of the same minute.
    """

    at_us: int
    type: str
    queue: str
    kind: str
    job_id: str | None = None
    attempt: int | None = None
    cause: str | None = None
    duration_us: int | None = None
    count: int = 1
    total_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts, through which surface: `python`, `cli` or `http`."""

    name: str = "python"
    role: str = "admin"
    surface: str = "python"
    address: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One act of a person, written in the same transaction as the act."""

    at: datetime
    actor: Actor
    action: str
    target: str
    count: int
    outcome: str
    before: Any = None
    after: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """Part of the audit, newest first."""

    items: tuple[AuditRow, ...]
    next_cursor: str | None
    total: int
