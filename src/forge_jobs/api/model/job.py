"""Jobs in requests and answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from forge_jobs import limits
from forge_jobs.api.model.common import Asked, Cursor, Given, Instant, Limit, Name, Page, Shown
from forge_jobs.storage.types.job import DeadReason, JobStatus

ACTIONS = Literal["retry", "cancel", "delete", "run_now"]


class JobRow(Shown):
    """A job in a list. Its secrets are hidden."""

    id: str
    queue: str
    kind: str
    status: str
    priority: int
    attempts: int
    max_attempts: int
    crashes: int
    fence: int
    enqueued_at: datetime
    scheduled_at: datetime
    expires_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    heartbeat_at: datetime | None
    process_id: str | None
    worker: str | None
    dedupe_key: str | None
    dead_reason: str | None
    last_error: str | None
    cancel_requested_at: datetime | None
    tags: list[str]
    parent_id: str | None
    schedule: str | None
    payload_preview: str


class HistoryEntry(Shown):
    """One failure of a job."""

    at: datetime
    attempt: int
    fence: int
    process: str | None
    message: str
    kind_of_error: str


class JobEvent(Shown):
    """Something that happened to a job. Without `job_id` it stands for `count` events of a minute."""

    at: datetime
    type: str
    queue: str
    kind: str
    job_id: str | None
    attempt: int | None
    cause: str | None
    duration_ms: float | None
    count: int


class LogLine(Shown):
    """A line of a job's log. `skipped`: so many lines were dropped right before it, as the log is bounded."""

    at: datetime
    type: Literal["log"]
    level: str
    logger: str
    message: str
    queue: str
    kind: str
    job_id: str
    attempt: int
    fence: int
    skipped: int


class Progress(Shown):
    """The newest progress of the current run."""

    current: float
    total: float | None
    message: str | None
    at: datetime


class JobDetail(JobRow):
    """Everything about one job. `payload` is JSON as text, so that large numbers stay what they are; beyond 64 KiB it
    is cut, `payload_bytes` tells how long it is, and `/jobs/{id}/payload` gives all of it. `payload_hidden`: its kind
    hides payloads and errors."""

    payload: str
    payload_hidden: bool
    payload_bytes: int
    payload_cut: bool
    history: list[HistoryEntry]
    timeline: list[JobEvent]
    traceback: str | None
    progress: Progress | None
    trace: dict[str, str] | None
    log_count: int
    children: list[JobRow]
    children_total: int


class JobsQuery(Asked):
    """Which jobs. A parameter that may be repeated matches any of its values; given empty (`status=`), none."""

    queue: list[str] | None = None
    kind: list[str] | None = None
    status: list[str] | None = Field(default=None, description=f"Of {', '.join(JobStatus)}.")
    dead_reason: list[str] | None = Field(default=None, description=f"Of {', '.join(DeadReason)}.")
    key: str | None = Field(default=None, description="The dedupe key.")
    tag: str | None = None
    from_: Instant | None = Field(default=None, alias="from", description="Enqueued at or after this.")
    to: Instant | None = Field(default=None, description="Enqueued at or before this.")
    search: str | None = Field(default=None, description="Part of the payload's text, upper or lower case.")
    error: str | None = Field(default=None, description="Part of the last error.")
    process: str | None = Field(default=None, description="The host id or process id that runs it.")
    parent: str | None = Field(default=None, description="The id of the job that enqueued it.")
    schedule: str | None = Field(default=None, description="The schedule that made it.")
    order: Literal["newest", "scheduled", "future", "completed"] = Field(
        default="newest",
        description="`newest` enqueued first; `scheduled` soonest first; `future` the same of pending jobs whose time "
        "has not come, with a null `total` if more than `queue` is given; `completed` latest ended first.",
    )
    limit: Limit = 50
    cursor: Cursor | None = None


class JobGroup(Shown):
    """Dead jobs that ended alike: their last errors differ in numbers, ids and quoted text at most."""

    fingerprint: str
    sample: str
    count: int
    kinds: list[str]
    queues: list[str]
    first: datetime
    last: datetime
    ids: list[str]


