"""A job, from the request to the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, TypeAlias

import msgspec

from forge_jobs.clock import from_us
from forge_jobs.ids import JobId
from forge_jobs.storage.types.unset import UNSET


class JobStatus(StrEnum):
    """Where a job stands. `failed` waits for its next retry; `dead` finished without success."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    DONE = "done"
    FAILED = "failed"
    DEAD = "dead"


class DeadReason(StrEnum):
    """Why a dead job is dead; null on every other status."""

    EXHAUSTED = "exhausted"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    CRASHED = "crashed"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"


class ErrorKind(StrEnum):
    """What sort of failure an entry of the error history is."""

    FAILED = "failed"
    DEAD = "dead"
    TIMEOUT = "timeout"
    CRASH = "crash"
    LOST_WORKER = "lost_worker"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class OnConflict(StrEnum):
    """What an enqueue does when its dedupe key is held."""

    SKIP = "skip"
    REPLACE = "replace"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class EnqueueRequest:
    """One job to be added.

    Durations are seconds or `timedelta`; instants are aware datetimes. Give `run_at` or `delay`, not both;
    `expires_at` or `ttl`, not both. A lower `priority` is claimed first (-1000 … 1000). `max_attempts` counts
    runs (1 … 1000; the handler's own, else 5). A `dedupe_key` (1 … 255 printable characters) is held while its
    job is pending, in progress or failed, and with `unique_for` (1 s … 366 d) until that long after the enqueue.
    Checked when it is enqueued, before the store is touched.
    """

    kind: str
    payload: Any = field(default_factory=dict)
    _: KW_ONLY
    queue: str | None = None
    priority: int = 0
    max_attempts: int | None = None
    dedupe_key: str | None = None
    on_conflict: OnConflict | Literal["skip", "replace", "error"] = OnConflict.SKIP
    unique_for: timedelta | float | None = None
    run_at: datetime | None = None
    delay: timedelta | float | None = None
    expires_at: datetime | None = None
    ttl: timedelta | float | None = None
    id: str | None = None
    tags: Sequence[str] = ()
    trace: Mapping[str, str] | None = None


class NewJob(msgspec.Struct, frozen=True):
    """A checked request in its stored form. Instants and durations are microseconds.

    A struct: it costs a fifth of a frozen dataclass, and ten thousand are made for a bulk.
    """

    id: JobId
    queue: str
    kind: str
    payload: str
    priority: int
    max_attempts: int
    run_at_us: int | None = None
    delay_us: int = 0
    expires_at_us: int | None = None
    ttl_us: int | None = None
    dedupe_key: str | None = None
    unique_for_us: int | None = None
    tags: str | None = None
    trace: str | None = None
    parent_id: str | None = None
    on_conflict: str = "skip"
    plain: bool = False
    """Nothing beyond the first six fields was given, save perhaps a parent."""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The job is in the store. `repeated`: it already was, by an earlier try with the same id and content."""

    id: JobId
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Deduped:
    """The dedupe key is held by job `id`, which is in `status`; nothing was added."""

    id: JobId
    status: JobStatus


EnqueueOutcome: TypeAlias = Enqueued | Deduped


class JobRecord(msgspec.Struct, frozen=True, array_like=True):
    """A claimed job: what its worker needs to run it. `(id, fence)` is the identity of the claim.

    A struct rather than a dataclass: one is built for every job run, and costs 0.2 µs instead of 3. Read from a JSON
    array of its fields in this order.
    """

    id: JobId
    queue: str
    kind: str
    payload: str
    attempts: int
    max_attempts: int
    crashes: int
    throttles: int
    fence: int
    priority: int
    enqueued_us: int
    scheduled_us: int
    started_us: int
    dedupe_key: str | None
    parent_id: str | None
    trace: str | None

    @property
    def enqueued_at(self) -> datetime:
        return from_us(self.enqueued_us)

    @property
    def scheduled_at(self) -> datetime:
        return from_us(self.scheduled_us)


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """A job as people see it. Unknown words from a newer version stay text."""

    id: JobId
    queue: str
    kind: str
    status: str
    priority: int
    attempts: int
    max_attempts: int
    crashes: int
    throttles: int
    fence: int
    enqueued_at: datetime
    scheduled_at: datetime
    expires_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    heartbeat_at: datetime | None
    process_id: str | None
    host_id: str | None
    dedupe_key: str | None
    dead_reason: str | None
    last_error: str | None
    cancel_requested_at: datetime | None
    tags: tuple[str, ...]
    parent_id: str | None
    payload_text: str
    worker: str | None = None
    schedule: str | None = None

    @property
    def payload(self) -> Any:
        """The payload as the handler gets it."""
        from forge_jobs.payload import decode_payload

        return decode_payload(self.payload_text)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorEntry:
    """One line of a job's error history, oldest first, at most 32 kept."""

    at: datetime
    attempt: int
    fence: int
    process: str | None
    message: str
    kind_of_error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The newest progress that the current run reported."""

    current: float
    total: float | None
    message: str | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDetail:
    """Everything about one job."""

    row: JobRow
    history: tuple[ErrorEntry, ...]
    traceback: str | None
    progress: Progress | None
    trace: Mapping[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs a list or a bulk act is about. An absent field does not restrict; an empty list matches nothing.

    `search` is a case-insensitive literal part of the payload text, `error` of the last error; `since` and `until`
    bound `enqueued_at`, both inclusive. `process` is the host id or process id of the run, `parent` the job that
    enqueued it, `schedule` the schedule that made it.
    """

    ids: tuple[str, ...] | None = None
    queues: tuple[str, ...] | None = None
    kinds: tuple[str, ...] | None = None
    statuses: tuple[str, ...] | None = None
    dead_reasons: tuple[str, ...] | None = None
    key: str | None = None
    tag: str | None = None
    search: str | None = None
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    process: str | None = None
    parent: str | None = None
    schedule: str | None = None

    @property
    def is_everything(self) -> bool:
        """True when nothing restricts it."""
        return self == JobFilter()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChange:
    """What to change of a job that waits; what is not given stays. An `expires_at` of None takes the end away."""

    priority: int = UNSET
    run_at: datetime = UNSET
    max_attempts: int = UNSET
    queue: str = UNSET
    expires_at: datetime | None = UNSET


class JobOrder(StrEnum):
    """Orders of a list: `newest` enqueued first; `scheduled` soonest first, for jobs that wait; `future` the same of
    pending ones whose time has not come; `completed` latest ended first, for jobs that ended."""

    NEWEST = "newest"
    SCHEDULED = "scheduled"
    FUTURE = "future"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class KindCounts:
    """How many jobs of a kind a queue holds, but for those that are done."""

    queue: str
    kind: str
    waiting: int = 0
    in_progress: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """How one dead job ended."""

    id: JobId
    queue: str
    kind: str
    error: str | None
    reason: str | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of jobs, newest id first; `next_cursor` is opaque and null on the last page, `total` null if it was
    not asked for. Where counting took too long it is null, and there are `total_at_least`."""

    items: tuple[JobRow, ...]
    next_cursor: str | None
    total: int | None
    total_at_least: int | None = None
