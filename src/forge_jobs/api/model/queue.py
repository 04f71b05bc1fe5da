"""Queues, workers, schedules and rate limits in requests and answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from forge_jobs import limits
from forge_jobs.api.model.common import Given, Instant, Name, Shown


class Backoff(Shown):
    """The retry curve."""

    enabled: bool
    base_s: float
    cap_s: float
    jitter: float


class QueueCounts(Shown):
    """Jobs by status; `pending` is ready and scheduled together."""

    pending: int
    ready: int
    scheduled: int
    in_progress: int
    failed: int
    done: int
    dead: int
    oldest_ready_at: datetime | None


class QueueShare(Shown):
    """A live process's part of a queue's total, and the slots that it has open."""

    host_id: str
    share: int | None
    open: int


class QueueSettings(Shown):
    """What is stored of a queue. `clamped` names settings that were brought to their limit. `etag`: for `If-Match` of a
    change; it is of the settings that can be changed, not of pauses and cool-downs."""

    name: str
    max_workers: int | None
    retain_done_days: float | None
    retain_dead_days: float | None
    backoff: Backoff
    cool_down: bool
    max_pending: int | None
    throttle_attempts: int
    throttled_until: datetime | None
    paused: bool
    pause_signal: bool
    paused_at: datetime | None
    paused_by: str | None
    paused_processes: list[str]
    updated_at: datetime | None
    updated_by: str | None
    etag: str
    clamped: list[str] | None = None
    changed: bool | None = None


class Queue(QueueSettings):
    """A queue, its jobs and its slots. `unserved`: jobs wait and no live worker takes them; `unserved_kinds` are kinds
    without a handler."""

    counts: QueueCounts
    shares: list[QueueShare]
    unassigned: int | None
    slots_open: int
    slots_busy: int
    unserved: bool
    unserved_kinds: list[str]


class BackoffChange(Given):
    """What to change of the retry curve."""

    enabled: bool | None = None
    base_s: float | None = None
    cap_s: float | None = None
    jitter: float | None = None


class QueueChange(Given):
    """What to change of a queue; what is not given stays, null takes a limit away."""

    max_workers: int | None = None
    retain_done_days: float | None = None
    retain_dead_days: float | None = None
    backoff: BackoffChange | None = None
    cool_down: bool | None = None
    max_pending: int | None = None


class NewQueue(QueueChange):
    """A queue to make."""

    name: Name


class PauseBody(Given):
    """`signal`: tell running handlers."""

    signal: bool = True


class Nothing(Given):
    """Nothing."""


class Unserved(Shown):
    """Waiting jobs that no live worker takes: of a whole queue (`kind` null) or of one kind."""

    queue: str
    kind: str | None
    jobs: int


class Worker(Shown):
    """A worker process. `quiet`: it claims nothing, as an operator asked."""

    host_id: str
    worker: str
    label: str | None
    host_name: str
    pid: int
    version: str
    state: str
    live: bool
    quiet: bool
    queues: list[str]
    kinds: list[str]
    slots: dict[str, int]
    shares: dict[str, int]
    offered: dict[str, int]
    running: dict[str, str]
    loop_lag_ms: float
    abandoned_threads: int
    started_at: datetime
    heartbeat_at: datetime


class Workers(Shown):
    """Every known process, and what none of the live ones serves."""

    items: list[Worker]
    next_cursor: str | None
    total: int
    unserved: list[Unserved]


class Edit(Shown):
    """Who changed a setting, and when."""

    by: str
    at: datetime


class Difference(Shown):
    """What code declares, and what applies."""

    declared: Any
    stored: Any


class Fire(Shown):
    """One tick to come, in UTC and in the schedule's zone. `odd`: the clock changes there."""

    at: datetime
    local: str
    odd: str | None


class ScheduleSettings(Shown):
    """What a schedule enqueues, and when."""

    kind: str
    expr: str
    payload: Any
    queue: str | None
    zone: str
    gap: str
    fold: str
    misfire: str
    misfire_grace_s: float | None
    enabled: bool
    max_attempts: int | None
    priority: int
    dedupe_key: str | None
    skip_if_running: bool
    jitter_s: float
    starts_at: datetime | None
    ends_at: datetime | None