class EnqueueBody(Given):
    """A job to add. Durations are seconds; give `run_at` or `delay`, `expires_at` or `ttl`."""

    kind: Name
    payload: Any = Field(default_factory=dict)
    queue: Name | None = None
    priority: int = Field(default=0, ge=limits.PRIORITY[0], le=limits.PRIORITY[1])
    max_attempts: int | None = Field(default=None, ge=limits.MAX_ATTEMPTS[0], le=limits.MAX_ATTEMPTS[1])
    dedupe_key: str | None = Field(default=None, min_length=1, max_length=limits.DEDUPE_KEY_LENGTH)
    on_conflict: Literal["skip", "replace", "error"] = "skip"
    unique_for: float | None = Field(default=None, ge=limits.UNIQUE_FOR_S[0], le=limits.UNIQUE_FOR_S[1])
    run_at: Instant | None = None
    delay: float | None = Field(default=None, ge=limits.DELAY_S[0], le=limits.DELAY_S[1])
    expires_at: Instant | None = None
    ttl: float | None = Field(default=None, ge=limits.DELAY_S[0], le=limits.DELAY_S[1])
    id: str | None = None
    tags: list[str] = Field(default_factory=list, max_length=limits.TAGS)
    trace: dict[str, str] | None = None


class EnqueueBulkBody(Given):
    """Jobs to add together: all of them, or none."""

    jobs: list[EnqueueBody] = Field(min_length=1, max_length=limits.BULK_CHUNK)


class EnqueueAnswer(Shown):
    """`enqueued`, or `deduped` with the id of the job that holds the key and its status, or `repeated`: the same job
    was added before with this id."""

    id: str
    outcome: Literal["enqueued", "deduped", "repeated"]
    status: str | None = None


class EnqueueBulkAnswer(Shown):
    """What became of each job, in the order given."""

    outcomes: list[EnqueueAnswer]


class PatchJobBody(Given):
    """What to change of a job that waits."""

    priority: int | None = Field(default=None, ge=limits.PRIORITY[0], le=limits.PRIORITY[1])
    run_at: Instant | None = None
    max_attempts: int | None = Field(default=None, ge=limits.MAX_ATTEMPTS[0], le=limits.MAX_ATTEMPTS[1])
    queue: Name | None = None
    expires_at: Instant | None = None


class ActAnswer(Shown):
    """What became of one job. `held_by`: the job that holds its dedupe key."""

    id: str
    changed: bool
    outcome: str
    held_by: str | None = None


class DeleteAnswer(Shown):
    """`deleted`, or of a running job `cancel_requested`: it was asked to stop; delete it again once it is dead."""

    outcome: Literal["deleted", "cancel_requested"]


class FilterBody(Given):
    """Which jobs, like the parameters of the list. An empty list matches none. `fingerprint`: all dead jobs of a group,
    however many."""

    queue: list[str] | None = None
    kind: list[str] | None = None
    status: list[str] | None = None
    dead_reason: list[str] | None = None
    key: str | None = None
    tag: str | None = None
    from_: Instant | None = Field(default=None, alias="from")
    to: Instant | None = None
    search: str | None = None
    error: str | None = None
    process: str | None = None
    parent: str | None = None
    schedule: str | None = None
    fingerprint: str | None = Field(default=None, max_length=64)


class PreviewBody(Given):
    """An act on many jobs that is only looked at. Give `filter` or `ids`."""

    action: ACTIONS
    filter: FilterBody | None = None
    ids: list[str] | None = Field(default=None, max_length=limits.BULK_CHUNK)


class PreviewAnswer(Shown):
    """How many jobs match, by status, and some of them."""

    count: int
    by_status: dict[str, int]
    sample: list[JobRow]


class ActionsBody(PreviewBody):
    """An act on many jobs. `expected_count` is the count of a preview; `all` is needed where the filter restricts
    nothing. `per_s`: a retry makes at most so many jobs a second due."""

    expected_count: int = Field(ge=0)
    all: bool = False
    per_s: float | None = Field(default=None, ge=limits.RETRY_PER_S[0], le=limits.RETRY_PER_S[1])


class Operation(Shown):
    """An act on many jobs that runs in the background."""

    id: str
    action: str
    per_s: float | None
    state: Literal["running", "done", "stopped", "failed"]
    total: int
    done: int
    changed: int
    skipped: dict[str, int]
    error: str | None
    started_at: datetime
    ended_at: datetime | None
    actor: str


JobPage = Page[JobRow]
EventPage = Page[JobEvent]