class Schedule(ScheduleSettings):
    """A schedule. `edited` are settings that operators changed, `differences` those that differ from code.
    `in_words` is what its expression says. `undeclared`: no live worker declares it any more. `why_silent`: why it does
    not fire, if it does not. `etag`: for `If-Match` of a change."""

    name: str
    state: str
    version: int
    next_fire_at: datetime | None
    last_fired_at: datetime | None
    last_outcome: str | None
    last_error: str | None
    consecutive_errors: int
    edited: dict[str, Edit]
    differences: dict[str, Difference]
    created_at: datetime
    updated_at: datetime
    updated_by: str | None
    in_words: str | None
    undeclared: bool
    why_silent: str | None
    etag: str
    next_fires: list[Fire]


class Tick(Shown):
    """What became of a tick, or of a range of skipped ones up to `through`."""

    schedule: str
    fire_at: datetime
    through: datetime | None
    outcome: str
    reason: str | None
    job_id: str | None
    at: datetime


class PreviewSchedule(Given):
    """An expression to try out."""

    expr: str = Field(max_length=limits.CRON_EXPR_LENGTH)
    zone: str = "UTC"
    gap: Literal["shift", "skip"] = "shift"
    fold: Literal["first", "second", "both"] = "first"
    n: int = Field(default=10, ge=1, le=limits.PREVIEW_FIRES)


class Fires(Shown):
    """The next ticks, and what the expression says."""

    items: list[Fire]
    in_words: str


class RateLimit(Shown):
    """A token bucket as it is now. `etag`: for `If-Match` of a change; it is of capacity and refill."""

    scope: str
    capacity: float
    refill_per_s: float
    per_key: bool
    template: str | None
    tokens: float
    blocked_until: datetime | None
    changed_at: datetime | None
    changed_by: str | None
    etag: str


class CleanupBody(Given):
    """What to remove. With `queue` only finished jobs of that queue."""

    queue: Name | None = None
    done_older_days: float | None = Field(default=None, ge=limits.RETENTION_DAYS[0], le=limits.RETENTION_DAYS[1])
    dead_older_days: float | None = Field(default=None, ge=limits.RETENTION_DAYS[0], le=limits.RETENTION_DAYS[1])


class CleanupAnswer(Shown):
    """Rows that were removed."""

    done: int
    dead: int
    events: int
    audit: int
    unique_holds: int
    rate_limits: int
    ticks: int
    metrics: int


class NewSchedule(Given):
    """A schedule to add."""

    name: Name
    kind: Name
    expr: str
    payload: Any = Field(default_factory=dict)
    queue: Name | None = None
    zone: str = "UTC"
    gap: str = "shift"
    fold: str = "first"
    misfire: str = "latest"
    misfire_grace_s: float | None = None
    enabled: bool = True
    max_attempts: int | None = None
    priority: int = 0
    dedupe_key: str | None = None
    skip_if_running: bool = False
    jitter_s: float = 0.0
    starts_at: Instant | None = None
    ends_at: Instant | None = None


class PatchSchedule(Given):
    """What to change of a schedule; what is not given stays."""

    kind: Name | None = None
    expr: str | None = None
    payload: Any = None
    queue: Name | None = None
    zone: str | None = None
    gap: str | None = None
    fold: str | None = None
    misfire: str | None = None
    misfire_grace_s: float | None = None
    enabled: bool | None = None
    max_attempts: int | None = None
    priority: int | None = None
    dedupe_key: str | None = None
    skip_if_running: bool | None = None
    jitter_s: float | None = None
    starts_at: Instant | None = None
    ends_at: Instant | None = None


class TriggerBody(Given):
    """`force`: also while a job of the schedule waits or runs."""

    force: bool = False


class PutLimit(Given):
    """A rate limit: a bucket of `capacity` tokens that fills by so many a second."""

    capacity: float
    refill_per_s: float


class DrainBody(Given):
    """`retry_after`: keep the bucket shut for so many seconds."""

    retry_after: float | None = Field(default=None, ge=limits.RETRY_AFTER_S[0], le=limits.RETRY_AFTER_S[1])


class Asked(Shown):
    """What a worker is asked: `quiet`, `stop`, or nothing."""

    host_id: str
    wish: Literal["quiet", "stop"] | None
